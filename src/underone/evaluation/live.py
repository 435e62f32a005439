"""Measure the samples of a model as it draws them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from underone.checkpoint import GenerativeModel
from underone.diffusion import count_evaluations, per_image
from underone.errors import UserError
from underone.evaluation.blocks import same_counts
from underone.generation import Draw, Precision, Setting, generate_batches, labels_of, subject
from underone.metrics import Measurement, Yardstick, measure_batches
from underone.metrics.measurement import FloorRecord, joined

OnImages = Callable[[int], object]


@dataclass(frozen=True)
class LiveSamples:
    """Samples that a model draws while they are measured: `blocks` draws, one after another."""

    model: GenerativeModel
    setting: Setting
    draw: Draw
    precision: Precision = "auto"
    blocks: int = 1

    def __post_init__(self) -> None:
        if self.blocks < 1:
            raise UserError(f"--blocks must be at least 1, got {self.blocks}")

    @property
    def draws(self) -> list[Draw]:
        """The draw of each block: disjoint ranges of sample indices under one seed."""
        first, count = self.draw.first, self.draw.count
        return [replace(self.draw, first=first + block * count) for block in range(self.blocks)]


def evaluate_model(
    live: LiveSamples,
    by: Yardstick,
    metrics: Sequence[str],
    on_images: OnImages = lambda images: None,
) -> Measurement:
    """The `metrics` of a model's samples; `on_images` is called with each batch's size."""
    found: list[Measurement] = []
    first = labels_of(live.model, live.setting, live.draw)
    for draw in live.draws:
        labels = labels_of(live.model, live.setting, draw)
        known = found[0].floor if found and same_counts(labels, first) else None
        found.append(_one_draw(live, draw, by, metrics, on_images, known))
    return joined(found)


def _one_draw(
    live: LiveSamples,
    draw: Draw,
    by: Yardstick,
    metrics: Sequence[str],
    on_images: OnImages,
    known_floor: FloorRecord | None,
) -> Measurement:
    model, setting, precision = live.model, live.setting, live.precision
    labels = labels_of(model, setting, draw)
    described = subject(model, setting, draw, precision)

    # An analytic sampler's variances are estimated here, before evaluations are counted.
    drawn = generate_batches(model, setting, draw, precision=precision)

    def batches() -> Iterator[Tensor]:
        for images in drawn:
            on_images(len(images))
            yield images

    with count_evaluations() as counter:
        measurement = measure_batches(
            batches(),
            labels,
            described,
            by,
            metrics,
            streamed=live.blocks > 1,
            known_floor=known_floor,
        )
    evaluations = per_image(counter, draw.count)
    return measurement.model_copy(update={"subject": described | {"evaluations": evaluations}})
