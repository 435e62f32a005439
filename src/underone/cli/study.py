"""`underone study` and `underone guide`: run a study, show its progress, and report it."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import click
import torch

from underone.cli.console import note, out, print_json, table
from underone.cli.options import device_option
from underone.cli.preflight import announce, announce_revision, learn_variance
from underone.cli.study_progress import advance, best_so_far
from underone.errors import UserError
from underone.generation import Draw
from underone.study.analysis import analysed
from underone.study.bench import Bench, open_bench
from underone.study.definition import Study, for_model, load_study, shipped_studies
from underone.study.engine import Engine, LocalEngine, WorkerSetup
from underone.study.fit import planned_cells
from underone.study.folder import Folder
from underone.study.plan import StudyPlan
from underone.study.ranks import led_by_first_rank, many_ranks, open_ranks
from underone.study.report import write_report
from underone.study.run import StudyRun, kept_plan, new_plan, open_run
from underone.study.words import setting_title
from underone.zoo import load_model

_FOLDER = click.Path(path_type=Path, file_okay=False)
Opener = Callable[[StudyRun], AbstractContextManager[Engine]]


@click.command(epilog=f"Shipped studies: {', '.join(shipped_studies())}.")
@click.argument("study")
@click.option("--out", "folder", type=_FOLDER, help="The folder. [default: the study's name]")
@click.option("--minutes", type=float, help="Fit samples and settings to this many minutes.")
@click.option(
    "--evaluations",
    type=click.IntRange(min=1),
    help="The budget in place of the study's own; a folder's may be raised.",
)
@click.option("--dry-run", is_flag=True, help="Check all cells, print them with their cost, stop.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    help="Where cells run: here, or on a Ray cluster.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), help="Those of Ray. [default: as many as fit]"
)
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print all results as JSON.")
@led_by_first_rank
def study(
    study: str,
    folder: Path | None,
    minutes: float | None,
    evaluations: int | None,
    dry_run: bool,
    engine: str,
    workers: int | None,
    device: torch.device,
    as_json: bool,
) -> None:
    """Run or continue STUDY, a .toml file or a shipped study's name, and report it.

    All settings are checked before the first is drawn. Stop at any moment: the same command
    continues.
    """
    opener = _engine(engine, workers, device)
    asked = load_study(study)
    if evaluations is not None:
        asked = asked.model_copy(update={"evaluations": evaluations})
    bench = open_bench(asked, device)
    path = folder or Path(Path(study).stem)
    if dry_run:
        kept = kept_plan(Folder(path), asked, bench)
        _show_cells(kept or new_plan(asked, bench, minutes), bench, as_json)
        return
    _run_study(asked, bench, path, minutes, opener, as_json)


@click.command()
@click.argument("model", default="fashion-mnist")
@click.option("--minutes", default=5.0, help="The time budget of a new guide.")
@click.option(
    "--out",
    "folder",
    type=_FOLDER,
    default=Path("guide"),
    help="The folder; an unfinished guide in it is continued.",
)
@click.option("--reference", help="What to measure against. [default: the model's data set]")
@click.option("--seed", default=0, help="The seed that all settings share.")
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print all results as JSON.")
@led_by_first_rank
def guide(
    model: str,
    minutes: float,
    folder: Path,
    reference: str | None,
    seed: int,
    device: torch.device,
    as_json: bool,
) -> None:
    """Compare samplers, step counts and guidance weights on MODEL, and write a report."""
    Draw(1, seed=seed)  # which refuses impossible seeds
    whole = load_study("guide").model_copy(update={"seed": seed})
    asked = for_model(whole, model, load_model(model), () if reference is None else (reference,))
    opener = _engine("local", None, device)
    _run_study(asked, open_bench(asked, device), folder, minutes, opener, as_json)


def _engine(name: str, workers: int | None, device: torch.device) -> Opener:
    """A function that opens the engine `name`, or that of torchrun's ranks."""
    if workers is not None and name != "ray":
        raise UserError("--workers are those of Ray: add --engine ray")
    if device.type != "cpu" and (name == "ray" or many_ranks()):
        raise UserError(
            "Ray's workers and torchrun's processes take GPUs by themselves: leave out --device"
        )
    if many_ranks():
        if name != "local":
            raise UserError("torchrun's processes are the engine here: leave out --engine")
        return lambda run: nullcontext(_ranks(run))
    if name == "local":
        return lambda run: nullcontext(_local(run, device))
    try:
        from underone.study.ray_engine import open_ray
    except ImportError:
        raise UserError("--engine ray needs Ray: pip install underone[ray]") from None
    return lambda run: open_ray(_worker_setup(run), workers)


