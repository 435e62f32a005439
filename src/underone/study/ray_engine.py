"""A study's cells on a Ray cluster, by as many workers as fit, each one cell at a time."""

import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util import ActorPool

from underone.errors import UserError, first_line
from underone.study.bench import Bench
from underone.study.cell import Cell, Divergence, Outcome, run_cell
from underone.study.engine import OnImages, WorkerSetup

# A cell whose worker dies is run again, up to this many times.
_RETRIES = 3


class Worker:
    """Runs cells in a process of the cluster; their bench is loaded with the first.

    `folder` is where the study was begun, for relative names of files.
    """

    def __init__(self, setup: WorkerSetup, folder: Path) -> None:
        self._setup = setup
        self._folder = folder

    @cached_property
    def _bench(self) -> Bench:
        with suppress(OSError):
            os.chdir(self._folder)
        return self._setup.opened(f"the worker on {socket.gethostname()}")

    def run(self, cell: Cell) -> Outcome | Divergence:
        """Draw and measure a cell."""
        return run_cell(cell, self._bench)


@dataclass(frozen=True)
class RayEngine:
    """Deals cells to `workers`, actors of Ray, each taking the next as soon as it is done."""

    workers: Sequence[Any]

    def run(self, cells: Sequence[Cell], on_images: OnImages) -> Iterator[Outcome | Divergence]:
        """The outcomes in the order they are done; a cell's images are reported at its end."""
        pool = ActorPool(list(self.workers))
        outcomes = pool.map_unordered(lambda worker, cell: worker.run.remote(cell), list(cells))
        with _plain_errors():
            for outcome in outcomes:
                on_images(outcome.cell, outcome.cell.draw.count)
                yield outcome


@contextmanager
def open_ray(setup: WorkerSetup, workers: int | None = None) -> Iterator[RayEngine]:
    """Workers on the cluster of RAY_ADDRESS or one running here, or else on one started for this.

    There are as many as fit, unless `workers` is given. Each takes a CPU for every thread and one
    GPU where the cluster has any.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    _connect()
    try:
        gpus = int(ray.cluster_resources().get("GPU", 0) >= 1)
        if gpus:
            setup = replace(setup, device="cuda")
        needs = {"CPU": setup.threads, "GPU": gpus}
        actor = ray.remote(Worker).options(
            num_cpus=needs["CPU"],
            num_gpus=needs["GPU"],
            max_restarts=-1,
            max_task_retries=_RETRIES,
        )
        count = _count(workers, needs)
        yield RayEngine([actor.remote(setup, Path.cwd()) for _ in range(count)])
    finally:
        ray.shutdown()


def _connect() -> None:
    address = os.environ.get("RAY_ADDRESS", "")
    # Ray itself would try an address for ten minutes.
    if ":" in address and not _listens(address.rpartition("/")[2]):
        raise _no_cluster(f"nothing answers at {address}")
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # what Ray raises where it cannot start has no narrower type
        raise _no_cluster(first_line(error)) from None


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError):
        return False
    return True


def _no_cluster(reason: str) -> UserError:
    return UserError(
        f"no Ray cluster ({reason}): start one, or set RAY_ADDRESS=local for one on this machine "
        "alone"
    )


def _count(asked: int | None, needs: Mapping[str, int]) -> int:
    """The number of workers to start: as many as asked for, or as fit; at least one must fit."""
    room = sum(_fitting(node, needs) for node in ray.nodes() if node["Alive"])
    count = asked or max(1, room)
    if count > room:
        raise UserError(
            f"the Ray cluster has room for {room} workers of {needs['CPU']} threads each, not for "
            f"{count}: ask for fewer --workers, or begin the study with fewer threads "
            "(OMP_NUM_THREADS)"
        )
    return count


def _fitting(node: Mapping[str, Any], needs: Mapping[str, int]) -> int:
    """The number of workers that fit on a node."""
    has = node["Resources"]
    return min(int(has.get(name, 0)) // number for name, number in needs.items() if number)


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Raise a worker's `UserError` itself, in place of Ray's report of it."""
    try:
        yield
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise UserError(str(error.cause)) from None
        raise
    except RayError:
        raise UserError(
            f"a cell has lost its Ray worker {1 + _RETRIES} times, for lack of memory or because "
            "the cluster is gone: run the same command again to go on with the cells that are left"
        ) from None
