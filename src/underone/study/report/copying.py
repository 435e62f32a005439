"""Samples beside their nearest training images, and what the measures say about copying."""

from dataclasses import dataclass
from pathlib import Path

from underone.metrics.figures import Figure
from underone.metrics.measurement import Measurement
from underone.study.analysis import Analysis
from underone.study.report.view import cards

# Two values of C_T that are further apart than this hardly differ by chance: each is about standard
# normal for images drawn from the same distribution.
_CHANCE = 3.0


@dataclass(frozen=True)
class Panel:
    """Samples of the setting `title` beside training images, with the measures of copying.

    `words` is empty where the study did not look for memorisation.
    """

    title: str
    picture: Path
    words: str


def panel(analysis: Analysis) -> Panel | None:
    """The panel drawn for the study, if any."""
    run = analysis.run
    measured = {result.id: result.measurements[0] for result in run.known.values()}
    for card in cards(analysis):
        picture = run.folder.panel_path(card.cell)
        if picture.is_file():
            return Panel(card.title, picture, copying_words(measured[card.cell]))
    return None


def copying_words(measurement: Measurement) -> str:
    """Whether samples are nearer to training images than held-out ones are; "" if not known."""
    held_out = {} if measurement.floor is None else measurement.floor.figures
    every = measurement.figures, held_out, measurement.copies or {}
    if not all(figures.keys() >= {"memorised-share", "data-copying"} for figures in every):
        return ""
    shares = (figures["memorised-share"] for figures in every)
    share, share_held_out, share_copies = (f"{100 * figure.value:.3g} %" for figure in shares)
    nearness = [figures["data-copying"] for figures in every]
    statistic, statistic_held_out, statistic_copies = (f"{each.value:.1f}" for each in nearness)
    return (
        f"{share} of them all are memorised, that is less than a third as far from one training "
        f"image as from any other (held-out images: {share_held_out}, copies: {share_copies}). "
        f"{_nearness(*nearness[:2])}: C_T is {statistic} "
        f"(held-out images: {statistic_held_out}, copies: {statistic_copies})."
    )


def _nearness(samples: Figure, held_out: Figure) -> str:
    off = samples.value - held_out.value
    if abs(off) <= _CHANCE:
        return "Samples are about as near to training images as held-out images are"
    nearer = "nearer to" if off < 0 else "further from"
    return f"Samples are {nearer} training images than held-out images are"
