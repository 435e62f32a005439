"""Figures compare only where they were measured alike, and a refusal names every difference."""

from typing import Any

import pytest

from studies import PROTOCOL
from underone.errors import UserError
from underone.metrics import (
    Figure,
    Measurement,
    not_allowed,
    paired_differences,
    protocol_differences,
    protocol_fields,
)
from underone.metrics.measurement import Identity


def measurement(fid: float = 1.0, subject: str = "ddim", **changes: Any) -> Measurement:
    asked = {"extractor_revision": 2, "judge": "e" * 64, "flips": False}
    return Measurement(
        figures={"fid": Figure(value=fid)},
        rank_deficient=False,
        floor=None,
        protocol=PROTOCOL.model_copy(update=asked | changes),
        subject={"sampler": subject},
        environment={"torch": subject},
    )


def test_a_true_repeat_is_accepted_and_so_is_another_subject() -> None:
    assert protocol_differences([measurement(), measurement()]) == {}
    assert protocol_differences([measurement(), measurement(2.0, subject="unipc")]) == {}


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("count", {"count": 5000}),
        ("labels", {"labels": "random"}),
        ("extractor.sha256", {"extractor": Identity(name="classifier", sha256="c" * 64)}),
        ("reference.sha256", {"reference": Identity(name="data", sha256="c" * 64)}),
        ("reference_count", {"reference_count": 10_000}),
        ("reference_split", {"reference_split": "test"}),
        ("quantisation", {"quantisation": "none"}),
        ("extractor_precision", {"extractor_precision": "bfloat16"}),
        ("extractor_revision", {"extractor_revision": 1}),
        ("judge", {"judge": "d" * 64}),
        ("flips", {"flips": True}),
        ("version", {"version": 1}),
    ],
)
def test_every_field_of_the_protocol_must_agree(field: str, change: dict[str, Any]) -> None:
    both = [measurement(), measurement(**change)]
    found = protocol_differences(both)
    assert list(found) == [field]
    known = protocol_fields(both[0])
    assert not_allowed(found, (), known) == [field]
    assert not_allowed(found, (field,), known) == []
    other = next(name for name in known if name != field)
    assert not_allowed(found, (other,), known) == [field]


def test_the_fields_tested_are_all_there_are() -> None:
    assert set(protocol_fields(measurement())) == {
        "version",
        "count",
        "labels",
        "extractor.sha256",
        "reference.sha256",
        "reference_count",
        "reference_split",
        "quantisation",
        "extractor_precision",
        "extractor_revision",
        "judge",
        "flips",
    }


def test_names_decide_nothing() -> None:
    renamed = measurement(extractor=Identity(name="another name", sha256="a" * 64))
    assert protocol_differences([measurement(), renamed]) == {}


def test_an_allowed_field_must_exist() -> None:
    known = protocol_fields(measurement())
    with pytest.raises(UserError, match="did you mean 'labels'"):
        not_allowed({}, ("label",), known)


def in_blocks(*values: float, seed: int = 0) -> Measurement:
    figure = Figure(value=sum(values) / len(values), blocks=values)
    subject = {"seed": seed, "first": 0}
    return measurement().model_copy(update={"figures": {"fid": figure}, "subject": subject})


@pytest.mark.parametrize("field", ["judge", "flips"])
def test_what_was_not_asked_differs_from_nothing(field: str) -> None:
    change: dict[str, Any] = {field: None}
    assert protocol_differences([measurement(), measurement(**change)]) == {}


def test_a_file_from_before_flips_were_recorded_still_loads() -> None:
    document = measurement().model_dump(mode="json")
    del document["protocol"]["flips"]
    old = Measurement.model_validate(document)
    assert old.protocol.flips is None
    assert protocol_differences([old, measurement()]) == {}


def test_blocks_of_the_same_seeds_are_compared_in_pairs() -> None:
    a, b = in_blocks(1.0, 2.0, 3.0), in_blocks(1.11, 2.1, 3.09)
    # Each by itself varies ten times more than the two differ, but not between the blocks.
    found = paired_differences(a, b)["fid"]
    assert found.difference == pytest.approx(-0.1)
    assert found.verdict == "A lower"
    assert paired_differences(a, in_blocks(3.0, 1.0, 2.5))["fid"].verdict == "not separated"
    assert paired_differences(a, in_blocks(1.1, 2.1, 3.1, seed=1)) == {}
    assert paired_differences(a, in_blocks(1.1, 2.1)) == {}
    larger = b.model_copy(update={"protocol": b.protocol.model_copy(update={"count": 2000})})
    assert paired_differences(a, larger) == {}
    other = Identity(name="other", sha256="f" * 64)
    elsewhere = b.model_copy(
        update={"protocol": b.protocol.model_copy(update={"extractor": other})}
    )
    assert paired_differences(a, elsewhere) == {}
    assert paired_differences(measurement(), measurement()) == {}
