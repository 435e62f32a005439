"""The variance of x0 given x_t, averaged over a model's data: what analytic DDPM needs.

Estimated once for a model and kept beside it as `analytic.json`.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import torch
from pydantic import model_validator
from torch import Tensor

from underone.checkpoint import DiffusionModel
from underone.config import Config, parse
from underone.data import find_training_split
from underone.data.images import to_model_range
from underone.diffusion import Clipped, LogSNR, Node, NoiseStreams, node_at, noised
from underone.errors import UserError
from underone.files import read_json, write_json

FILE = "analytic.json"
LEVELS, IMAGES = 64, 256
EVALUATIONS = LEVELS * IMAGES
_STREAM = 2**64 - 2  # the seed of the noise, which no sample has


class ErrorCurve(Config):
    """The mean squared error per element of a model's x0, at ascending log-SNRs."""

    model_sha256: str
    images: int
    log_snr: tuple[float, ...]
    squared_error: tuple[float, ...]

    @model_validator(mode="after")
    def _is_a_curve(self) -> Self:
        levels, errors = self.log_snr, self.squared_error
        if len(levels) != len(errors) or len(levels) < 2:
            raise ValueError("log_snr and squared_error must have the same length, at least 2")
        if not all(low < high for low, high in pairwise(levels)):
            raise ValueError("log_snr must ascend")
        if not all(0 < error < math.inf for error in errors):
            raise ValueError("squared_error must be finite and above 0")
        return self


@dataclass(frozen=True)
class DataVariance:
    """v_t = E|x0 - x0(x_t)|^2 / d, between 0 and 1: the mean variance of x0 given x_t.

    For a perfect model this is sigma^2 / alpha^2 (1 - Gamma_t), with Gamma_t = E|z(x_t)|^2 / d of
    its noise estimates z (Bao et al. 2022, eq. 7 to 9): they recover Gamma_t of the noise's power
    1, and the rest is the uncertainty of x0. Measured as the error itself, it is also the best
    variance for the mean of an imperfect model (Bao et al. 2022, "with imperfect mean", eq. 12),
    and far more precise at high noise, where Gamma_t is within a few millionths of 1. x0 is
    clamped, as it is by default in sampling. log v_t is interpolated linearly in log-SNR between
    the levels measured.
    """

    curve: ErrorCurve

    def __call__(self, node: Node) -> Tensor:
        """v_t at a node, float64, shape ()."""
        levels = torch.tensor(self.curve.log_snr, dtype=torch.float64)
        logarithms = torch.tensor(self.curve.squared_error, dtype=torch.float64).log()
        wanted = node.log_snr.clamp(levels[0], levels[-1])
        above = torch.searchsorted(levels, wanted).clamp(1, len(levels) - 1)
        share = (wanted - levels[above - 1]) / (levels[above] - levels[above - 1])
        return torch.lerp(logarithms[above - 1], logarithms[above], share).exp().clamp(max=1)


def is_known(model: DiffusionModel) -> bool:
    """Whether an estimate for exactly these weights is kept beside them."""
    return _kept(model) is not None


def data_variance(
    model: DiffusionModel, on_images: Callable[[int], object] = lambda images: None
) -> DataVariance:
    """The kept estimate, or a new one, which is kept if the model's folder can be written.

    A new one needs the model's training data, and calls `on_images` for `EVALUATIONS` evaluations.
    """
    curve = _kept(model)
    if curve is None:
        curve = estimate(model, on_images)
        with suppress(OSError):  # in a folder that cannot be written: the next use estimates again
            write_json(model.folder / FILE, curve.model_dump())
    return DataVariance(curve)


def _kept(model: DiffusionModel) -> ErrorCurve | None:
    path = model.folder / FILE
    if not path.exists():
        return None
    curve = parse(ErrorCurve, read_json(path), str(path))
    return curve if curve.model_sha256 == model.sha256 else None


@torch.no_grad()
def estimate(model: DiffusionModel, on_images: Callable[[int], object]) -> ErrorCurve:
    """The error of x0 over `IMAGES` training images at `LEVELS` noise levels even in log-SNR."""
    name = model.config.data.name
    data = find_training_split(name)
    if data is None:
        raise UserError(
            f"ddpm-analytic needs the training data of {model.name}, and {name!r}, as they were "
            "called, is not a data set that can be found by name: choose another sampler"
        )
    if not model.may_be_of(data):
        raise UserError(
            f"{model.name} was trained on other data than the {data.name} found here, and "
            "ddpm-analytic needs the former: choose another sampler"
        )
    schedule, device = model.config.schedule, model.device
    denoiser = Clipped(model.denoiser())
    chosen = torch.linspace(0, len(data) - 1, IMAGES).long()
    x0 = to_model_range(data.images[chosen]).to(device)
    labels = None if model.num_classes is None else data.labels[chosen].to(device)
    noise = NoiseStreams([(_STREAM, i) for i in range(IMAGES)], model.shape, device)
    log_snrs, errors = [], []
    for t in LogSNR()(schedule, min(LEVELS, schedule.steps)):
        node = node_at(schedule, t)
        x = noised(x0, node, noise())
        errors.append((x0 - denoiser(x, node, labels)).double().square().mean().item())
        log_snrs.append(node.log_snr.item())
        on_images(IMAGES)
    return ErrorCurve(
        model_sha256=model.sha256,
        images=IMAGES,
        log_snr=tuple(log_snrs),
        squared_error=tuple(errors),
    )
