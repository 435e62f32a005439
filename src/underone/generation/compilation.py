"""Networks compiled by torch, where that saves more time than it takes."""

import hashlib
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from underone.checkpoint import DiffusionModel
from underone.config import Config, parse
from underone.data import cache_folder
from underone.diffusion import node_at
from underone.errors import UserError
from underone.files import read_json, write_json
from underone.generation.sample_sets import DEFAULT_BATCH_SIZE
from underone.networks.fixed_batches import InFixedBatches
from underone.networks.precision import fast_dtype

# Compiling takes about a minute: it is not tried for work of fewer seconds than these,
_LEAST_SECONDS = 600.0
# and for fewer batches than these the plain network is not even timed.
_LEAST_BATCHES = 200
_TIMINGS = 3


class Speed(Config):
    """Seconds of a batch, plain and compiled (None where compiling failed), and of compiling."""

    plain: float
    compiled: float | None
    compiling: float

    def repays(self, batches: float) -> bool:
        """Whether this many batches take less time if the network is compiled first."""
        if self.compiled is None:
            return False
        return batches * (self.plain - self.compiled) > self.compiling


class Speeds(Config):
    """The speeds measured on this machine, by a hash of what they depend on."""

    speeds: dict[str, Speed]


def compiled(model: DiffusionModel) -> DiffusionModel:
    """The same model with its network compiled, at once, so that no timed batch waits for it."""
    faster = replace(model, network=InFixedBatches(model.network, DEFAULT_BATCH_SIZE))
    _batch(faster)
    return faster


def repays_compiling(
    model: DiffusionModel, evaluations: int, announce: Callable[[str], object]
) -> bool:
    """Whether `evaluations` of a model's network take less time if it is compiled first.

    This is decided from times measured on this machine, which are kept between runs. Where there
    are none they are measured now, after telling `announce`, if there is enough work.
    """
    if model.device.type != "cpu":
        return False
    batches = evaluations / DEFAULT_BATCH_SIZE
    known, key = _known(), _key(model)
    if key not in known:
        if batches < _LEAST_BATCHES:
            return False
        plain = _seconds(model)
        if batches * plain < _LEAST_SECONDS:
            return False
        announce(f"compiling the network of {model.name} once, to see how much faster it is")
        measured = _measured(model, plain)
        known = {**_known(), key: measured}  # read again: other processes measure too
        with suppress(OSError):  # where it cannot be kept, it is measured again next time
            write_json(_file(), Speeds(speeds=known).model_dump())
    return known[key].repays(batches)


def _measured(model: DiffusionModel, plain: float) -> Speed:
    started = time.perf_counter()
    try:
        faster = compiled(model)
        compiling = time.perf_counter() - started
        return Speed(plain=plain, compiled=_seconds(faster), compiling=compiling)
    except Exception:  # a compiler may lack anything; the plain network still works
        return Speed(plain=plain, compiled=None, compiling=time.perf_counter() - started)


def _seconds(model: DiffusionModel) -> float:
    """The median time of a batch, not counting the first."""
    _batch(model)
    times = []
    for _ in range(_TIMINGS):
        started = time.perf_counter()
        _batch(model)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


@torch.no_grad()
def _batch(model: DiffusionModel) -> None:
    schedule = model.config.schedule
    node = node_at(schedule, torch.tensor(0.5, dtype=torch.float64))
    x = torch.zeros(DEFAULT_BATCH_SIZE, *model.shape)
    labels = None if model.num_classes is None else torch.zeros(len(x), dtype=torch.int64)
    model.denoiser(fast_dtype("cpu"))(x, node, labels)


def _key(model: DiffusionModel) -> str:
    """A hash of all that a network's speed on this machine depends on."""
    where = (
        repr(model.config.network),
        str(fast_dtype("cpu")),
        torch.__version__,
        torch.get_num_threads(),
        torch.backends.cpu.get_cpu_capability(),
        platform.processor(),
    )
    return hashlib.sha256(repr(where).encode()).hexdigest()[:16]


def _file() -> Path:
    return cache_folder() / "compiled.json"


def _known() -> dict[str, Speed]:
    """The speeds measured so far; none where the file is missing or not valid."""
    try:
        return dict(parse(Speeds, read_json(_file()), str(_file())).speeds)
    except (UserError, OSError):
        return {}
