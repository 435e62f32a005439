"""The only normalisation of the project: uint8 NCHW outside, float32 in [-1, 1] inside."""

import torch
from torch import Tensor


def check_images(images: Tensor) -> None:
    """Raise `ValueError` unless `images` is a uint8 tensor (N, C, H, W) with C = 1 or 3."""
    if images.dtype != torch.uint8:
        raise ValueError(
            f"images must be uint8 in 0..255, not {images.dtype}: to_uint8 makes them of floats in "
            "[-1, 1]"
        )
    _check_nchw(images)
    if images.shape[1] not in (1, 3):
        raise ValueError(f"images must be (N, C, H, W) with C = 1 or 3, not {_shape(images)}")


def to_model_range(images: Tensor) -> Tensor:
    """x/127.5 - 1: uint8 (N, C, H, W) to float32 of the same shape in [-1, 1]."""
    check_images(images)
    return images.to(torch.float32) / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """round((clamp(x, -1, 1) + 1) * 127.5): floating (N, C, H, W) to uint8 of the same shape.

    The exact inverse of `to_model_range` on its range. NaN, which rounds to no level, and types
    that are not floating raise `ValueError`.
    """
    if not images.is_floating_point():
        raise ValueError(f"images must be floating in [-1, 1], not {images.dtype}")
    _check_nchw(images)
    if images.isnan().any():
        raise ValueError("images contain NaN, which is not a grey level: the sampling diverged")
    return ((images.to(torch.float32).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def _check_nchw(images: Tensor) -> None:
    if images.ndim != 4:
        raise ValueError(f"images must be (N, C, H, W), not {_shape(images)}")


def _shape(images: Tensor) -> str:
    return f"of shape {tuple(images.shape)}"
