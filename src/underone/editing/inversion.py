"""The noise that a model draws an image from, the image of a noise, and images between two."""

from collections.abc import Callable

import torch
from torch import Tensor

from underone.checkpoint import DiffusionModel
from underone.data import to_model_range
from underone.diffusion import Bound, Node, inversion, slerp
from underone.editing.parts import check_begins_anywhere, path_of, rows_of
from underone.errors import UserError
from underone.generation import (
    DEFAULT_BATCH_SIZE,
    LEARNED,
    Setting,
    denoiser_for,
    sampler_for,
    to_images,
)

OnImages = Callable[[int], object]


def check_invertible(model: DiffusionModel, setting: Setting) -> None:
    """A `UserError` where the sampling of this setting cannot be run backwards."""
    setting.check(model)
    if setting.threshold != "none":
        raise UserError(
            f"the {setting.threshold} threshold maps many x0 to one, so that there is no way back "
            "from it: use --threshold none"
        )
    if setting.grid == LEARNED:
        raise UserError(
            f"{setting.sampler} has learned its path in one direction: use --sampler dpm-solver-2m"
        )
    check_begins_anywhere(model, setting)
    if sampler_for(model, setting).stochastic:
        raise UserError(
            f"{setting.sampler} draws noise, so that it cannot be run backwards: use a "
            "deterministic sampler, like dpm-solver-2m, unipc or ddim"
        )


@torch.no_grad()
def encode(
    model: DiffusionModel,
    setting: Setting,
    images: Tensor,
    labels: Tensor | None,
    *,
    batch_size: int = DEFAULT_BATCH_SIZE,
    on_images: OnImages = lambda images: None,
) -> Tensor:
    """The noise z (N, C, H, W), float32 on the CPU, that each uint8 image is decoded from.

    Sampling that begins at sigma z, at the noisiest node of the setting's grid, leads back to the
    image; see `underone.diffusion.inversion`. The setting must be invertible (`check_invertible`);
    the network always runs in float32. Labels are (N,), or None where
    the model needs none.
    """
    check_invertible(model, setting)
    model.check_shape(images)
    path, sampler = _path(model, setting), sampler_for(model, setting)
    denoiser, device = denoiser_for(model, setting, "float32"), model.device
    noises = []
    for rows in torch.arange(len(images)).split(batch_size):
        bound = Bound(denoiser, rows_of(labels, rows, device))
        x0 = to_model_range(images[rows]).to(device)
        noises.append((inversion.encode(bound, sampler, path, x0) / path[0].sigma).cpu())
        on_images(len(rows))
    return torch.cat(noises)


@torch.no_grad()
def decode(
    model: DiffusionModel,
    setting: Setting,
    noise: Tensor,
    labels: Tensor | None,
    *,
    batch_size: int = DEFAULT_BATCH_SIZE,
    on_images: OnImages = lambda images: None,
) -> Tensor:
    """The uint8 image (N, C, H, W) of each noise z: the way back of `encode`.

    It samples as usual, with a node added at k = 1, where `encode` began, if the grid has none.
    """
    check_invertible(model, setting)
    model.check_shape(noise)
    path, sampler = _path(model, setting), sampler_for(model, setting)
    denoiser, device = denoiser_for(model, setting, "float32"), model.device
    images = []
    for rows in torch.arange(len(noise)).split(batch_size):
        bound = Bound(denoiser, rows_of(labels, rows, device))
        x = path[0].sigma * noise[rows].to(device)
        images.append(to_images(inversion.decode(bound, sampler, path, x).cpu(), setting))
        on_images(len(rows))
    return torch.cat(images)


def check_pairs(images: int, frames: int) -> None:
    """A `UserError` unless the `images` form pairs, and `frames` hold both ends."""
    if images % 2 != 0:
        raise UserError(
            f"images are interpolated in pairs, the first with the second, but there are {images}: "
            "choose an even number of them"
        )
    if frames < 2:
        raise UserError(f"an interpolation needs at least 2 frames, its ends, got {frames}")


def interpolate(
    model: DiffusionModel,
    setting: Setting,
    images: Tensor,
    labels: Tensor | None,
    frames: int,
    *,
    batch_size: int = DEFAULT_BATCH_SIZE,
    on_images: OnImages = lambda images: None,
) -> Tensor:
    """Frames from each even image to the odd one after it: uint8 (N / 2, frames, C, H, W).

    The noises of both are interpolated by `slerp` at even fractions and decoded; the ends are the
    images themselves, decoded again. Each frame has the label of the image that it is nearer to,
    the first one's in the middle. `on_images` is called for N images encoded and for every frame.
    """
    check_pairs(len(images), frames)
    noise = encode(model, setting, images, labels, batch_size=batch_size, on_images=on_images)
    fractions = torch.linspace(0, 1, frames, dtype=torch.float64)
    between = slerp(noise[0::2], noise[1::2], fractions).flatten(0, 1)
    nearer = None
    if labels is not None:
        nearer = torch.where(fractions <= 0.5, labels[0::2, None], labels[1::2, None]).flatten()
    decoded = decode(model, setting, between, nearer, batch_size=batch_size, on_images=on_images)
    return decoded.reshape(len(images) // 2, frames, *images.shape[1:])


def share_returned(images: Tensor, decoded: Tensor, levels: int = 2) -> float:
    """The share of elements of uint8 images that are recovered within `levels` grey levels."""
    return ((images.int() - decoded.int()).abs() <= levels).double().mean().item()


def _path(model: DiffusionModel, setting: Setting) -> list[Node]:
    return inversion.with_first_step(path_of(model, setting), model.config.schedule)
