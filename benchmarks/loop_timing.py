"""Sampling loops timed: with nothing in the place of the network, and on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import torch
from sampling_loops import Loop, Run, Subject
from torch import Tensor, nn

# Runs without the network are short, so there can be many: this many rounds a repetition.
ROUNDS_ALONE = 10


class Watched(nn.Module):
    """A network, with a record of each call's batch size and of the time spent inside."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.rows: list[int] = []
        self.seconds = 0.0

    def forward(self, x: Tensor, condition: Tensor, label: Tensor) -> Tensor:
        started = perf_counter()
        output: Tensor = self.network(x, condition, label)
        self.seconds += perf_counter() - started
        self.rows.append(len(x))
        return output


class Instant(nn.Module):
    """In the network's place: a ready output, at once."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor, condition: Tensor, label: Tensor) -> Tensor:
        return self.output if len(x) == len(self.output) else self.output[: len(x)]


@dataclass(frozen=True)
class Timing:
    """The seconds of one run, in all and inside the network, and the batch size of each call."""

    total: float
    inside: float
    rows: tuple[int, ...]
    batch: int

    @property
    def evaluations(self) -> float:
        """Of a whole batch."""
        return sum(self.rows) / self.batch

    @property
    def in_whole_batches(self) -> bool:
        return set(self.rows) == {self.batch}

    @property
    def loop(self) -> float:
        """Seconds outside the network, an evaluation."""
        return (self.total - self.inside) / self.evaluations


def timed(run: Run, watched: Watched, batch: int) -> Timing:
    watched.rows, watched.seconds = [], 0.0
    total = seconds_of(run)
    return Timing(total, watched.seconds, tuple(watched.rows), batch)


def seconds_of(run: Run) -> float:
    started = perf_counter()
    run()
    return perf_counter() - started


def bare_calls(subject: Subject, rows: Sequence[int]) -> Run:
    """Calls of the network itself, with ready inputs of these batch sizes."""
    inputs = {
        count: (subject.x[:count], subject.condition[:count], subject.labels[:count])
        for count in set(rows)
    }

    def run() -> None:
        with torch.no_grad(), subject.autocast():
            for count in rows:
                subject.model.network(*inputs[count])

    return run


def ready_output(subject: Subject) -> Tensor:
    with torch.no_grad(), subject.autocast():
        output: Tensor = subject.model.network(subject.x, subject.condition, subject.labels)
    return output


def measure_alone(subject: Subject, loops: Sequence[Loop], rounds: int) -> dict[str, list[Timing]]:
    """Every loop without the network, all of them in turn, round after round."""
    watched = Watched(Instant(ready_output(subject)))
    runs = {loop.title: loop.bind(watched) for loop in loops}
    for run in runs.values():  # not measured: what is made once, and memory, is then in place
        run()
    timings: dict[str, list[Timing]] = {title: [] for title in runs}
    for _ in range(rounds):
        for title, run in runs.items():
            timings[title].append(timed(run, watched, subject.batch))
    return timings


@dataclass(frozen=True)
class Pair:
    """A run on the network, and as many bare calls beside it."""

    whole: Timing
    bare: float


def measure_on_network(
    subject: Subject, loops: Sequence[Loop], repetitions: int
) -> dict[str, list[Pair]]:
    """Every loop on the network beside bare calls, in turn first and second."""
    watched = Watched(subject.model.network)
    runs: dict[str, tuple[Run, Run]] = {}
    for loop in loops:
        run = loop.bind(watched)
        timed(run, watched, subject.batch)  # which also tells what to call barely
        runs[loop.title] = run, bare_calls(subject, watched.rows)
    pairs: dict[str, list[Pair]] = {title: [] for title in runs}
    for repetition in range(repetitions):
        for title, (run, bare) in runs.items():
            first = seconds_of(bare) if repetition % 2 else None
            whole = timed(run, watched, subject.batch)
            pairs[title].append(Pair(whole, seconds_of(bare) if first is None else first))
    return pairs
