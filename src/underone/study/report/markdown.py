"""The report of a study as a page of Markdown, for the documentation of a project."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

import jinja2

from underone.errors import UserError
from underone.files import write_bytes, write_text
from underone.study.report import protocol, tables, view
from underone.study.report.agreement import extractor_findings
from underone.study.report.charts import nfe_charts, weight_charts
from underone.study.report.drawing import Chart
from underone.study.report.findings import HOW_MANY_STEPS, WHICH_WEIGHT, findings
from underone.study.report.other_data import not_measured
from underone.study.report.published import published_findings, published_tables
from underone.study.report.sentences import Part
from underone.study.run import Run

_PACKAGE = Path(__file__).parent
_PICTURES = 6


def write_markdown(run: Run, path: Path, command: str, beside: Sequence[Run] = ()) -> Path:
    """Write the page at `path`, its figures in a folder of its name beside it; the page's path.

    `command` is what writes it anew, `beside` are studies of other data to compare with.
    """
    folder = path.with_suffix("")
    if folder.resolve() == run.folder.path.resolve():
        raise UserError(
            f"the figures of {path} would lie among the files of {run.folder.path}: choose another "
            "name for the page"
        )
    figures = {HOW_MANY_STEPS: nfe_charts(run), WHICH_WEIGHT: weight_charts(run)}
    for chart in (chart for group in figures.values() for chart in group):
        write_bytes(folder / f"{chart.name}.png", chart.png())
    pictures = []
    for card in _shown(run):
        write_bytes(folder / f"{card.cell}.png", run.folder.picture_path(card.cell).read_bytes())
        pictures.append((card.title, f"{card.cell}.png"))
    nearest = None
    drawn = view.panel(run)
    if drawn is not None:
        card, panel = drawn
        write_bytes(folder / panel.name, panel.read_bytes())
        nearest = (card.title, panel.name)
    write_text(path, page(run, command, folder.name, figures, pictures, nearest, beside))
    return path


def page(
    run: Run,
    command: str,
    figure_folder: str,
    figures: dict[str, list[Chart]],
    pictures: Sequence[tuple[str, str]],
    nearest: tuple[str, str] | None,
    beside: Sequence[Run] = (),
) -> str:
    """The page's text."""
    environment = jinja2.Environment(
        # Markdown, and of names from a study's own file.
        autoescape=False,  # noqa: S701
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["plain"] = plain
    template = environment.from_string((_PACKAGE / "guide.md.jinja").read_text(encoding="utf-8"))
    return template.render(
        title=run.plan.study.title or ", ".join(run.bench.models),
        summary=protocol.summary(run),
        command=command,
        due=len(run.due()),
        not_measured=not_measured([run, *beside]),
        findings=findings(run, beside),
        figures=figures,
        figure_folder=quote(figure_folder),
        published=published_tables(run),
        published_findings=published_findings(run),
        agreement=extractor_findings(run),
        pictures=pictures,
        nearest=nearest,
        settings=tables.settings_table(run),
        protocol=protocol.protocol(run),
        anchor=anchor,
        gist=gist,
        parts=parts,
        table=table,
    )


def plain(text: str) -> str:
    """Names and titles as they are: nothing in them is Markdown."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))


def anchor(heading: str) -> str:
    """What GitHub makes of a heading as the target of a link."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def gist(every: Iterable[Part]) -> str:
    """What is said in short."""
    return " ".join(f"{_where(part)}{part.sentences[0]}" for part in every)


def _where(part: Part) -> str:
    return f"*{plain(part.where)}:* " if part.where else ""


def parts(every: Iterable[Part]) -> str:
    """What is said, the gist of each part first."""
    lines = []
    for part in every:
        lines += [f"{_where(part)}**{part.sentences[0]}**", ""]
        lines += [f"- {sentence}" for sentence in part.sentences[1:]]
        lines += [""] if part.sentences[1:] else []
    return "\n".join(lines)


def table(content: tables.Table) -> str:
    """A table."""
    rows = [content.heads, ("---",) * len(content.heads), *content.rows, *content.floors]
    return "".join(f"| {' | '.join(_escaped(cell) for cell in row)} |\n" for row in rows)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def _shown(run: Run) -> list[view.Card]:
    """The settings to look at: the best families at w = 0, from few steps to many."""
    titles = {card.cell: card for card in view.cards(run)}
    if not titles:
        return []
    opening = view.opening_pair(run)
    chosen = [
        cell.cell
        for family in view.families(run)
        if any(cell.cell in opening for cell in family.cells)
        for cell in family.cells
        if cell.w == 0
    ]
    return [titles[cell] for cell in chosen[:_PICTURES]]
