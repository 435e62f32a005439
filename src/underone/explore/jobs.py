"""The jobs of a panel: to draw images, shown at every step, or to measure them.

A job reports its progress in messages that can be written as JSON.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from torch import Tensor

from underone.checkpoint import GenerativeModel, VAEModel
from underone.data import png_bytes, tile, to_uint8
from underone.data.picture import GAP, data_uri
from underone.diffusion import count_evaluations, listen_to_evaluations, per_image
from underone.editing import way_of
from underone.errors import UserError
from underone.evaluation import LiveSamples, evaluate_model
from underone.explore.lines import Tell
from underone.explore.offer import Offer
from underone.explore.request import Request
from underone.generation import (
    Draw,
    Precision,
    Setting,
    autocast_of,
    check,
    labels_of,
    sample_command,
    to_images,
)
from underone.named import MADE_FOR_A_MODEL
from underone.study.measures import FID

Job = Callable[[Offer, Request, Tell], None]

MEASURED_SAMPLES = 1000
# With more classes than this, columns are not classes.
_MOST_COLUMNS, _USUAL_COLUMNS = 12, 10
# Seconds between stills: short enough for the eye, and long enough to cost nothing.
_BETWEEN_STILLS = 0.1


def draw_live(offer: Offer, request: Request, tell: Tell) -> None:
    """Draw what is asked for: stills of the estimated x0 on the way, then the samples."""
    model, setting, draw = _read(offer, request)
    labels = labels_of(model, setting, draw)
    sheet = Sheet.of(model, draw)
    known = {"sheet": asdict(sheet), "known": offer.known(model, setting)}
    tell({"labels": None if labels is None else labels.tolist(), **known})
    started, shown = time.perf_counter(), 0.0
    with count_evaluations() as counter:
        for still in stills_of(model, setting, offer.precision)(draw):
            if still.last or time.perf_counter() - shown > _BETWEEN_STILLS:
                shown = time.perf_counter()
                picture = sheet.picture(still.images(setting))
                tell({"step": still.step, "steps": setting.steps, "picture": picture})
    tell(
        {
            "seconds": time.perf_counter() - started,
            "evaluations": per_image(counter, draw.count),
            "command": sample_command(request.model, setting, draw, offer.precision, model.device),
        }
    )


def measure_live(offer: Offer, request: Request, tell: Tell) -> None:
    """Measure the FID of `MEASURED_SAMPLES` samples of what is asked for, from its seed."""
    model, setting, draw = _read(offer, request)
    draw = replace(draw, count=MEASURED_SAMPLES)
    by = offer.yardstick(model)
    all_evaluations = draw.count * setting.evaluations(model)
    evaluations, started = 0, time.perf_counter()

    def count(network: str, images: int) -> None:
        nonlocal evaluations
        evaluations += images
        share = min(1.0, evaluations / all_evaluations)
        left = (time.perf_counter() - started) * (1 / share - 1)
        tell({"done": int(share * draw.count), "of": draw.count, "seconds_left": left})

    with listen_to_evaluations(count):
        found = evaluate_model(LiveSamples(model, setting, draw, offer.precision), by, ("fid",))
    error = found.figures["fid"].error
    tell(
        {
            "fid": FID.text(found.fid),
            "error": None if error is None else FID.text(error),
            "floor": None if found.floor is None else FID.text(found.floor.fid),
            "of": draw.count,
            "extractor": by.extractor.name,
            "rank_deficient": found.rank_deficient,
        }
    )


@dataclass(frozen=True)
class Sheet:
    """A picture of images in rows, each `width` x `height` pixels with a gap around it."""

    columns: int
    width: int
    height: int
    gap: int = GAP

    @classmethod
    def of(cls, model: GenerativeModel, draw: Draw) -> "Sheet":
        """One column per class, where classes take turns and are few."""
        _, height, width = model.shape
        classes = model.num_classes or 0
        turns = draw.labels == "balanced" and 1 < classes <= _MOST_COLUMNS
        return cls(min(draw.count, classes if turns else _USUAL_COLUMNS), width, height)

    def picture(self, images: Tensor) -> str:
        """The images as a data URI."""
        return data_uri(png_bytes(tile(images, self.columns, gap=self.gap)))


@dataclass(frozen=True, eq=False)
class Still:
    """Images x (N, C, H, W) around [-1, 1]: x0 as a step estimates it, or the samples if `last`."""

    step: int
    x: Tensor
    last: bool = False

    def images(self, setting: Setting) -> Tensor:
        """As uint8 images. NaN on the way is grey; at the end, what is not finite is an error."""
        x = self.x.cpu()
        return to_images(x, setting) if self.last else to_uint8(x.nan_to_num(0))


def stills_of(
    model: GenerativeModel, setting: Setting, precision: Precision
) -> Callable[[Draw], Iterator[Still]]:
    """A function from a draw of one batch to its stills: x0 as each step estimates it, then x."""
    if isinstance(model, VAEModel):
        return partial(_decoded, model, autocast_of(model, setting, precision))
    way = way_of(model, setting, precision)

    @torch.no_grad()
    def stills(draw: Draw) -> Iterator[Still]:
        for index, estimate in enumerate(way(draw.keys, labels_of(model, setting, draw))):
            last = index == setting.steps
            yield Still(index + (not last), estimate.x if last else estimate.x0, last)

    return stills


def _decoded(model: VAEModel, autocast: torch.dtype | None, draw: Draw) -> Iterator[Still]:
    labels = draw.class_labels(model.num_classes, model.config.data.class_images)
    yield Still(1, model.decode(model.latents(draw.keys), labels, autocast), last=True)


def _read(offer: Offer, request: Request) -> tuple[GenerativeModel, Setting, Draw]:
    model = offer.model(request.model)
    setting, draw = request.setting(offer.own), request.draw()
    if setting.sampler in MADE_FOR_A_MODEL and setting.sampler not in offer.samplers_for(model):
        raise UserError(f"{setting.sampler} is not ready for {model.name}: see underone sample")
    check(model, setting, draw)
    return model, setting, draw
