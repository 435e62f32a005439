"""What the guide measures within a time budget."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from underone.checkpoint import DiffusionModel
from underone.config import Config
from underone.generation import DEFAULT_BATCH_SIZE, Draw, Setting, generate_batches

# One of each kind: the two posterior variances, the deterministic classic, a modern solver.
GUIDE_SAMPLERS = ("ddpm-large", "ddpm-small", "ddim", "unipc")
STEPS = (5, 10, 20)
# Guidance doubles an evaluation, so on a slow machine it is measured at fewer steps.
GUIDANCE_SAMPLER, GUIDANCE_STEPS = "ddim", (10, 5)
GUIDANCE_WEIGHTS = (-1.0, 0.0, 0.5, 1.0, 2.0, 4.0)
LEAST_SAMPLES, MOST_SAMPLES = 600, 10_000
# (steps, samples a cell): every sampler is also run at so many steps once each cell has so many
# samples; before that, samples are worth more.
MORE_STEPS = ((50, 600), (100, 2000), (250, 5000), (1000, 10_000))
# What a budget leaves for features, distances, pictures and the page.
_OVERHEAD_SHARE, _OVERHEAD_SECONDS = 0.08, 10.0
_TIMINGS = 9


class Plan(Config):
    """The cells of a guide, decided before the first of them runs, and followed by every rerun."""

    minutes: float
    seconds_per_evaluation: float
    model_sha256: str
    count: int
    seed: int
    settings: tuple[Setting, ...]


@dataclass(frozen=True)
class Costs:
    """What a budget buys: network evaluations in all, and what an image costs at a setting."""

    evaluations: float
    model: DiffusionModel

    def afford(self, settings: Sequence[Setting], samples: int) -> bool:
        """Whether every setting can be drawn `samples` times."""
        return samples * self.per_sample(settings) <= self.evaluations

    def per_sample(self, settings: Sequence[Setting]) -> int:
        """The evaluations of one image at each setting."""
        return sum(setting.evaluations(self.model) for setting in settings)


def make_plan(model: DiffusionModel, minutes: float, seed: int) -> Plan:
    """The settings, and samples for each, that fit `minutes` at this machine's measured speed.

    Fewer settings before fewer than `LEAST_SAMPLES` samples each; then more steps, then more
    samples, as `MORE_STEPS` says.
    """
    speed = seconds_per_evaluation(model)
    budget = max(0.0, 60 * minutes * (1 - _OVERHEAD_SHARE) - _OVERHEAD_SECONDS)
    costs = Costs(budget / speed, model)
    settings = choose_settings(costs, guided=model.config.training.label_dropout > 0)
    classes = model.num_classes or 1
    affordable = int(costs.evaluations / costs.per_sample(settings))
    count = min(max(affordable, LEAST_SAMPLES), MOST_SAMPLES) // classes * classes
    return Plan(
        minutes=minutes,
        seconds_per_evaluation=speed,
        model_sha256=model.sha256,
        count=count,
        seed=seed,
        settings=tuple(settings),
    )


def choose_settings(costs: Costs, guided: bool) -> list[Setting]:
    """The settings to measure, most telling first."""
    most = costs.model.config.schedule.steps
    plain = [
        Setting(sampler, steps) for steps in STEPS if steps <= most for sampler in GUIDE_SAMPLERS
    ]
    ladders = [
        [
            Setting(GUIDANCE_SAMPLER, min(steps, most), guidance=weight)
            for weight in GUIDANCE_WEIGHTS
            if guided and weight != 0
        ]
        for steps in GUIDANCE_STEPS
    ]
    settings = max((_affordable([*plain, *ladder], costs) for ladder in ladders), key=len)
    for steps, samples in MORE_STEPS:
        if steps > most:
            break
        for sampler in reversed(GUIDE_SAMPLERS):
            extra = Setting(sampler, steps)
            if costs.afford([*settings, extra], samples):
                settings.append(extra)
    return settings


def _affordable(settings: list[Setting], costs: Costs) -> list[Setting]:
    """`settings` without the most expensive, so many of them that the rest fits."""
    kept = list(settings)
    while len(kept) > 1 and not costs.afford(kept, LEAST_SAMPLES):
        kept.remove(max(kept, key=lambda setting: setting.evaluations(costs.model)))
    return kept


def cells_draw(plan: Plan) -> Draw:
    """The draw of every cell: the same seeds and labels, so that differences are paired."""
    return Draw(plan.count, seed=plan.seed)


def seconds_per_evaluation(model: DiffusionModel) -> float:
    """The time an image takes in one pass of the network: the median over a few batches.

    A single timing, or the first, is often far off: the machine has just been busy otherwise.
    """

    def seconds() -> float:
        started = time.perf_counter()
        list(generate_batches(model, Setting("ddim", 1), Draw(DEFAULT_BATCH_SIZE)))
        return time.perf_counter() - started

    seconds()
    return statistics.median(seconds() for _ in range(_TIMINGS)) / DEFAULT_BATCH_SIZE
