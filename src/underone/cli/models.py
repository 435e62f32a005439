"""`underone models`."""

import click

from underone.checkpoint import load_config
from underone.cli.console import out, print_json, table
from underone.shipped import find_checkpoint, model_names
from underone.zoo import find_reference, reference_names


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def models(as_json: bool) -> None:
    """List what is shipped: models, extractors and reference statistics."""
    configs = {name: load_config(find_checkpoint(name)) for name in model_names()}
    references = [find_reference(name) for name in reference_names()]
    if as_json:
        print_json(
            {
                "models": {name: c.model_dump(mode="json") for name, c in configs.items()},
                "references": {
                    r.name: {"extractor": r.origin.extractor, "images": r.count, "sha256": r.sha256}
                    for r in references
                },
            }
        )
        return
    grid = table("models", "name", "kind", "data", "training", "card")
    for name, config in configs.items():
        minutes = f"{config.training.seconds / 60:.0f} min"
        card = find_checkpoint(name) / "README.md"
        grid.add_row(name, config.kind, config.data.name, minutes, str(card))
    out.print(grid)
    out.print()
    grid = table("references", "name", "extractor", "images", "split")
    for reference in references:
        origin = reference.origin
        grid.add_row(reference.name, origin.extractor, f"{reference.count:,}", origin.split)
    out.print(grid)
