"""Which setting to use: the best measured one within a budget, its evidence and runner-up."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from underone.errors import UserError, unknown
from underone.generation import Draw, Precision, Setting, sample_command
from underone.metrics.uncertainty import Comparison
from underone.study.answers import Standing, standings
from underone.study.measures import (
    CONSISTENCY,
    FID,
    PRECISION,
    RECALL,
    Measure,
    ahead,
    common_fresh,
    compared,
)
from underone.study.run import StudyRun
from underone.study.words import setting_title

# The measures that settings can be chosen by.
PREFERENCES = {measure.name: measure for measure in (FID, PRECISION, RECALL, CONSISTENCY)}
_SAMPLES = 100


@dataclass(frozen=True)
class Budget:
    """What a setting may cost: evaluations or seconds per image; None is no limit.

    With `within` the cheapest setting is taken that falls short of the best by at most this share
    of its figure.
    """

    nfe: float | None = None
    seconds: float | None = None
    within: float | None = None

    def __post_init__(self) -> None:
        for name in ("nfe", "seconds", "within"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UserError(f"--{_OPTIONS[name]} must be above 0 and finite, got {value:g}")


_OPTIONS = {"nfe": "nfe", "seconds": "seconds-per-image", "within": "within"}


@dataclass(frozen=True)
class Recommendation:
    """The setting to use, chosen on the first block; its figures are of fresh blocks, if any.

    `front` is the Pareto front of cost and the preferred `measure`, cheapest first. `apart` is the
    runner-up's value of it minus the chosen setting's, where the error is known; `afresh` says
    whether that is over blocks that neither was chosen on.
    """

    chosen: Standing
    runner_up: Standing | None
    apart: Comparison | None
    afresh: bool
    front: tuple[Standing, ...]
    measure: Measure
    seconds_per_image: float
    precision: Precision

    @property
    def model(self) -> str:
        """The name of the model."""
        return self.chosen.first.model

    @property
    def setting(self) -> Setting:
        """The setting to use."""
        return self.chosen.first.setting

    @property
    def command(self) -> str:
        """The command line that uses it."""
        return sample_command(self.model, self.setting, Draw(_SAMPLES), self.precision)

    @property
    def snippet(self) -> str:
        """The lines of Python that use it."""
        options = ", ".join(f"{name}={value!r}" for name, value in self.setting.options.items())
        precision = "" if self.precision == "auto" else f", precision={self.precision!r}"
        return "\n".join(
            [
                "from underone.generation import Draw, Setting, generate",
                "from underone.zoo import load_generative_model",
                "",
                f"model = load_generative_model({self.model!r})",
                f"samples = generate(model, Setting({options}), Draw(count={_SAMPLES}){precision})",
            ]
        )

    @property
    def separated(self) -> bool:
        """Whether the chosen setting and the runner-up are separated."""
        return self.apart is not None and self.apart.separates

    @property
    def overtaken(self) -> bool:
        """Whether the runner-up is separated from the chosen setting, and better."""
        if self.runner_up is None or not self.separated:
            return False
        return ahead(self.measure, self.runner_up, self.chosen)

    def document(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        return {
            "model": self.model,
            "chosen": _described(self.chosen),
            "runner_up": None if self.runner_up is None else _described(self.runner_up),
            "difference": None if self.apart is None else _difference(self.apart),
            "separated": self.separated,
            "overtaken": self.overtaken,
            "afresh": self.afresh,
            "prefer": self.measure.name,
            "seconds_per_image": self.seconds_per_image,
            "front": [_described(each) for each in self.front],
            "command": self.command,
            "python": self.snippet,
        }


def recommend(
    run: StudyRun, budget: Budget, prefer: str = "fid", model: str | None = None
) -> Recommendation:
    """The best setting of a study within a budget; a `UserError` where none is measured there.

    Only settings drawn at the study's largest number of samples are compared with each other.
    """
    if prefer not in PREFERENCES:
        raise unknown("preference", prefer, PREFERENCES)
    measure = PREFERENCES[prefer]
    found = _comparable(run, measure, model)
    allowed = [
        each
        for each in found
        if (budget.nfe is None or each.nfe <= budget.nfe)
        and (budget.seconds is None or _seconds(run, each) <= budget.seconds)
    ]
    if not allowed:
        cheapest = min(found, key=lambda each: each.nfe)
        raise UserError(
            "no measured setting is so cheap: the cheapest is "
            f"{setting_title(cheapest.first.setting)}, with {cheapest.nfe:g} evaluations and "
            f"{_seconds(run, cheapest):.2g} seconds per image"
        )
    best = measure.best(allowed)
    if budget.within is not None:
        most = measure.shortfall(best) + budget.within * abs(measure.value(best.first))
        allowed = [each for each in allowed if measure.shortfall(each) <= most]
        best = min(allowed, key=lambda each: (each.nfe, measure.shortfall(each)))
    others = [each for each in allowed if each.entry != best.entry]
    runner_up = measure.best(others) if others else None
    return Recommendation(
        chosen=best,
        runner_up=runner_up,
        apart=None if runner_up is None else compared(measure, runner_up, best),
        afresh=runner_up is not None and bool(common_fresh(measure, runner_up, best)[0]),
        front=pareto_front(found, measure),
        measure=measure,
        seconds_per_image=_seconds(run, best),
        precision=run.bench.precision,
    )


def pareto_front(found: Sequence[Standing], measure: Measure) -> tuple[Standing, ...]:
    """The settings that are better than all others as cheap or cheaper, cheapest first."""
    front: list[Standing] = []
    for each in sorted(found, key=lambda each: (each.nfe, measure.shortfall(each))):
        if not front or measure.shortfall(each) < measure.shortfall(front[-1]):
            front.append(each)
    return tuple(front)


def _comparable(run: StudyRun, measure: Measure, model: str | None) -> list[Standing]:
    if model is not None and model not in run.bench.models:
        raise unknown("model of this study", model, run.bench.models)
    name = model or next(iter(run.bench.models))
    found = [
        each
        for each in standings(run)
        if each.first.model == name
        and each.first.setting.uses_labels
        and measure.is_known_of([each])
    ]
    if not found:
        raise UserError(
            f"the study in {run.folder.path} has no setting measured by {measure.name} yet"
        )
    most = max(each.first.draw.count for each in found)
    return [each for each in found if each.first.draw.count == most]


def _seconds(run: StudyRun, each: Standing) -> float:
    """Seconds per image: its evaluations times the median seconds of one over the model's cells."""
    known = (result for result in run.known.values() if result.model == each.first.model)
    return each.nfe * statistics.median(
        result.seconds / (result.draw.count * result.nfe) for result in known
    )


def _difference(apart: Comparison) -> dict[str, float]:
    return {"value": apart.difference, "low": apart.interval.low, "high": apart.interval.high}


def _described(each: Standing) -> dict[str, Any]:
    figures = each.first.measurement.figures
    return {
        "setting": asdict(each.first.setting),
        "nfe": each.nfe,
        "samples": each.first.draw.count,
        "fresh_blocks": len(each.fresh),
        **{name: each.mean(name) for name in PREFERENCES if name in figures},
    }
