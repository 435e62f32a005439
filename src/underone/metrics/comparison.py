"""Compare measurements, which is allowed only where all fields of their protocols are equal."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from underone.errors import unknown
from underone.metrics.measurement import Measurement
from underone.metrics.uncertainty import Blocks, Comparison, compare

# Names may differ as long as the hashes beside them agree.
_NAMES = ("extractor.name", "reference.name")
# None where no metric needed it, which agrees with any value.
_OPTIONAL = ("judge", "flips")


def protocol_fields(measurement: Measurement) -> dict[str, Any]:
    """The protocol by dotted field names, without `_NAMES`, which identify nothing."""
    return {
        key: value
        for key, value in _flat(measurement.protocol.model_dump(mode="json"))
        if key not in _NAMES
    }


def protocol_differences(measurements: Sequence[Measurement]) -> dict[str, tuple[Any, ...]]:
    """The protocol fields that differ, each with the values of all measurements."""
    every = [protocol_fields(measurement) for measurement in measurements]
    columns = {key: tuple(fields[key] for fields in every) for key in every[0]}
    return {key: values for key, values in columns.items() if len(_distinct(key, values)) > 1}


def paired_differences(a: Measurement, b: Measurement) -> dict[str, Comparison]:
    """Each figure of A minus that of B over blocks of the same seeds; empty if not paired.

    Paired differences, not overlapping intervals: the effect of shared noise cancels.
    """
    same_seeds = all(a.subject.get(key) == b.subject.get(key) for key in ("seed", "first"))
    same_measure = a.protocol.count == b.protocol.count and all(
        getattr(a.protocol, part).sha256 == getattr(b.protocol, part).sha256
        for part in ("extractor", "reference")
    )
    if a.blocks < 2 or a.blocks != b.blocks or not (same_seeds and same_measure):
        return {}
    if a.subject.get("seed") is None:
        return {}
    return {
        name: compare(Blocks(figure.blocks), Blocks(b.figures[name].blocks))
        for name, figure in a.figures.items()
        if name in b.figures
    }


def _distinct(key: str, values: Sequence[Any]) -> set[str]:
    """The distinct values; in an optional field, None agrees with every value."""
    return {str(value) for value in values if not (key in _OPTIONAL and value is None)}


def not_allowed(
    differences: Mapping[str, tuple[Any, ...]], allowed: Collection[str], known: Collection[str]
) -> list[str]:
    """The differing fields that are not `allowed`, whose names must be `known` ones."""
    for name in allowed:
        if name not in known:
            raise unknown("protocol field", name, known)
    return [name for name in differences if name not in allowed]


def _flat(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
