"""A cell's samples drawn by all processes that torchrun has started, and measured by the first.

Batches are dealt whole: batch i to rank i mod world. A network's rounding depends on the shape of
the batch, so this draws every sample bit for bit as a single process with as many threads does.
The images are gathered, at a byte a pixel: they are small compared with the work of drawing them,
and measured in one place they are measured exactly as without ranks.

The first rank leads: it alone reads the command, decides what is due, writes and prints. It tells
the others what to draw, and they end when it says so or is gone.
"""

import datetime
import importlib
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial, wraps
from typing import Any, ParamSpec

import torch
import torch.distributed as dist
from torch import Tensor

from underone.data import SampleSet
from underone.diffusion import SamplingDivergedError, per_image
from underone.errors import UserError
from underone.generation import DEFAULT_BATCH_SIZE, generate
from underone.study.bench import Bench
from underone.study.cell import Cell, Divergence, Outcome, diverged, files_differ, measured
from underone.study.engine import OnImages, WorkerSetup

# The others wait while the first rank plans or measures, which may take long. A lost rank breaks
# its connections at once, whatever this timeout is.
_TIMEOUT = datetime.timedelta(days=30)

Arguments = ParamSpec("Arguments")
Share = list[SampleSet]


def many_ranks() -> bool:
    """Whether torchrun has started this process as one of several."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def led_by_first_rank(command: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """A command that the first rank runs while the others draw for it; alone, it runs as it is."""

    @wraps(command)
    def run(*arguments: Arguments.args, **options: Arguments.kwargs) -> None:
        if not many_ranks():
            command(*arguments, **options)
        elif int(os.environ["RANK"]) == 0:
            with _process_group():
                command(*arguments, **options)
                _broadcast(None)
        else:
            # Ctrl-C reaches all ranks; the first decides what to do.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            with _process_group():
                _follow()

    return run


@contextmanager
def _process_group() -> Iterator[None]:
    # This module takes the current process group as a default argument when it is first imported.
    # If that happened below (torch.compile imports it), the group's threads would run until the
    # interpreter ends, which now and then aborts the process.
    importlib.import_module("torch.distributed.nn")
    # Only images in memory and short messages are exchanged, so gloo serves for GPUs too.
    dist.init_process_group("gloo", timeout=_TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


@dataclass(frozen=True)
class CellTask:
    """A cell to draw a share of, and its identity in the first rank."""

    cell: Cell
    identity: str


@dataclass(frozen=True)
class RankEngine:
    """Draws each cell by all ranks and measures it in this one, the first."""

    bench: Bench

    def run(self, cells: Sequence[Cell], on_images: OnImages) -> Iterator[Outcome | Divergence]:
        """The outcomes in order; other ranks' images are reported once this one's are drawn."""
        for cell in cells:
            yield self._one(cell, partial(on_images, cell))

    def _one(self, cell: Cell, on_images: Callable[[int], object]) -> Outcome | Divergence:
        task = CellTask(cell, cell.identity(self.bench))
        started = time.perf_counter()
        _broadcast(task)
        try:
            shares = _gather(_attempted(task, self.bench, on_images))
        except SamplingDivergedError as error:
            return diverged(cell, task.identity, error)
        on_images(sum(len(batch) for theirs in shares[1:] for batch in theirs))
        seconds = time.perf_counter() - started
        return measured(cell, task.identity, self.bench, merged(_in_turn(shares)), seconds)


def open_ranks(setup: WorkerSetup, bench: Bench) -> RankEngine:
    """An engine that draws by all ranks, each of which must open the same bench as the first."""
    if torch.cuda.is_available():
        setup = replace(setup, device="cuda")
        _take_gpu()
    _broadcast(setup)
    prepared = setup.prepared(bench)
    _gather([])
    return RankEngine(prepared)


def _follow() -> None:
    """Carry out the tasks of the first rank until it sends no more."""
    bench: Bench | None = None
    while (task := _received()) is not None:
        answer: Share | UserError = []
        try:
            if isinstance(task, WorkerSetup):
                _take_gpu()
                bench = task.opened(_name())
            elif bench is not None:
                answer = _attempted(task, bench)
        except UserError as error:
            answer = error
        _answer(answer)


def _attempted(
    task: CellTask, bench: Bench, on_images: Callable[[int], object] = lambda images: None
) -> Share | UserError:
    """The share of this rank, or the error: the others wait for an answer either way."""
    try:
        if task.cell.identity(bench) != task.identity:
            raise files_differ(task.cell, f"for {_name()}")
        return share(task.cell, bench, *_rank_and_world(), on_images)
    except UserError as error:
        return error


def share(
    cell: Cell,
    bench: Bench,
    rank: int,
    world: int,
    on_images: Callable[[int], object] = lambda images: None,
) -> Share:
    """The batches of a cell that fall to a rank, each drawn as a single process would."""
    first, count = cell.draw.first, cell.draw.count
    return [
        generate(
            bench.models[cell.model],
            cell.setting,
            replace(cell.draw, first=first + start, count=min(DEFAULT_BATCH_SIZE, count - start)),
            precision=bench.precision,
            on_images=on_images,
        )
        for start in range(rank * DEFAULT_BATCH_SIZE, count, world * DEFAULT_BATCH_SIZE)
    ]


def merged(batches: Sequence[SampleSet]) -> SampleSet:
    """The consecutive batches of a draw as one sample set."""
    count = sum(len(batch) for batch in batches)
    totals: Counter[str] = Counter()
    for batch in batches:
        for name, each in batch.protocol["evaluations"].items():
            totals[name] += round(each * len(batch))
    return SampleSet(
        torch.cat([batch.images for batch in batches]),
        _concatenated([batch.labels for batch in batches]),
        _concatenated([batch.seeds for batch in batches]),
        batches[0].protocol | {"evaluations": per_image(totals, count)},
    )


def _concatenated(parts: Sequence[Tensor | None]) -> Tensor | None:
    known = [part for part in parts if part is not None]
    return torch.cat(known) if known else None


def _in_turn(shares: Sequence[Share]) -> Share:
    """The batches in the order they were dealt in."""
    world = len(shares)
    return [shares[i % world][i // world] for i in range(sum(map(len, shares)))]


def _rank_and_world() -> tuple[int, int]:
    return dist.get_rank(), dist.get_world_size()


def _name() -> str:
    return f"rank {dist.get_rank()} on {socket.gethostname()}"


def _take_gpu() -> None:
    """Use the GPU of this rank, if there are any; a `UserError` with fewer GPUs than ranks."""
    if not torch.cuda.is_available():
        return
    mine, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if mine >= there:
        raise UserError(
            f"{_name()} is process {mine + 1} of its machine, which has {there} GPUs: start no "
            "more processes there than GPUs"
        )
    torch.cuda.set_device(mine)


def _broadcast(task: WorkerSetup | CellTask | None) -> None:
    """Send a task to all other ranks; None: that there are no more."""
    with _lost_rank_told():
        dist.broadcast_object_list([task], src=0)


def _received() -> WorkerSetup | CellTask | None:
    """The next task from the first rank; None where there are no more or that rank is gone."""
    received: list[Any] = [None]
    try:
        dist.broadcast_object_list(received, src=0)
    except RuntimeError:
        return None
    task: WorkerSetup | CellTask | None = received[0]
    return task


def _gather(mine: Share | UserError) -> list[Share]:
    """The shares of all ranks, in the first one; raises the error that another rank answers."""
    answers: list[Any] = [None] * dist.get_world_size()
    with _lost_rank_told():
        dist.gather_object(mine, answers, dst=0)
    for answer in answers:
        if isinstance(answer, UserError):
            raise answer
    return answers


def _answer(answer: Share | UserError) -> None:
    with suppress(RuntimeError):  # the first rank is gone, as receiving the next task will show
        dist.gather_object(answer, dst=0)


@contextmanager
def _lost_rank_told() -> Iterator[None]:
    try:
        yield
    except RuntimeError:
        raise UserError(
            "a process that torchrun has started is gone: run the same command again to go on with "
            "the cells that are left"
        ) from None
