"""What charts have in common: their names, their titles, and the rows of their data."""

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

# Pixels of a chart.
WIDTH, HEIGHT = 390, 280
_LONGEST = 60


def slug(*parts: str) -> str:
    """A file's name of words; of a long one, such as a model's path, the end."""
    plain = (re.sub(r"[^a-z0-9]+", "-", part.lower())[-_LONGEST:].strip("-") for part in parts)
    return "-".join(part for part in plain if part)


def distinct(charts: Iterable[Chart]) -> list[Chart]:
    """The charts; one whose name, made plain, is an earlier one's has a number behind it."""
    seen: Counter[str] = Counter()
    found = []
    for chart in charts:
        seen[chart.name] += 1
        count = seen[chart.name]
        found.append(chart if count == 1 else replace(chart, name=f"{chart.name}-{count}"))
    return found


def row_of(standing: Standing, series: str, values_text: str, **values: float) -> Row:
    """A point's row: its setting, its values, where it leads, what a screen reader says."""
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
    """What a point of the first block says."""
    parts = [f"{each.title} {each.text(each.value(standing.first))}" for each in measures]
    return f"{', '.join(parts)}, on the first block"


def number(row: Row, key: str) -> float:
    """A row's number under a key; ValueError where it is not finite, for charts would omit it."""
    value = row[key]
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{key} of {row['setting']} is no finite number: {value!r}")
    return float(value)


def titled(title: str, where: str) -> str:
    """A chart's title, with the stratum it is of where a report has several."""
    return f"{title} ({where})" if where else title


def too_few(measure: Measure, result: CellResult) -> str | None:
    """That real images are too few to stand beside samples, for FID falls with their number."""
    floor = result.measurements[measure.yardstick].floor
    value = measure.floor(result)
    if floor is None or value is None or measure.comparable_floor(result) is not None:
        return None
    return (
        f"Real images, of which only {floor.count:,} are held out, score {measure.text(value)}: "
        "too few to compare."
    )
