"""`underone recommend` and `underone report`."""

import shlex
from pathlib import Path

import click

from underone.cli.console import counted, note, out, print_json, table
from underone.cli.preflight import announce_revision
from underone.errors import UserError
from underone.evaluation import training_images
from underone.study.analysis import Analysis, analysed
from underone.study.answers import Standing
from underone.study.measures import FID
from underone.study.panel import draw_panel
from underone.study.recommend import PREFERENCES, Budget, Recommendation, recommend
from underone.study.report import write_markdown, write_report
from underone.study.report.sentences import difference_text
from underone.study.run import open_folder
from underone.study.words import setting_title

_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.argument("folder", type=_FOLDER)
@click.option("--panel", is_flag=True, help="Add samples beside their nearest training images.")
@click.option("--root", type=click.Path(path_type=Path), help="Where the training images are.")
@click.option(
    "--beside",
    "others",
    type=_FOLDER,
    multiple=True,
    help="A study of other data to compare with; again for more.",
)
@click.option(
    "--markdown",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write it as this .md file too.",
)
def report(
    folder: Path, panel: bool, root: Path | None, others: tuple[Path, ...], markdown: Path | None
) -> None:
    """Write the report of the study in FOLDER anew, as far as the study has run."""
    if markdown is not None and markdown.suffix != ".md":
        raise UserError(f"--markdown takes the name of an .md file, got {markdown}")
    if root is not None and not panel:
        raise UserError("--root is for --panel alone: leave it out")
    study, beside = _begun(folder), [_begun(other) for other in others]
    if panel or beside:
        for each in (study, *beside):
            _check_measured(each)
    if panel:
        run = study.run
        images = training_images(run.bench.yardsticks[0].reference, root)
        count = (1 + run.bench.trained_on_flips) * len(images)
        with counted("features of the training images", count) as on_images:
            draw_panel(run, images, on_images)
    note(f"{write_report(study, beside)}: open it in a browser")
    if markdown is not None:
        beside_these = [part for other in others for part in ("--beside", str(other))]
        words = ["underone", "report", str(folder), *beside_these, "--markdown", str(markdown)]
        command = shlex.join(words)
        note(f"{write_markdown(study, markdown, command, beside)}")


def _begun(folder: Path) -> Analysis:
    run = open_folder(folder)
    if not run.known:
        raise UserError(f"the study in {folder} has no finished cell yet: run it first")
    return analysed(run)


def _check_measured(study: Analysis) -> None:
    if not study.standings:
        raise UserError(
            f"the study in {study.run.folder.path} has only screened settings yet: continue it "
            "first"
        )


@click.command("recommend")
@click.argument("folder", type=_FOLDER)
@click.option("--nfe", type=float, help="At most this many network evaluations an image.")
@click.option("--seconds-per-image", type=float, help="At most this long, on the study's machine.")
@click.option("--within", metavar="PERCENT", help="The cheapest within this of the best, like 5%.")
@click.option(
    "--prefer",
    type=click.Choice(list(PREFERENCES)),
    default="fid",
    help="The measure to choose by.",
)
@click.option("--model", help="One of the study's models. [default: the first]")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def recommend_setting(
    folder: Path,
    nfe: float | None,
    seconds_per_image: float | None,
    within: str | None,
    prefer: str,
    model: str | None,
    as_json: bool,
) -> None:
    """Show the best setting within a budget that the study in FOLDER has measured, and its use."""
    budget = Budget(nfe, seconds_per_image, _share(within))
    run = open_folder(folder)
    found = recommend(run, budget, prefer, model)
    announce_revision(run.bench.models[found.model])
    if as_json:
        print_json(found.document())
    else:
        _show(found)


def _share(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(text.removesuffix("%")) / 100
    except ValueError:
        raise UserError(f"--within takes a percentage, like 5%, got {text!r}") from None


def _show(found: Recommendation) -> None:
    out.print(f"{setting_title(found.setting)}", style="bold")
    first = found.chosen.first.measurement
    shown = [measure for measure in PREFERENCES.values() if measure.is_known_of([found.chosen])]
    # FID means nothing without the features it is measured in.
    heads = [f"FID@{first.protocol.extractor.name}" if m == FID else m.title for m in shown]
    grid = table("", "", "evaluations", *heads)
    runner_up = [] if found.runner_up is None else [("runner-up", found.runner_up)]
    for title, each in [("chosen", found.chosen), *runner_up]:
        grid.add_row(title, f"{each.nfe:g}", *(f"{each.mean(m.name):.3f}" for m in shown))
    out.print(grid)
    out.print(_evidence(found.chosen), soft_wrap=True)
    if found.runner_up is not None:
        out.print(_beside_the_runner_up(found, found.runner_up), soft_wrap=True)
    # The front is that of the first block, whose seeds all settings share.
    title = "Nothing is both cheaper and better, on the first block of seeds:"
    front = table(title, "setting", "evaluations", *heads)
    for each in found.front:
        cells = (f"{m.value(each.first):.3f}" for m in shown)
        front.add_row(setting_title(each.first.setting), f"{each.nfe:g}", *cells)
    out.print(front)
    out.print(found.command, soft_wrap=True)


def _beside_the_runner_up(found: Recommendation, other: Standing) -> str:
    name, measure = setting_title(other.first.setting), found.measure.title
    if found.apart is None:
        return f"How far the runner-up, {name}, is from it in {measure} is not known."
    verdict = "separated from it" if found.separated else "not separated from it"
    if found.overtaken:
        verdict = (
            "ahead of it by fresh blocks, which it was not chosen on"
            if found.afresh
            else "ahead of it on the first block"
        )
    apart = difference_text(found.measure, found.apart)
    return f"The runner-up, {name}, is {verdict} in {measure} ({apart})."


def _evidence(each: Standing) -> str:
    count = each.first.draw.count
    if each.fresh:
        return (
            f"Chosen on {count:,} samples, and measured on {len(each.fresh)} x {count:,} of other "
            "seeds, whose means these are."
        )
    return (
        f"Chosen and measured on the same {count:,} samples: a little better here than it is. A "
        "larger budget draws the best settings again."
    )
