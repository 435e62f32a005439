"""`underone evaluate`."""

from pathlib import Path

import click

from underone.cli.console import announce_revision, note, out, print_json, table
from underone.data import read_samples
from underone.metrics import Measurement, measure
from underone.zoo import find_reference, load_extractor, reference_names


@click.command(epilog=f"Shipped references: {', '.join(reference_names())}.")
@click.argument("samples", type=click.Path(path_type=Path))
@click.option("--reference", required=True, help="A shipped reference's name, or an .npz file.")
@click.option("--extractor", help="Whose features. [default: the reference's]")
@click.option("--json", "as_json", is_flag=True, help="Print the measurement as JSON.")
def evaluate(samples: Path, reference: str, extractor: str | None, as_json: bool) -> None:
    """Measure SAMPLES: an .npz of this program or of ADM, or a folder of PNGs."""
    drawn = read_samples(samples)
    against = find_reference(reference)
    features = load_extractor(extractor or against.extractor)
    announce_revision(features.model)
    measurement = measure(drawn, features, against)
    if as_json:
        print_json(measurement.model_dump(mode="json"))
        return
    show(measurement)


def show(measurement: Measurement) -> None:
    """The figures, each with its protocol."""
    protocol, floor = measurement.protocol, measurement.floor
    grid = table("", "metric", "value")
    grid.add_row(f"FID@{protocol.extractor.name}", f"{measurement.fid:.4f}")
    grid.add_row(f"  floor: {floor.count:,} real images", f"{floor.fid:.4f}")
    grid.add_row("samples", f"{protocol.count:,}")
    grid.add_row("labels", protocol.labels)
    grid.add_row(
        "reference",
        f"{protocol.reference.name} ({protocol.reference_count:,}, {protocol.reference_split})",
    )
    grid.add_row("extractor", protocol.extractor.sha256[:16])
    out.print(grid)
    if measurement.rank_deficient:
        note(
            f"{protocol.count} samples are no more than the features have dimensions: "
            "this FID says little; draw more"
        )
