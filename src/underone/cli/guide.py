"""`underone guide`."""

import sys
from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Group
from rich.live import Live
from rich.progress import Progress, TaskID
from rich.table import Table

from underone.adapters import find_extractor
from underone.cli.console import (
    announce,
    announce_revision,
    err,
    note,
    out,
    print_json,
    progress_bar,
    table,
)
from underone.errors import UserError
from underone.study.cell import Bench, CellResult
from underone.study.guide import Guide, open_guide
from underone.study.report import Tables, setting_title, summary, write_report
from underone.zoo import find_reference, load_model


@click.command()
@click.argument("model", default="fashion-mnist")
@click.option("--minutes", default=5.0, help="The time budget of a new guide.")
@click.option(
    "--out",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("guide"),
    help="The folder; an unfinished guide in it goes on.",
)
@click.option("--reference", help="What to measure against. [default: the model's data set]")
@click.option("--seed", default=0, help="The seed that all settings share.")
@click.option("--json", "as_json", is_flag=True, help="Print all results as JSON.")
def guide(
    model: str, minutes: float, folder: Path, reference: str | None, seed: int, as_json: bool
) -> None:
    """Compare samplers, step counts and guidance weights on MODEL, and write a report."""
    loaded = load_model(model)
    announce_revision(loaded)
    against = find_reference(reference or loaded.config.data.name)
    extractor = find_extractor(against.origin.extractor)
    announce(extractor)
    if against.held_out is None:
        raise UserError(
            f"reference {against.name} holds no held-out images, which the floor needs: build one "
            "with underone reference build"
        )
    bench = Bench(loaded, extractor, against)
    opened, continued = open_guide(folder, bench, minutes, seed)
    _introduce(opened, continued)
    try:
        results = _run(opened)
    except KeyboardInterrupt:
        if done := opened.results():
            write_report(opened, done)
        note(f"stopped with {len(done)} of {len(opened.cells)} settings; the same command goes on")
        sys.exit(130)
    page = write_report(opened, results)
    if as_json:
        print_json(summary(bench, results))
        return
    if not err.is_terminal:
        out.print(_tables(opened, results))
    out.print(f"{page}: open it in a browser")


def _introduce(guide: Guide, continued: bool) -> None:
    plan, missing = guide.plan, guide.missing()
    model = guide.bench.model
    evaluations = sum(cell.cost(model) for cell in missing)
    estimate = evaluations * plan.seconds_per_evaluation / 60
    begun = "going on with the plan of this folder: " if continued else ""
    note(
        f"{begun}{len(plan.settings)} settings, {plan.count} samples each; "
        f"{len(missing)} to run, about {estimate:.1f} minutes",
    )


def _run(guide: Guide) -> list[CellResult]:
    """Run what is missing, showing the tables as they fill."""
    missing, model = guide.missing(), guide.bench.model
    results = guide.results()
    progress = progress_bar()
    task = progress.add_task("evaluations", total=sum(cell.cost(model) for cell in missing))
    with Live(console=err, refresh_per_second=2) as live:
        for cell in missing:
            progress.update(task, description=setting_title(cell.setting))
            live.update(Group(_tables(guide, results), progress))
            result = guide.run(cell, _advance(progress, task, cell.setting.evaluations(model)))
            results.append(result)
            if not err.is_terminal:
                title = setting_title(result.setting)
                note(f"{title}: FID {result.measurement.fid:.3f}")
        live.update(_tables(guide, results))
    return results


def _advance(progress: Progress, task: TaskID, evaluations: int) -> Callable[[int], object]:
    return lambda images: progress.advance(task, images * evaluations)


def _tables(guide: Guide, results: list[CellResult]) -> Group:
    tables = Tables(results)
    parts: list[Table | str] = []
    planned = [setting for setting in guide.plan.settings if setting.guidance == 0]
    steps = sorted({setting.steps for setting in planned})
    grid = table(f"FID@{guide.bench.extractor.name}, w = 0", "steps", *map(str, steps))
    for sampler in dict.fromkeys(setting.sampler for setting in planned):
        cells = [tables.at(sampler, number) for number in steps]
        grid.add_row(sampler, *(f"{c.measurement.fid:.3f}" if c else "" for c in cells))
    parts += [grid, ""]
    if tables.guidance:
        ladder = tables.guidance
        setting = ladder[0].setting
        grid = table(
            f"{setting.sampler}, {setting.steps} steps",
            "weight w",
            *(f"{cell.setting.guidance:g}" for cell in ladder),
        )
        grid.add_row("FID", *(f"{cell.measurement.fid:.3f}" for cell in ladder))
        parts += [grid, ""]
    if results:
        floor = results[0].floor
        parts.append(
            f"floor: {floor.fid:.3f}, by {floor.count:,} real images ({floor.draws} draws)"
        )
    return Group(*parts)
