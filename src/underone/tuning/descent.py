"""Stochastic descent of the distance between what a sampler makes and what the data are."""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from underone.tuning.features import Sight, together
from underone.tuning.freedoms import Freedoms
from underone.tuning.task import BATCH, Task

# The batches whose features the distance is taken over, beside the newest, which has gradients.
_REMEMBERED = 24
# By so many batches a start is judged, and by so many what begins and ends the descent.
CHOOSING, JUDGED = 5, 16
# What was learned already needs smaller steps: what these add is noise, too.
_LEARNING_RATE, _FURTHER_RATE, _BETAS, _WARMUP = 0.005, 0.002, (0.9, 0.99), 10
# The share of the time, at its end, over which the freedoms are averaged.
_AVERAGED = 0.4
# The first of the samples by which the freedoms are judged, and of those remembered at the start.
_JUDGING, _FILLING = 2**62, 2**60


@dataclass
class State:
    """Where tuning stands, which changes as it goes: after `iterations` in `seconds`.

    `average` is the mean of `averaged` freedoms late in the run; `before` is the distance at the
    `start`, by the samples that also judge the end; `learned` says whether that was a neighbour's.
    What Adam remembers is not kept: a tuning that goes on warms up again.
    """

    start: Freedoms
    learned: bool
    freedoms: Freedoms
    average: Freedoms
    averaged: int = 0
    iterations: int = 0
    seconds: float = 0.0
    before: float | None = None


@dataclass(frozen=True)
class Progress:
    """What a watcher is told after an iteration; `distance` is that of the latest batches."""

    seconds: float
    distance: float


@torch.no_grad()
def judged(task: Task, freedoms: Freedoms, batches: int) -> float:
    """The distance of what `freedoms` make, from samples that no iteration sees."""
    return task.reference(together(_seen(task, freedoms, _JUDGING, batches))).item()


def begun(task: Task) -> State:
    """A tuning that starts from the best of the task's starts."""
    starts = [(start, False) for start in task.classical_starts()]
    starts += [(start, True) for start in task.learned_starts()]
    start, learned = min(starts, key=lambda each: judged(task, each[0], CHOOSING))
    return State(start, learned, start, start)


def descend(task: Task, state: State, budget: float) -> Iterator[Progress]:
    """Advance `state` by iterations of Adam until they have taken `budget` seconds in all.

    An iteration draws a batch and takes the distance over its features together with those of the
    batches before, which are a little out of date, but make many of few. The rate warms up, and
    decays to 0 linearly in time.
    """
    if state.before is None:
        state.before = judged(task, state.freedoms, JUDGED)
    leaves = [tensor.clone().requires_grad_() for tensor in state.freedoms.tensors()]
    freedoms = Freedoms(*leaves)
    rate = _FURTHER_RATE if state.learned else _LEARNING_RATE
    optimizer = torch.optim.Adam(leaves, lr=rate, betas=_BETAS)
    first = BATCH * state.iterations
    with torch.no_grad():
        remembered = deque(_seen(task, freedoms, _FILLING + first, _REMEMBERED), maxlen=_REMEMBERED)
    resumed, started = state.iterations, time.monotonic() - state.seconds
    while (seconds := time.monotonic() - started) < budget:
        share = seconds / budget
        warmth = min(1.0, (state.iterations - resumed + 1) / _WARMUP)
        for group in optimizer.param_groups:
            group["lr"] = rate * warmth * (1 - share)
        seen = task.seen(freedoms, BATCH * state.iterations)
        distance = task.reference(together([seen, *remembered]))
        optimizer.zero_grad()
        distance.backward()
        optimizer.step()
        remembered.append(seen.detached())
        state.freedoms = Freedoms(*(leaf.detach().clone() for leaf in leaves))
        state.iterations += 1
        if share < 1 - _AVERAGED:
            state.averaged = 0  # also what was averaged towards the end of a shorter time
        else:
            state.averaged += 1
            state.average = _mixed(state.average, state.freedoms, 1 / state.averaged)
        state.seconds = time.monotonic() - started
        yield Progress(state.seconds, distance.item())
    # What ran out may have run out after the last iteration, while it was shown and saved.
    state.seconds = max(state.seconds, budget)


def _seen(task: Task, freedoms: Freedoms, first: int, batches: int) -> list[Sight]:
    """What is seen in so many batches from sample `first` on."""
    return [task.seen(freedoms, first + BATCH * i) for i in range(batches)]


def _mixed(one: Freedoms, other: Freedoms, share: float) -> Freedoms:
    return Freedoms(
        *(torch.lerp(a, b, share) for a, b in zip(one.tensors(), other.tensors(), strict=True))
    )