def _ranks(run: StudyRun) -> Engine:
    engine = open_ranks(_worker_setup(run), run.bench)
    run.check_precision()  # now that its models are on the devices they draw on
    return engine


def _local(run: StudyRun, device: torch.device) -> LocalEngine:
    run.check_precision()
    setup = replace(_worker_setup(run), device=str(device))
    return LocalEngine(setup.prepared(run.bench), run.plan.threads)


def _worker_setup(run: StudyRun) -> WorkerSetup:
    plan = run.plan
    return WorkerSetup.of(plan.study, run.bench, plan.threads, plan.compiled)


def _run_study(
    study: Study,
    bench: Bench,
    folder: Path,
    minutes: float | None,
    opener: Opener,
    as_json: bool,
) -> None:
    for model in bench.models.values():
        announce_revision(model)
    for by in bench.yardsticks:
        announce(by.extractor)
    run, continued = open_run(folder, study, bench, minutes, note)
    _introduce(run, continued)
    for cell in planned_cells(run.plan, bench):
        learn_variance(bench.models[cell.model], cell.setting)
    try:
        if run.due():
            with opener(run) as engine:
                advance(run, engine)
    except KeyboardInterrupt:
        if run.known:
            write_report(analysed(run))
        note(f"stopped with {len(run.known)} cells done; the same command goes on")
        sys.exit(130)
    page = write_report(analysed(run))
    if as_json:
        print_json([run.known[cell].model_dump(mode="json") for cell in run.in_order])
        return
    out.print(best_so_far(run))
    out.print(f"{page}: open it in a browser", soft_wrap=True)


def _introduce(run: StudyRun, continued: bool) -> None:
    begun = "going on with the plan of this folder: " if continued else ""
    cells, plan = planned_cells(run.plan, run.bench), run.plan
    counts = sorted({cell.draw.count for cell in cells})
    samples = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    note(
        f"{begun}{len(cells)} cells of {samples} samples, {len(run.due())} to run now, about "
        f"{run.seconds_left / 60:.1f} minutes, before best settings are drawn again"
    )
    if plan.left_out:
        note(f"settings left out by the budget, which the report names: {len(plan.left_out)}")


def _show_cells(plan: StudyPlan, bench: Bench, as_json: bool) -> None:
    cells = planned_cells(plan, bench)
    costs = [(cell.evaluations(bench), plan.costs.seconds(cell, bench)) for cell in cells]
    if as_json:
        planned = [
            {**asdict(cell), "evaluations": evaluations, "seconds": seconds}
            for cell, (evaluations, seconds) in zip(cells, costs, strict=True)
        ]
        print_json({"plan": plan.model_dump(mode="json"), "cells": planned})
        return
    grid = table("cells", "model, setting", "samples", "evaluations", "seconds")
    for cell, (evaluations, seconds) in zip(cells, costs, strict=True):
        title = f"{cell.model}: {setting_title(cell.setting)}"
        grid.add_row(title, f"{cell.draw.count:,}", f"{evaluations:,}", f"{seconds:.1f}")
    out.print(grid)
    total, minutes = sum(each for each, _ in costs), sum(each for _, each in costs) / 60
    out.print(f"{len(cells)} cells, {total:,} evaluations, about {minutes:.1f} minutes")
    for each in plan.left_out:
        out.print(f"left out by the budget: {each.model}: {setting_title(each.setting)}")
