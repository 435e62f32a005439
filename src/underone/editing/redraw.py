"""Samples drawn from images: variations of them, and fillings of their holes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from underone.checkpoint import DiffusionModel
from underone.data import SampleSet, to_model_range
from underone.diffusion import (
    Bound,
    Inpainted,
    Model,
    Node,
    NoiseStreams,
    count_evaluations,
    integrate,
    noised,
    path_from,
    per_image,
)
from underone.editing.parts import check_begins_anywhere, path_of, rows_of
from underone.errors import UserError
from underone.generation import (
    ANALYTIC,
    DEFAULT_BATCH_SIZE,
    LEARNED,
    Draw,
    Precision,
    Setting,
    denoiser_for,
    sampler_for,
    subject,
    to_images,
)

Start = tuple[Model, Sequence[Node], Tensor]
"""A model, the path it is sampled along, and x (B, ...) at the first node of that."""


class Edit(Protocol):
    """What is kept of an image x0 while the rest is drawn anew."""

    def check(self, model: DiffusionModel, setting: Setting) -> None:
        """A `UserError` where it cannot be done with `model` in this setting."""
        ...

    def start(
        self, model: Model, path: Sequence[Node], x0: Tensor, noise: Callable[[], Tensor]
    ) -> Start:
        """Where the sampling of a batch begins, for images x0 (B, C, H, W)."""
        ...

    def finish(self, x: Tensor, x0: Tensor) -> Tensor:
        """The result, from the end of the path."""
        ...

    @property
    def record(self) -> dict[str, Any]:
        """What is recorded of the edit, as JSON."""
        ...


@dataclass(frozen=True)
class Variation:
    """The image noised up to the node nearest to t = `strength`: see `diffusion.variation`."""

    strength: float = 0.5

    def check(self, model: DiffusionModel, setting: Setting) -> None:
        """The strength lies in (0, 1], and the sampler can begin on its way."""
        path_from(path_of(model, setting), self.strength)
        if setting.grid == LEARNED:
            raise UserError(
                f"{setting.sampler} has learned a whole path, not a part: use another sampler"
            )
        check_begins_anywhere(model, setting)

    def start(
        self, model: Model, path: Sequence[Node], x0: Tensor, noise: Callable[[], Tensor]
    ) -> Start:
        """At x_t = alpha x0 + sigma z."""
        rest = path_from(path, self.strength)
        return model, rest, noised(x0, rest[0], noise())

    def finish(self, x: Tensor, x0: Tensor) -> Tensor:
        """x itself."""
        return x

    @property
    def record(self) -> dict[str, Any]:
        """The strength."""
        return {"edit": "variation", "strength": self.strength}


@dataclass(frozen=True, eq=False)
class Inpainting:
    """The image outside of `hole`, bool (H, W), True where it is filled.

    See `diffusion.inpainting`. Known pixels come back bit for bit.
    """

    hole: Tensor

    def check(self, model: DiffusionModel, setting: Setting) -> None:
        """The hole has the images' size, and the sampler can make use of known pixels."""
        if tuple(self.hole.shape) != model.shape[1:]:
            raise UserError(
                f"the mask is {' x '.join(map(str, self.hole.shape))}, but {model.name} makes "
                f"images of {' x '.join(map(str, model.shape[1:]))}: give one of that size"
            )
        if not self.hole.any():
            raise UserError("there is no hole to fill: mark one in white, or give a --box")
        if setting.sampler == ANALYTIC:
            raise UserError(f"{ANALYTIC} adds noise for an x0 without known pixels: use ddpm-small")

    def start(
        self, model: Model, path: Sequence[Node], x0: Tensor, noise: Callable[[], Tensor]
    ) -> Start:
        """At pure noise."""
        return Inpainted(model, x0, self._hole(x0)), path, path[0].sigma * noise()

    def finish(self, x: Tensor, x0: Tensor) -> Tensor:
        """The known pixels as they were, also where a sampler does not end on x0 itself."""
        return torch.where(self._hole(x0), x, x0)

    @property
    def record(self) -> dict[str, Any]:
        """How many pixels are filled."""
        return {"edit": "inpainting", "filled": int(self.hole.sum())}

    def _hole(self, x0: Tensor) -> Tensor:
        return self.hole.to(x0.device).expand_as(x0)


@torch.no_grad()
def redraw(
    model: DiffusionModel,
    setting: Setting,
    edit: Edit,
    images: Tensor,
    labels: Tensor | None,
    draw: Draw,
    *,
    variations: int = 1,
    batch_size: int = DEFAULT_BATCH_SIZE,
    precision: Precision = "auto",
    on_images: Callable[[int], object] = lambda images: None,
) -> SampleSet:
    """V `variations` of each of N uint8 images (N, C, H, W): N V samples, image by image.

    Variation j of image i has the noise of the key (seed + j, first + i), so that it depends
    neither on how many there are nor on the batch. `draw.count` is N; `labels` (N,), or None where
    the model needs none. `on_images` is called with the size of each batch.
    """
    if variations < 1:
        raise UserError(f"variations must be at least 1, got {variations}")
    setting.check(model)
    model.check_shape(images)
    edit.check(model, setting)
    path, sampler = path_of(model, setting), sampler_for(model, setting)
    denoiser, device = denoiser_for(model, setting, precision), model.device
    keys = _keys(draw, variations)
    drawn = []
    with count_evaluations() as counter:
        for chosen in torch.arange(len(keys)).split(batch_size):
            rows = chosen // variations
            noise = NoiseStreams([keys[i] for i in chosen.tolist()], model.shape, device)
            x0 = to_model_range(images[rows]).to(device)
            bound = Bound(denoiser, rows_of(labels, rows, device))
            start, rest, x = edit.start(bound, path, x0, noise)
            for estimate in integrate(start, sampler, rest, x, noise):
                last = estimate
            drawn.append(to_images(edit.finish(last.x, x0).cpu(), setting))
            on_images(len(chosen))
    protocol = subject(model, setting, draw, precision) | edit.record
    protocol["variations"] = variations
    protocol["evaluations"] = per_image(counter, len(keys))
    every = None if labels is None else labels.repeat_interleave(variations)
    return SampleSet(torch.cat(drawn), every, torch.tensor(keys), protocol)


def _keys(draw: Draw, variations: int) -> list[tuple[int, int]]:
    """(seed + j, first + i) of each image i and its variation j."""
    of_each = [replace(draw, seed=draw.seed + j).keys for j in range(variations)]
    return [key for keys in zip(*of_each, strict=True) for key in keys]
