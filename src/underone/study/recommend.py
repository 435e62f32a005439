"""Which setting to use: the best measured one that a budget allows, its evidence, its runner-up."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from underone.errors import UserError, unknown
from underone.generation import Precision, Setting
from underone.metrics.uncertainty import Comparison, Verdict
from underone.study.answers import Standing, standings
from underone.study.contest import difference
from underone.study.run import Run
from underone.study.words import option_words, setting_title

# What can be preferred, and whether more of it is better.
PREFERENCES = {"fid": False, "precision": True, "recall": True, "consistency": True}
_SAMPLES = 100


@dataclass(frozen=True)
class Budget:
    """What a setting may cost: evaluations or seconds an image; None is no limit.

    `within` allows what is worse than the best by that share at most, and takes the cheapest of it.
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
    """The setting to use, chosen on the first block of seeds; figures are of fresh ones, if any.

    `front` are the settings no other of which is both cheaper and better, cheapest first.
    `apart` is the FID of the runner-up minus that of the chosen one, where blocks tell; `afresh`
    says whether those are blocks that neither was chosen on.
    """

    chosen: Standing
    runner_up: Standing | None
    apart: Comparison | None
    afresh: bool
    front: tuple[Standing, ...]
    prefer: str
    seconds: float
    precision: Precision

    @property
    def model(self) -> str:
        """Whose setting it is."""
        return self.chosen.first.model

    @property
    def setting(self) -> Setting:
        """The setting to use."""
        return self.chosen.first.setting

    @property
    def command(self) -> str:
        """The command line that uses it."""
        # Without --sampler a model may have one of its own.
        words = ["underone", "sample", self.model, *option_words(self.setting)]
        if self.precision != "auto":
            words += ["--precision", self.precision]
        return shlex.join([*words, "--count", str(_SAMPLES), "--out", "samples.png"])

    @property
    def snippet(self) -> str:
        """The lines of Python that use it."""
        options = ", ".join(f"{name}={value!r}" for name, value in self.setting.options.items())
        told = "" if self.precision == "auto" else f", precision={self.precision!r}"
        return "\n".join(
            [
                "from underone.generation import Draw, Setting, generate",
                "from underone.zoo import load_generative_model",
                "",
                f"model = load_generative_model({self.model!r})",
                f"samples = generate(model, Setting({options}), Draw(count={_SAMPLES}){told})",
            ]
        )

    @property
    def separated(self) -> bool:
        """Whether blocks tell the chosen one and the runner-up apart."""
        return self.apart is not None and self.apart.separates

    @property
    def overtaken(self) -> bool:
        """Whether blocks say that the runner-up has the lower FID."""
        return self.apart is not None and self.apart.verdict is Verdict.A_LOWER

    def document(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        return {
            "model": self.model,
            "chosen": _described(self.chosen),
            "runner_up": None if self.runner_up is None else _described(self.runner_up),
            "separated": self.separated,
            "overtaken": self.overtaken,
            "afresh": self.afresh,
            "prefer": self.prefer,
            "seconds_per_image": self.seconds,
            "front": [_described(each) for each in self.front],
            "command": self.command,
            "python": self.snippet,
        }


def recommend(
    run: Run, budget: Budget, prefer: str = "fid", model: str | None = None
) -> Recommendation:
    """The best setting of a study within a budget; a `UserError` where none is measured there.

    Only settings drawn at the study's largest number of samples are compared with each other.
    """
    if prefer not in PREFERENCES:
        raise unknown("preference", prefer, PREFERENCES)
    found = _comparable(run, prefer, model)
    goodness = _goodness(prefer)
    allowed = [
        each
        for each in found
        if (budget.nfe is None or each.nfe <= budget.nfe)
        and (budget.seconds is None or _seconds(run, each) <= budget.seconds)
    ]
    if not allowed:
        cheapest = min(found, key=lambda each: each.nfe)
        raise UserError(
            f"nothing so cheap is measured: the least is {setting_title(cheapest.first.setting)}, "
            f"{cheapest.nfe:g} evaluations and {_seconds(run, cheapest):.2g} seconds an image"
        )
    best = max(allowed, key=goodness)
    if budget.within is not None:
        least = goodness(best) - budget.within * abs(goodness(best))
        near = [each for each in allowed if goodness(each) >= least]
        best = min(near, key=lambda each: (each.nfe, -goodness(each)))
        allowed = near
    others = [each for each in allowed if each.entry != best.entry]
    runner_up = max(others, key=goodness, default=None)
    fresh, apart = _apart(run, runner_up, best)
    return Recommendation(
        chosen=best,
        runner_up=runner_up,
        apart=apart,
        afresh=fresh,
        front=pareto_front(found, goodness),
        prefer=prefer,
        seconds=_seconds(run, best),
        precision=run.bench.precision,
    )


def pareto_front(
    found: Sequence[Standing], goodness: Callable[[Standing], float]
) -> tuple[Standing, ...]:
    """Those that are better than everything as cheap or cheaper, cheapest first."""
    front: list[Standing] = []
    for each in sorted(found, key=lambda each: (each.nfe, -goodness(each))):
        if not front or goodness(each) > goodness(front[-1]):
            front.append(each)
    return tuple(front)


def _comparable(run: Run, prefer: str, model: str | None) -> list[Standing]:
    if model is not None and model not in run.bench.models:
        raise unknown("model of this study", model, run.bench.models)
    name = model or next(iter(run.bench.models))
    found = [
        each
        for each in standings(run)
        if each.first.model == name
        and each.first.setting.uses_labels
        and prefer in each.first.measurement.figures
    ]
    if not found:
        raise UserError(f"the study in {run.folder.path} has no setting measured by {prefer} yet")
    most = max(each.first.draw.count for each in found)
    return [each for each in found if each.first.draw.count == most]


def _goodness(prefer: str) -> Callable[[Standing], float]:
    """By the block that settings are chosen on: more is better."""
    sign = 1 if PREFERENCES[prefer] else -1
    return lambda each: sign * each.first.measurement.figures[prefer].value


def _seconds(run: Run, each: Standing) -> float:
    """What an image takes on the machine the study was planned on."""
    return run.plan.costs.evaluation[each.first.model] * each.nfe


def _apart(run: Run, other: Standing | None, best: Standing) -> tuple[bool, Comparison | None]:
    """Whether fresh blocks tell how far apart the two are, and how far; else the first does."""
    if other is None:
        return False, None
    fresh = difference(other.entry, best.entry, run.known, run.plan.fresh)
    if fresh is not None:
        return True, fresh
    return False, difference(other.entry, best.entry, run.known, [0])


def _described(each: Standing) -> dict[str, Any]:
    figures = each.first.measurement.figures
    return {
        "setting": {
            field.name: getattr(each.first.setting, field.name) for field in fields(Setting)
        },
        "nfe": each.nfe,
        "samples": each.first.draw.count,
        "fresh_blocks": len(each.fresh),
        **{name: each.mean(name) for name in PREFERENCES if name in figures},
    }
