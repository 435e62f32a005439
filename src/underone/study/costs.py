"""What cells cost on this machine, measured before a study begins."""

import statistics
import time
from collections.abc import Callable

import torch

from underone.checkpoint import GenerativeModel, VAEModel
from underone.config import Config
from underone.data import SampleSet
from underone.generation import (
    DECODER,
    DEFAULT_BATCH_SIZE,
    Draw,
    Precision,
    Setting,
    generate_batches,
)
from underone.study.bench import Bench
from underone.study.cell import Cell

# Timings of a batch: so many, or as many as there are in so many seconds.
_TIMINGS, _TIMING_SECONDS = 9, 10.0
_MEASURED_IMAGES = 600


class Costs(Config):
    """Seconds: of an evaluation of each model, and of measuring an image by all yardsticks."""

    evaluation: dict[str, float]
    image: float

    def seconds(self, cell: Cell, bench: Bench) -> float:
        """About how long a cell takes."""
        return self.evaluation[cell.model] * cell.evaluations(bench) + self.image * cell.draw.count


def measured_costs(bench: Bench) -> Costs:
    """The costs on this machine now.

    Measuring is taken to grow with the number of images: nearly all of it is features, and
    distances to the reference's.
    """
    first = next(iter(bench.models.values()))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (_MEASURED_IMAGES, *first.shape), generator=generator)
    some = SampleSet(images.to(torch.uint8), torch.arange(len(images)) % (first.num_classes or 1))
    return Costs(
        evaluation={
            name: seconds_per_evaluation(model, bench.precision)
            for name, model in bench.models.items()
        },
        image=_seconds(lambda: bench.measured(some), 1) / len(some),
    )


def seconds_per_evaluation(model: GenerativeModel, precision: Precision = "auto") -> float:
    """The time an image takes in one pass of the network: the median over a few batches.

    A single timing, or the first, is often far off: the machine has just been busy otherwise.
    """
    once = Setting(DECODER) if isinstance(model, VAEModel) else Setting(steps=1)

    def batch() -> None:
        list(generate_batches(model, once, Draw(DEFAULT_BATCH_SIZE), precision=precision))

    return _seconds(batch, _TIMINGS) / DEFAULT_BATCH_SIZE


def _seconds(work: Callable[[], object], most: int) -> float:
    """The median time of `work`, not counting the first, which makes what is kept."""

    def once() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    once()
    times = [once()]
    while len(times) < most and sum(times) < _TIMING_SECONDS:
        times.append(once())
    return statistics.median(times)
