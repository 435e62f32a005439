"""The costs of cells on this machine, measured before a study begins."""

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

# A batch is timed this many times, or as often as these seconds allow.
_TIMINGS, _TIMING_SECONDS = 9, 10.0
_MEASURED_IMAGES = 600


class Costs(Config):
    """Seconds per evaluation of each model, and per image measured by all yardsticks."""

    evaluation: dict[str, float]
    image: float

    def seconds(self, cell: Cell, bench: Bench) -> float:
        """About how long a cell takes."""
        return self.evaluation[cell.model] * cell.evaluations(bench) + self.image * cell.draw.count


def measured_costs(bench: Bench) -> Costs:
    """The costs on this machine now.

    Measuring is taken as proportional to the number of images: nearly all of it is extracting
    features, and distances to those of the reference.
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

    A single timing, or the first, is often far off, since the machine was busy just before.
    """
    once = Setting(DECODER) if isinstance(model, VAEModel) else Setting(steps=1)

    def batch() -> None:
        list(generate_batches(model, once, Draw(DEFAULT_BATCH_SIZE), precision=precision))

    return _seconds(batch, _TIMINGS) / DEFAULT_BATCH_SIZE


def _seconds(work: Callable[[], object], most: int) -> float:
    """The median time of `work`, without the first run, which fills caches."""

    def once() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    once()
    times = [once()]
    while len(times) < most and sum(times) < _TIMING_SECONDS:
        times.append(once())
    return statistics.median(times)
