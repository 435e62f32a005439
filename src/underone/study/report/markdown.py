"""The report of a study as a page of Markdown, for the documentation of a project."""

import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

import jinja2
from PIL import Image

from underone.data.picture import GAP
from underone.errors import UserError
from underone.files import write_bytes, write_text
from underone.generation import Setting
from underone.study.analysis import Analysis, Stratum
from underone.study.cell import PICTURE_COLUMNS
from underone.study.contest import unguided
from underone.study.measures import FID
from underone.study.report import protocol, tables, view
from underone.study.report.answers_in_tables import model_tables, steps_tables, weight_tables
from underone.study.report.charts import diversity_charts, extractor_charts, nfe_charts
from underone.study.report.contents import contents
from underone.study.report.copying import Panel, panel
from underone.study.report.drawing import Chart
from underone.study.report.findings import (
    HOW_MANY_STEPS,
    WHICH_MODEL,
    WHICH_SAMPLER,
    WHICH_WEIGHT,
)
from underone.study.report.other_data import not_measured
from underone.study.report.sentences import Part

_PACKAGE = Path(__file__).parent
_PICTURES = 8
_ENLARGED = 3


def write_markdown(
    analysis: Analysis, path: Path, command: str, beside: Sequence[Analysis] = ()
) -> Path:
    """Write the page at `path` and its figures in a folder of its name; the page's path.

    `command` writes it again; `beside` are studies of other data to compare with.
    """
    run, folder = analysis.run, path.with_suffix("")
    if folder.resolve() == run.folder.path.resolve():
        raise UserError(
            f"the figures of {path} would mix with the files of {run.folder.path}: choose another "
            "name for the page"
        )
    figures = {
        WHICH_SAMPLER: nfe_charts(analysis, (FID,)),
        WHICH_WEIGHT: [*extractor_charts(analysis), *diversity_charts(analysis)],
    }
    for chart in (chart for group in figures.values() for chart in group):
        write_bytes(folder / f"{chart.name}.png", chart.png())
    pictures = []
    counts = {result.id: result.draw.count for result in run.known.values()}
    for card in _shown(analysis):
        enlarged = _enlarged(run.folder.picture_path(card.cell), counts[card.cell])
        write_bytes(folder / f"{card.cell}.png", enlarged)
        pictures.append((card.title, f"{card.cell}.png"))
    nearest = panel(analysis)
    if nearest is not None:
        write_bytes(folder / nearest.picture.name, nearest.picture.read_bytes())
    write_text(path, page(analysis, command, folder.name, figures, pictures, nearest, beside))
    return path


def page(
    analysis: Analysis,
    command: str,
    figure_folder: str,
    figures: dict[str, list[Chart]],
    pictures: Sequence[tuple[str, str]],
    nearest: Panel | None,
    beside: Sequence[Analysis] = (),
) -> str:
    """The page's text."""
    run = analysis.run
    environment = jinja2.Environment(
        # The page is Markdown, and its names are from a study's own file.
        autoescape=False,  # noqa: S701
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["plain"] = plain
    template = environment.from_string((_PACKAGE / "guide.md.jinja").read_text(encoding="utf-8"))
    return template.render(
        contents(analysis, beside),
        command=command,
        not_measured=not_measured([run, *(each.run for each in beside)]),
        extractor=run.bench.yardsticks[0].extractor.name,
        real=protocol.real_images(analysis),
        figures=figures,
        tables={
            HOW_MANY_STEPS: steps_tables(analysis),
            WHICH_WEIGHT: weight_tables(analysis),
            WHICH_MODEL: [("", each) for each in model_tables(analysis)],
        },
        folded={WHICH_SAMPLER},
        tabled={HOW_MANY_STEPS},  # which says the same
        figure_folder=quote(figure_folder),
        pictures=pictures,
        nearest=nearest,
        anchor=anchor,
        gist=gist,
        gists=gists,
        details=details,
        table=table,
    )


def plain(text: str) -> str:
    """A name or title with characters of Markdown escaped."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def gist(every: Iterable[Part]) -> str:
    """The gists of all parts in one paragraph."""
    return " ".join(f"{_where(part)}{part.sentences[0]}" for part in every)


def _where(part: Part) -> str:
    return f"*{plain(part.where)}:* " if part.where else ""


def gists(every: Iterable[Part]) -> str:
    """The gist of each part in a paragraph of its own."""
    return "".join(f"{_where(part)}**{part.sentences[0]}**\n\n" for part in every)


def details(every: Iterable[Part], folded: bool = False) -> str:
    """All sentences but the gists; if `folded`, in an element that the reader opens."""
    lines = []
    for part in (part for part in every if part.sentences[1:]):
        lines += [f"*{plain(part.where)}*", ""] if part.where else []
        lines += [*(f"- {sentence}" for sentence in part.sentences[1:]), ""]
    if lines and folded:
        lines = ["<details>", "<summary>In detail</summary>", "", *lines, "</details>", ""]
    return "\n".join(lines)


def table(content: tables.Table) -> str:
    """A table in Markdown."""
    rows = [content.heads, ("---",) * len(content.heads), *content.rows, *content.floors]
    return "".join(f"| {' | '.join(_escaped(cell) for cell in row)} |\n" for row in rows)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def _shown(analysis: Analysis) -> list[view.Card]:
    """The settings to show: several of the first model, and the best of each other."""
    every = _strata_of_models(analysis)
    if not every:
        return []
    first, *others = every
    best = [min(stratum.standings, key=lambda each: each.first.fid).first.id for stratum in others]
    titles = {card.cell: card for card in view.cards(analysis)}
    return [titles[cell] for cell in (*_of_one_model(first)[:_PICTURES], *best)]


def _strata_of_models(analysis: Analysis) -> list[Stratum]:
    """The stratum of each model with the most samples."""
    found: dict[str, Stratum] = {}
    for stratum in analysis.strata:
        found.setdefault(stratum.model, stratum)
    return list(found.values())


def _of_one_model(stratum: Stratum) -> list[str]:
    """The default sampler at the fewest and the most steps, and the weights of the best setting."""
    mine = [each.first for each in stratum.asked]
    if not mine:
        return []
    best = min(mine, key=lambda first: first.fid).setting
    usual = sorted(
        (first for first in mine if first.setting == Setting(steps=first.setting.steps)),
        key=lambda first: first.setting.steps,
    )
    along = [first for first in mine if unguided(first.setting) == unguided(best)]
    weights = sorted(along, key=lambda first: first.setting.guidance)
    return list(dict.fromkeys(first.id for first in (*usual[:1], *usual[-1:], *weights)))


def _enlarged(path: Path, samples: int) -> bytes:
    """The first row of a picture of `samples`, enlarged so that its pixels are seen."""
    with Image.open(path) as picture:
        width, height = picture.size
        rows = 2 if samples > PICTURE_COLUMNS else 1
        row = picture.crop((0, 0, width, (height - GAP) // rows + GAP))
        large = row.resize((_ENLARGED * width, _ENLARGED * row.height), Image.Resampling.NEAREST)
    file = io.BytesIO()
    large.save(file, format="PNG")
    return file.getvalue()
