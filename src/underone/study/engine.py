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
        """The outcome of each of `cells`; `on_images` hears of images as they are drawn."""
        ...


@dataclass(frozen=True)
class LocalEngine:
    """One cell after another, in this process, on so many threads."""

    bench: Bench
    threads: int

    def run(self, cells: Sequence[Cell], on_images: OnImages) -> Iterator[Outcome | Divergence]:
        """The outcomes in order."""
        torch.set_num_threads(self.threads)
        for cell in cells:
            yield run_cell(cell, self.bench, partial(on_images, cell))


@dataclass(frozen=True)
class WorkerSetup:
    """What a process that works for another one needs to draw as that one does.

    It opens the bench by itself, from the study; `content` is what it must find there, `device`
    where its models draw, and `compiled` are those whose networks are compiled, if that is a CPU.
    `code` is what the user has named.
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
        """What makes another process draw as this one does."""
        return cls(study, threads, content_of(bench), compiled=compiled, code=named_code())

    def opened(self, worker: str) -> Bench:
        """The same bench, here; a `UserError` that names `worker` where it cannot be had."""
        name_code(self.code)
        try:
            bench = open_bench(self.study)
        except UserError as error:
            raise UserError(f"{worker}: {error}") from None
        found = content_of(bench)
        for name, value in self.content.items():
            if found.get(name) != value:
                raise UserError(
                    f"{worker} has another {name} than where the study was begun: all need the "
                    "same files and versions"
                )
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UserError(f"{worker} sees no GPU, but others draw on one: use machines alike")
        return self.prepared(bench)

    def prepared(self, bench: Bench) -> Bench:
        """`bench`, with which this process draws as all others do."""
        torch.set_num_threads(self.threads)
        for model in bench.models.values():
            place(model.network, self.device)
        return bench.with_compiled(self.compiled) if self.device == "cpu" else bench


def content_of(bench: Bench) -> dict[str, str]:
    """By name, a hash or version of all that decides a cell's result beside the cell."""
    judges = [by.judge.classifier for by in bench.yardsticks if by.judge is not None]
    return {
        **{f"model {name}": sha256 for name, sha256 in bench.model_hashes.items()},
        **{f"reference {name}": sha256 for name, sha256 in bench.reference_hashes.items()},
        **{f"extractor {name}": sha256 for name, sha256 in bench.extractor_hashes.items()},
        **{f"judge {judge.name}": judge.sha256 for judge in judges},
        "version of underone": underone.__version__,
        "version of torch": torch.__version__,
    }
