"""`underone compare`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from underone.cli.console import note, out, print_json, table
from underone.cli.figures import cautions, spread, titled
from underone.config import parse
from underone.errors import UserError
from underone.files import read_json
from underone.metrics import (
    Figure,
    Measurement,
    not_allowed,
    paired_differences,
    protocol_differences,
    protocol_fields,
)
from underone.metrics.reference_file import UNRECORDED
from underone.metrics.uncertainty import Comparison, Verdict

_SETTING = ("sampler", "steps", "grid", "guidance", "form", "interval", "threshold", "precision")
_VERDICTS = {
    Verdict.A_LOWER: "the first lower",
    Verdict.B_LOWER: "the second lower",
    Verdict.NOT_SEPARATED: "not separated",
}


@click.command(epilog="Example: underone evaluate a.npz --reference fashion-mnist --json > a.json")
@click.argument("measurements", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--allow", multiple=True, metavar="FIELD", help="Let this field of the protocol differ."
)
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
def compare(measurements: tuple[Path, ...], allow: tuple[str, ...], as_json: bool) -> None:
    """Show MEASUREMENTS, the .json files of evaluate, side by side.

    What was measured may differ, but not how: else nothing is compared, and the exit status is 3.
    Blocks of the same seeds are compared in pairs with those of the first file.
    """
    if len(measurements) < 2:
        raise UserError("a comparison needs at least 2 measurements")
    every = [parse(Measurement, read_json(path), str(path)) for path in measurements]
    differing = protocol_differences(every)
    refused = not_allowed(differing, allow, protocol_fields(every[0]))
    if refused:
        for name in refused:
            found = ", ".join(map(str, differing[name]))
            note(f"underone: not comparable: {name} differs: {found}")
        sys.exit(3)
    if len({str(_model(m)["sha256"]) for m in every if "sha256" in _model(m)}) > 1:
        note(
            "these are of different weights: training again with another seed moves FID more than "
            "sampling again, and the errors are of sampling alone"
        )
    names = [path.name for path in measurements]
    if len(set(names)) < len(names):
        names = [str(path) for path in measurements]
    for name, measurement in zip(names, every, strict=True):
        for caution in cautions(measurement):
            note(f"{name}: {caution}")
    allowed = {name: list(map(str, values)) for name, values in differing.items()}
    if as_json:
        print_json(
            {
                "allowed_differences": allowed,
                "measurements": {
                    str(path): measurement.model_dump(mode="json")
                    for path, measurement in zip(measurements, every, strict=True)
                },
                "differences": {
                    f"{measurements[0]} - {path}": {
                        name: {"difference": found.difference, "verdict": str(found.verdict)}
                        | {"interval": [found.interval.low, found.interval.high]}
                        for name, found in paired_differences(every[0], other).items()
                    }
                    for path, other in zip(measurements[1:], every[1:], strict=True)
                },
            }
        )
        return
    _show(names, every)
    for name, other in zip(names[1:], every[1:], strict=True):
        pair = f"{names[0]} - {name}"
        extractor = every[0].protocol.extractor.name
        differences = paired_differences(every[0], other)
        if not differences:
            note(f"{pair}: not compared in pairs, which needs blocks of the same seeds in both")
        _show_differences(pair, extractor, differences)
    for name, values in allowed.items():
        note(f"allowed to differ: {name}: {', '.join(values)}")


def _show(names: list[str], every: list[Measurement]) -> None:
    extractors = "/".join(dict.fromkeys(m.protocol.extractor.name for m in every))
    grid = table("", "", *names)
    metrics = dict.fromkeys(name for m in every for name in m.figures)
    for metric, row in titled(metrics, extractors):
        grid.add_row(row, *(_cell(m.figures.get(metric), m.blocks) for m in every))
        floors = [None if m.floor is None else m.floor.figures.get(metric) for m in every]
        if any(floors):
            cells = ("" if floor is None else f"{floor.value:.4f}" for floor in floors)
            grid.add_row("    of real images", *cells, style="dim")
    subjects = [_subject(m) for m in every]
    for title in subjects[0]:
        column = [each[title] for each in subjects]
        if any(column):
            grid.add_row(title, *column)
    out.print(grid)


def _subject(measurement: Measurement) -> dict[str, str]:
    """What was measured, by title of a row; "" where not recorded."""
    subject, model, protocol = measurement.subject, _model(measurement), measurement.protocol
    times = f"{measurement.blocks} x " if measurement.blocks > 1 else ""
    rows = {
        "model": model.get("name"),
        "weights": " ".join(str(model[key])[:12] for key in ("weights", "sha256") if key in model),
        **{field: subject.get(field) for field in _SETTING},
        "labels": None if protocol.labels == UNRECORDED else protocol.labels,
        "N": f"{times}{protocol.count:,}",
        "seed": subject.get("seed"),
    }
    return {title: "" if value is None else str(value) for title, value in rows.items()}


def _model(measurement: Measurement) -> Mapping[str, Any]:
    """What is recorded of the model: of samples from elsewhere, nothing."""
    model = measurement.subject.get("model")
    return model if isinstance(model, Mapping) else {"name": model}


def _show_differences(pair: str, extractor: str, differences: Mapping[str, Comparison]) -> None:
    if not differences:
        return
    out.print()
    grid = table("", pair, "difference", "95 %", "")
    for metric, row in titled(differences, extractor):
        if metric not in differences:
            continue
        found = differences[metric]
        interval = f"{found.interval.low:.4f} to {found.interval.high:.4f}"
        grid.add_row(row, f"{found.difference:.4f}", interval, _VERDICTS[found.verdict])
    out.print(grid)


def _cell(figure: Figure | None, blocks: int) -> str:
    value, error, *_ = spread(figure, blocks)
    return f"{value} (sd {error})" if blocks > 1 and value else f"{value} {error}".rstrip()
