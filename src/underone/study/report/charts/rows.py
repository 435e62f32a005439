"""What charts share: their names, their titles, and the rows of their data."""

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from underone.study.answers import Standing
from underone.study.cell import CellResult
from underone.study.measures import Measure
from underone.study.report.drawing import Chart, Row
from underone.study.words import setting_title

# The size of a chart in pixels.
WIDTH, HEIGHT = 390, 280
_LONGEST = 60


def slug(*parts: str) -> str:
    """A file name made of words; long ones, such as a model's path, are cut to their end."""
    plain = (re.sub(r"[^a-z0-9]+", "-", part.lower())[-_LONGEST:].strip("-") for part in parts)
    return "-".join(part for part in plain if part)


def distinct(charts: Iterable[Chart]) -> list[Chart]:
    """The charts, with a number appended to a name that an earlier chart has."""
    seen: Counter[str] = Counter()
    found = []
    for chart in charts:
        seen[chart.name] += 1
        count = seen[chart.name]
        found.append(chart if count == 1 else replace(chart, name=f"{chart.name}-{count}"))
    return found


def row_of(standing: Standing, series: str, values_text: str, **values: float) -> Row:
    """A point's row: its setting, its values, its link, and its text for screen readers."""
    first = standing.first
    title = setting_title(first.setting)
    return {
        "series": series,
        "model": first.model,
        "setting": title,
        "samples": first.draw.count,
        "steps": first.setting.steps,
        "w": first.setting.guidance,
        **values,
        "cell": first.id,
        "link": f"#cell-{first.id}",
        "says": f"{title}: {values_text}",
    }


def on_first_block(standing: Standing, *measures: Measure) -> str:
    """The text of a point of the first block."""
    parts = [f"{each.title} {each.text(each.value(standing.first))}" for each in measures]
    return f"{', '.join(parts)}, on the first block"


def number(row: Row, key: str) -> float:
    """A row's number under a key; a ValueError if not finite, since charts would omit it."""
    value = row[key]
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{key} of {row['setting']} is not a finite number: {value!r}")
    return float(value)


def titled(title: str, where: str) -> str:
    """A chart's title, with its stratum where a report has several."""
    return f"{title} ({where})" if where else title


def too_few(measure: Measure, result: CellResult) -> str | None:
    """A note where there are too few real images to compare, since FID falls with their number."""
    floor = result.measurements[measure.yardstick].floor
    value = measure.floor(result)
    if floor is None or value is None or measure.comparable_floor(result) is not None:
        return None
    return (
        f"Real images, of which only {floor.count:,} are held out, score {measure.text(value)}: "
        "too few to compare."
    )
