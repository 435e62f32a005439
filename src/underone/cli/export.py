"""`underone export`."""

from pathlib import Path

import click

from underone.cli.console import note
from underone.cli.preflight import announce_revision
from underone.interop.export import export_to_diffusers
from underone.zoo import load_model


@click.command()
@click.argument("model")
@click.option("--to", type=click.Choice(["diffusers"]), required=True, help="For which program.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="A folder that is new or empty."
)
def export(model: str, to: str, out: Path) -> None:
    """Write MODEL as a folder that diffusers runs, with the same images.

    It is loaded by DiffusionPipeline.from_pretrained(OUT, trust_remote_code=True), where underone
    must be installed: the network is not one of those that diffusers has.
    """
    loaded = load_model(model)
    announce_revision(loaded)
    export_to_diffusers(loaded, out)
    note(f"{out}: {loaded.name} for {to}; its README.md says how to use it")
