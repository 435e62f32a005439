"""Figures that a study has measured of the settings that the page draws."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from underone.checkpoint import GenerativeModel
from underone.generation import Setting
from underone.study.answers import Standing, standings
from underone.study.measures import FID, spread
from underone.study.run import open_folder

# The hash of a model's weights, and an effective setting.
_Key = tuple[str, Setting]


@dataclass(frozen=True)
class KnownFigures:
    """The figures of a study's settings, in words."""

    figures: dict[_Key, str]

    @classmethod
    def of(cls, path: Path) -> Self:
        """The figures in a study's folder; a `UserError` where it holds no study."""
        run = open_folder(path)
        found: dict[_Key, Standing] = {}
        for each in standings(run):
            key = run.bench.models[each.first.model].sha256, each.first.setting.effective
            if key not in found or each.first.draw.count > found[key].first.draw.count:
                found[key] = each
        return cls({key: _in_words(each, path) for key, each in found.items()})

    def figure(self, model: GenerativeModel, setting: Setting) -> str | None:
        """The figure of a setting, None where it was not measured."""
        return self.figures.get((model.sha256, setting.effective))


def _in_words(standing: Standing, path: Path) -> str:
    blocks = len(standing.reported)
    times = f"{blocks} × " if blocks > 1 else ""
    floor = FID.floor(standing.first)
    real = "" if floor is None else f"; real images {FID.text(floor)}"
    return (
        f"{path}: FID {spread(FID, standing)} of {times}{standing.first.draw.count:,} samples, by "
        f"{standing.first.measurement.protocol.extractor.name}{real}"
    )
