"""Where cells run: in this process, or wherever another engine sends them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch

import underone
from underone.errors import UserError
from underone.modules import name_code, named_code
from underone.networks.precision import place
from underone.study.bench import Bench, open_bench
from underone.study.cell import Cell, Divergence, Outcome, run_cell
from underone.study.definition import Study

OnImages = Callable[[Cell, int], object]


class Engine(Protocol):
    """Runs cells and yields each as it is done, in any order."""

    def run(self, cells: Sequence[Cell], on_images: OnImages) -> Iterator[Outcome | Divergence]:
        """The outcome of each of `cells`; `on_images` is told of images as they are drawn."""
        ...


@dataclass(frozen=True)
class LocalEngine:
    """One cell after another, in this process."""

    bench: Bench
    threads: int

    def run(self, cells: Sequence[Cell], on_images: OnImages) -> Iterator[Outcome | Divergence]:
        """The outcomes in order."""
        torch.set_num_threads(self.threads)
        for cell in cells:
            yield run_cell(cell, self.bench, partial(on_images, cell))


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker process needs in order to draw as the process that started it.

    It opens the bench itself, from the study, and must find the same `content`. Its models draw on
    `device`; on a CPU the networks of those in `compiled` are compiled. `code` is what the user has
    named.
    """

    study: Study
    threads: int
    content: Mapping[str, str]
    device: str = "cpu"
    compiled: tuple[str, ...] = ()
    code: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, study: Study, bench: Bench, threads: int, compiled: tuple[str, ...] = ()
    ) -> "WorkerSetup":
        """The setup for workers to draw as this process does."""
        return cls(study, threads, content_of(bench), compiled=compiled, code=named_code())

    def opened(self, worker: str) -> Bench:
        """The same bench in this process; a `UserError` that names `worker` where it differs."""
        name_code(self.code)
        try:
            bench = open_bench(self.study)
        except UserError as error:
            raise UserError(f"{worker}: {error}") from None
        found = content_of(bench)
        for name, value in self.content.items():
            if found.get(name) != value:
                raise UserError(
                    f"{worker} has another {name} than where the study was begun: give all workers "
                    "the same files and versions"
                )
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UserError(
                f"{worker} finds no GPU, but others draw on one: use GPUs on all machines or none"
            )
        return self.prepared(bench)

    def prepared(self, bench: Bench) -> Bench:
        """`bench` on the device, threads and compiled networks that all workers use."""
        torch.set_num_threads(self.threads)
        for model in bench.models.values():
            place(model.network, self.device)
        return bench.with_compiled(self.compiled) if self.device == "cpu" else bench


def content_of(bench: Bench) -> dict[str, str]:
    """By name, the hash or version of everything but the cell that its result depends on."""
    judges = [by.judge.classifier for by in bench.yardsticks if by.judge is not None]
    return {
        **{f"model {name}": sha256 for name, sha256 in bench.model_hashes.items()},
        **{f"reference {name}": sha256 for name, sha256 in bench.reference_hashes.items()},
        **{f"extractor {name}": sha256 for name, sha256 in bench.extractor_hashes.items()},
        **{f"judge {judge.name}": judge.sha256 for judge in judges},
        "version of underone": underone.__version__,
        "version of torch": torch.__version__,
    }
