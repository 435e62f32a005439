"""Which points of a chart can be labelled without a text covering a point or another text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from underone.study.report.charts.rows import HEIGHT, WIDTH, number
from underone.study.report.drawing import TEXT_SIZE, Axis, Row

# About how wide a character is, as a share of its height.
_CHARACTER = 0.6
# About how far a text is from its point, and half the width of a point.
_GAP, _HALF = 5, 4


@dataclass(frozen=True)
class Box:
    """A place in a chart of the usual size, in pixels from its left and upper edges."""

    left: float
    right: float
    top: float
    bottom: float

    def covers(self, other: "Box") -> bool:
        """Whether both share any place."""
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


def point_box(row: Row, x: Axis, y: Axis) -> Box:
    """The place of a row's point."""
    across, down = _place(row, x, y)
    return Box(across - _HALF, across + _HALF, down - _HALF, down + _HALF)


def text_box(row: Row, x: Axis, y: Axis, *, below: bool = False, before: bool = False) -> Box:
    """The place of a row's "text": above its point or `below` it, after it or `before` it."""
    across, down = _place(row, x, y)
    width = _CHARACTER * TEXT_SIZE * len(str(row["text"]))
    left = across - _GAP - width if before else across + _GAP
    top = down + _GAP if below else down - _GAP - TEXT_SIZE
    return Box(left, left + width, top, top + TEXT_SIZE)


def legible(texts: Iterable[tuple[Row, Box]], taken: Sequence[Box]) -> list[Row]:
    """The rows whose texts have room: not on what is `taken`, nor on the text of one before."""
    boxes, rows = list(taken), []
    for row, box in texts:
        if not any(box.covers(other) for other in boxes):
            boxes.append(box)
            rows.append(row)
    return rows


def _place(row: Row, x: Axis, y: Axis) -> tuple[float, float]:
    across = WIDTH * x.share(number(row, x.field))
    return across, HEIGHT * (1 - y.share(number(row, y.field)))
