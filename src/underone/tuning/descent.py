"""Stochastic descent of the distance between what a sampler makes and what the data are."""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from underone.tuning.features import FeatureStatistics, merged
from underone.tuning.parameters import Parameters
from underone.tuning.task import BATCH, Task

# How many earlier batches the distance is taken over, beside the newest, which alone has gradients.
# More batches lower the variance, but come from parameters further back, and the descent
# overshoots.
_QUEUE_BATCHES = 7
# How many batches a start is chosen by, and how many validate the whole descent.
SELECTION_BATCHES, VALIDATION_BATCHES = 5, 32
# A start that was learned is close to its best already: larger steps would mostly add noise.
_LEARNING_RATE, _FURTHER_RATE, _BETAS, _WARMUP = 0.005, 0.002, (0.9, 0.99), 10
# Factors on the learning rate: of logarithms of gaps, of roots of etas, and of weights for each of
# the N steps, because a weight acts in proportion to the length of its step.
_FASTER_GAPS, _FASTER_ROOTS, _WEIGHTS_BY_STEPS = 3.0, 2.0, 1 / 5
# The last share of the time, over which the parameters are averaged.
_AVERAGED = 0.4
# The first sample of validation, of selection, and of the queue that a descent begins with.
_VALIDATION_FIRST, _SELECTION_FIRST, _QUEUE_FIRST = 2**62, 2**62 + 2**40, 2**60


@dataclass
class State:
    """How far a tuning has come, updated as it runs: `iterations` of them, in `seconds`.

    `average` is the mean of `averaged` parameters late in the run; `before` is the distance at the
    `start`, by the samples that also judge the end; `learned` says whether the start was learned
    for another number of steps. Adam's moments are not kept: a resumed tuning warms up again.
    """

    start: Parameters
    learned: bool
    parameters: Parameters
    average: Parameters
    averaged: int = 0
    iterations: int = 0
    seconds: float = 0.0
    before: float | None = None


@dataclass(frozen=True)
class Progress:
    """What is reported after an iteration; `distance` is that of the latest batches."""

    seconds: float
    distance: float


def validation_distance(task: Task, parameters: Parameters) -> float:
    """The distance of what `parameters` make, from samples that no iteration sees."""
    return _distance(task, parameters, _VALIDATION_FIRST, VALIDATION_BATCHES)


def selection_distance(task: Task, parameters: Parameters) -> float:
    """The same from other and fewer samples, by which a start is chosen."""
    return _distance(task, parameters, _SELECTION_FIRST, SELECTION_BATCHES)


@torch.no_grad()
def _distance(task: Task, parameters: Parameters, first: int, batches: int) -> float:
    return task.reference(merged(_statistics(task, parameters, first, batches))).item()


def initial_state(task: Task) -> State:
    """A tuning that starts from the best of the task's starts."""
    starts = [(start, False) for start in task.classical_starts()]
    starts += [(start, True) for start in task.learned_starts()]
    start, learned = min(starts, key=lambda each: selection_distance(task, each[0]))
    return State(start, learned, start, start)


def descend(task: Task, state: State, budget: float) -> Iterator[Progress]:
    """Advance `state` by iterations of Adam until they have taken `budget` seconds in all.

    An iteration draws a batch and takes the distance over its features and those of the batches
    before, which are slightly out of date, but make the estimate far less noisy. The learning rate
    warms up, and decays to 0 linearly in time.
    """
    if state.before is None:
        state.before = validation_distance(task, state.parameters)
    leaves = [tensor.clone().requires_grad_() for tensor in state.parameters.tensors()]
    parameters = Parameters(*leaves)
    rate = _FURTHER_RATE if state.learned else _LEARNING_RATE
    faster = (_FASTER_GAPS, _FASTER_ROOTS, max(1.0, task.steps * _WEIGHTS_BY_STEPS), 1.0)
    groups = [{"params": [leaf], "faster": by} for leaf, by in zip(leaves, faster, strict=True)]
    optimizer = torch.optim.Adam(groups, lr=rate, betas=_BETAS)
    first = BATCH * state.iterations
    with torch.no_grad():
        queue = deque(
            _statistics(task, parameters, _QUEUE_FIRST + first, _QUEUE_BATCHES),
            maxlen=_QUEUE_BATCHES,
        )
    resumed, started = state.iterations, time.monotonic() - state.seconds
    while (seconds := time.monotonic() - started) < budget:
        share = seconds / budget
        warmth = min(1.0, (state.iterations - resumed + 1) / _WARMUP)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["faster"] * warmth * (1 - share)
        newest = task.statistics(parameters, BATCH * state.iterations)
        distance = task.reference(merged([newest, *queue]))
        optimizer.zero_grad()
        distance.backward()
        optimizer.step()
        queue.append(newest.detached())
        state.parameters = Parameters(*(leaf.detach().clone() for leaf in leaves))
        state.iterations += 1
        if share < 1 - _AVERAGED:
            state.averaged = 0  # drops an average from the end of an earlier, shorter budget
        else:
            state.averaged += 1
            state.average = lerp(state.average, state.parameters, 1 / state.averaged)
        state.seconds = time.monotonic() - started
        yield Progress(state.seconds, distance.item())
    # The budget may have run out after the last iteration, while it was shown and saved.
    state.seconds = max(state.seconds, budget)


def _statistics(
    task: Task, parameters: Parameters, first: int, batches: int
) -> list[FeatureStatistics]:
    """The statistics of each of `batches` batches, from sample `first` on."""
    return [task.statistics(parameters, first + BATCH * i) for i in range(batches)]


def lerp(one: Parameters, other: Parameters, share: float) -> Parameters:
    """one + share (other - one), of all parameters."""
    return Parameters(
        *(torch.lerp(a, b, share) for a, b in zip(one.tensors(), other.tensors(), strict=True))
    )
