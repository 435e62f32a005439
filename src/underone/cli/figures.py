"""Measurements as tables."""

from collections.abc import Collection, Iterator, Mapping

from underone.cli.console import note, out, table
from underone.metrics import Figure, Measurement
from underone.metrics.uncertainty import Blocks


def show(measurement: Measurement) -> None:
    """The figures, each with its error, its floor and its copies, and their protocol."""
    protocol, floor, blocks = measurement.protocol, measurement.floor, measurement.blocks
    real = {} if floor is None else floor.figures
    copies = measurement.copies
    columns = ["value", "error"] if blocks == 1 else ["mean", "sd", "minimum"]
    grid = table("", "", *columns, *(["real"] if real else []), *(["copies"] if copies else []))
    for name, row in titled(measurement.figures, protocol.extractor.name):
        grid.add_row(
            row,
            *spread(measurement.figures.get(name), blocks),
            *([_value(real.get(name))] if real else []),
            *([_value(copies.get(name))] if copies else []),
        )
    out.print(grid)
    _show_classes(measurement, real)
    count = f"{protocol.reference_count:,}, " if protocol.reference_count else ""
    times = f"{blocks} x " if blocks > 1 else ""
    out.print(
        f"{times}{protocol.count:,} samples, labels {protocol.labels}; reference "
        f"{protocol.reference.name} ({count}{protocol.reference_split}), "
        f"extractor {protocol.extractor.sha256[:16]}",
        soft_wrap=True,
    )
    if floor is not None and floor.draws:
        draws = "one draw" if floor.draws == 1 else f"mean of {floor.draws} draws"
        out.print(f"real: {floor.count:,} held-out images, {draws}")
        if floor.count < protocol.count:
            note(
                f"only {floor.count:,} real images of these classes are held out: their figures "
                "are of fewer images than the samples', and FID falls with the number"
            )
    if copies:
        out.print("copies: training images in place of samples")


def cautions(measurement: Measurement) -> Iterator[str]:
    """Cautions to print wherever the figures are shown, a line each."""
    if measurement.rank_deficient and {"fid", "fid-held-out"} & measurement.figures.keys():
        yield (
            f"{measurement.protocol.count:,} samples are no more than the features have "
            "dimensions: this FID says little; draw more"
        )
    if measurement.class_rank_deficient:
        yield (
            "the smallest class has no more samples than the features have dimensions: FID within "
            "classes says little; draw more"
        )


def _show_classes(measurement: Measurement, real: Mapping[str, Figure]) -> None:
    """The figures within classes, a row for each class."""
    figures, extractor = measurement.figures, measurement.protocol.extractor.name
    kinds = {"fid": f"FID@{extractor}", "consistency": "consistency"}
    names = [name.rpartition("-") for name in figures if _is_of_a_class(name)]
    found = {kind: kinds[kind] for kind in kinds if kind in {name for name, _, _ in names}}
    if not found:
        return
    grid = table("", "class", *(part for title in found.values() for part in (title, "real")))
    for label in sorted({int(label) for _, _, label in names}):
        cells = [
            _value(where.get(f"{kind}-{label}")) for kind in found for where in (figures, real)
        ]
        grid.add_row(str(label), *cells)
    out.print()
    out.print(grid)


def titled(figures: Collection[str], extractor: str) -> list[tuple[str, str]]:
    """The figures over all classes with titles of their rows; FIDs under "FID@extractor"."""
    names = [name for name in figures if not _is_of_a_class(name)]
    family = [name for name in names if name in _FID_FAMILY]
    head = [("fid", f"FID@{extractor}")] if family else []
    members = [(name, f"  {_FID_FAMILY[name]}") for name in family if name != "fid"]
    others = [name for name in names if name not in family]
    return [*head, *members, *((name, _PLAIN.get(name, name)) for name in others)]


_FID_FAMILY = {
    "fid": "",
    "fid-held-out": "against held-out images",
    "fid-infinity": "at infinite N",
    "intra-fid": "within classes",
    "intra-fid-weighted": "within classes, weighted",
}
_PLAIN = {
    "kid": "KID",
    "inception-score": "Inception Score",
    "consistency-macro": "consistency, mean of classes",
    "memorised-share": "memorised share",
    "authentic-percent": "AuthPct",
    "data-copying": "C_T",
}


def _is_of_a_class(name: str) -> bool:
    return name.rpartition("-")[2].isdigit()


def spread(figure: Figure | None, blocks: int) -> tuple[str, ...]:
    """A figure and its uncertainty: over blocks, else its error or interval, if known."""
    if figure is None:
        return ("",) * (2 if blocks == 1 else 3)
    value = f"{figure.value:.4f}"
    if blocks > 1:
        several = Blocks(figure.blocks)
        return value, f"{several.standard_deviation:.4f}", f"{several.minimum:.4f}"
    if figure.interval is not None:
        return value, "{:.4f} to {:.4f}".format(*figure.interval)
    return value, "" if figure.error is None else f"± {figure.error:.4f}"


def _value(figure: Figure | None) -> str:
    return "" if figure is None else f"{figure.value:.4f}"
