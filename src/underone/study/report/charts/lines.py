"""Which settings of a study a chart joins with a line."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from underone.generation import Setting
from underone.study.analysis import Stratum
from underone.study.answers import Standing
from underone.study.contest import unguided
from underone.study.measures import Measure
from underone.study.words import form_titles, sampler_title, setting_title


@dataclass(frozen=True)
class Line:
    """Settings that a chart joins, which differ along a single axis."""

    title: str
    standings: tuple[Standing, ...]


def sampler_lines(
    group: Sequence[Standing], title: Callable[[Setting], str] = sampler_title
) -> list[Line]:
    """A line for each title, its settings by ascending evaluations."""
    found: dict[str, list[Standing]] = {}
    for each in group:
        found.setdefault(title(each.first.setting), []).append(each)
    return [
        Line(name, tuple(sorted(members, key=lambda each: each.nfe)))
        for name, members in found.items()
    ]


def _weight_lines(stratum: Stratum) -> list[Line]:
    """Lines of settings that differ in w alone; w = 0 is on that of every form of guidance."""
    groups: dict[Setting, dict[str, list[Standing]]] = {}
    for each in stratum.standings:
        setting = each.first.setting
        forms = groups.setdefault(unguided(setting), {})
        forms.setdefault(", ".join(form_titles(setting)), []).append(each)
    lines = []
    for base, forms in groups.items():
        plain = [e for members in forms.values() for e in members if e.first.setting.guidance == 0]
        for form, members in forms.items():
            along = [*plain, *(e for e in members if e.first.setting.guidance != 0)]
            if len(along) > 1:
                title = ", ".join(filter(None, (setting_title(base), form)))
                ordered = sorted(along, key=lambda each: each.first.setting.guidance)
                lines.append(Line(title, tuple(ordered)))
    return lines


def known_lines(stratum: Stratum, measures: Sequence[Measure]) -> list[Line]:
    """The lines along w of settings that have all `measures`, without lines of a single point."""
    lines = []
    for line in _weight_lines(stratum):
        # Unconditional samples are not compared with other weights.
        asked = (each for each in line.standings if each.first.setting.uses_labels)
        known = tuple(each for each in asked if all(m.is_known_of([each]) for m in measures))
        if len(known) > 1:
            lines.append(Line(line.title, known))
    return lines
