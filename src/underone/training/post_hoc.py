"""Averages of any width, made after the training from snapshots of two."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from underone.checkpoint import load_tensors
from underone.errors import UserError
from underone.files import whole_files, write_atomically
from underone.training.average import profile_exponent

FOLDER = "averages"


@dataclass(frozen=True)
class Snapshot:
    """An average of the weights up to a step: their power-function profile, and its file."""

    step: int
    width: float
    path: Path


def save_snapshot(folder: Path, step: int, width: float, tensors: Mapping[str, Tensor]) -> None:
    """Keep an average of relative `width` after `step` updates, in float16."""
    plain = {
        name: tensor.detach().to(torch.float16 if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in tensors.items()
    }
    kept = {name: tensor.contiguous() for name, tensor in plain.items()}
    metadata = {"step": str(step), "width": repr(width)}
    path = folder / FOLDER / f"{step:07d}-{width:g}.safetensors"
    write_atomically(path, lambda temporary: save_file(kept, temporary, metadata))


def snapshots_in(folder: Path) -> list[Snapshot]:
    """The snapshots that a run has kept, in order; a `UserError` where there are none."""
    found = []
    for path in whole_files(folder / FOLDER, "*.safetensors"):
        load_tensors(path)  # which refuses what is broken
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        try:
            found.append(Snapshot(int(metadata["step"]), float(metadata["width"]), path))
        except (KeyError, ValueError):
            raise UserError(
                f"{path} is no snapshot of an average: it does not say of what"
            ) from None
    if not found:
        raise UserError(
            f"{folder} has kept no snapshots of its averages: train with --set snapshots=8, say"
        )
    return found


def overlap(step: Tensor, exponent: Tensor, other: Tensor, others: Tensor) -> Tensor:
    """The inner product of two profiles p(t) ~ t^exponent on (0, step] (Karras et al. 2024, C.3).

    (a + 1) (b + 1) (s / r)^c / ((a + b + 1) max(s, r)), with steps s and r, exponents a and b, and
    c = b where s < r and -a elsewhere. All float64, of shapes that broadcast.
    """
    ratio = torch.where(step < other, others, -exponent)
    numerator = (exponent + 1) * (others + 1) * (step / other) ** ratio
    return numerator / ((exponent + others + 1) * torch.maximum(step, other))


@dataclass(frozen=True)
class Fit:
    """How snapshots mix to a wanted average: a weight each, which sum to about 1.

    `misfit` is |fit - profile| / |profile|, of the functions of time.
    """

    weights: tuple[float, ...]
    misfit: float


@dataclass(frozen=True)
class Mixed:
    """An average that was made afterwards: its tensors, after how many updates, and its fit."""

    tensors: dict[str, Tensor]
    step: int
    fit: Fit


def fitted(snapshots: Sequence[Snapshot], step: int, width: float) -> Fit:
    """The least-squares fit of the profile of `width` at `step` by those of the snapshots.

    Karras et al. 2024, Algorithm 3. Widths between those that were kept are found nearly exactly.
    """
    steps = torch.tensor([each.step for each in snapshots], dtype=torch.float64)
    exponents = torch.tensor(
        [profile_exponent(each.width) for each in snapshots], dtype=torch.float64
    )
    wanted = (
        torch.tensor(step, dtype=torch.float64),
        torch.tensor(profile_exponent(width), dtype=torch.float64),
    )
    gram = overlap(steps[:, None], exponents[:, None], steps, exponents)
    cross = overlap(steps, exponents, *wanted)
    norm = overlap(*wanted, *wanted)
    weights = torch.linalg.lstsq(gram, cross).solution
    squared = weights @ gram @ weights - 2 * weights @ cross + norm
    return Fit(tuple(weights.tolist()), float((squared.clamp(min=0) / norm).sqrt()))


def averaged(folder: Path, width: float) -> Mixed:
    """The average of relative `width` at a run's latest snapshot, float32."""
    if not 0 < width < 0.28:
        raise UserError(f"the relative width of an average must lie in (0, 0.28), got {width:g}")
    snapshots = snapshots_in(folder)
    step = max(each.step for each in snapshots)
    fit = fitted(snapshots, step, width)
    mixed: dict[str, Tensor] = {}
    for snapshot, weight in zip(snapshots, fit.weights, strict=True):
        for name, tensor in load_tensors(snapshot.path).items():
            # What is not a floating-point number is taken from the last snapshot.
            share = weight * tensor.double() if tensor.is_floating_point() else tensor
            floating = tensor.is_floating_point() and name in mixed
            mixed[name] = mixed[name] + share if floating else share
    tensors = {n: t.float() if t.is_floating_point() else t for n, t in mixed.items()}
    return Mixed(tensors, step, fit)
