"""The one loop, and the sample sets drawn through it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from helpers import (
    FIRST_ORDER,
    draws,
    each_sampler,
    float64,
    mixture,
    normal,
    run,
    small_unet,
)
from oracles import Mixture, SingleImage
from underone.data import to_uint8
from underone.diffusion import (
    DDIM,
    DDPM,
    Batch,
    Bound,
    ClassifierFree,
    Denoiser,
    Estimate,
    LinearBeta,
    Model,
    NetworkDenoiser,
    Node,
    NoiseStreams,
    Sampler,
    Trailing,
    Uniform,
    Velocity,
    count_evaluations,
    integrate,
    node_at,
    nodes,
    sample,
    trajectory,
)

SCHEDULE = LinearBeta()
KEYS = [(7, index) for index in range(64)]


@dataclass(frozen=True)
class Recorder:
    """A step that goes nowhere and notes what it was shown."""

    history: int | None
    steps: list[tuple[float, float, list[float]]] = field(default_factory=list)

    def step(
        self,
        x: Tensor,
        now: Node,
        to: Node,
        past: Sequence[Estimate],
        model: Model,
        noise: Callable[[], Tensor],
    ) -> tuple[Tensor, Estimate]:
        self.steps.append(
            (now.t.item(), to.t.item(), [estimate.node.t.item() for estimate in past])
        )
        return x, model(x, now)

    def finish(
        self,
        x: Tensor,
        now: Node,
        past: Sequence[Estimate],
        model: Model,
        noise: Callable[[], Tensor],
    ) -> tuple[Tensor, Estimate]:
        return self.step(x, now, node_at(SCHEDULE, float64(0)), past, model, noise)


def drawn(batches: Iterator[Batch]) -> Tensor:
    return torch.cat([batch.x for batch in batches])


@pytest.mark.parametrize("history", [0, 1, 2, 3, 4, None])
def test_a_step_sees_now_next_and_the_history_it_asked_for(history: int | None) -> None:
    path = nodes(Trailing(), SCHEDULE, 6)
    sampler = Recorder(history)
    run(mixture(SCHEDULE), sampler, path, normal(1, 2), draws(1, 2))
    times = [node.t.item() for node in path]
    for i, (now, to, past) in enumerate(sampler.steps):
        first = 0 if history is None else max(0, i - history)
        assert (now, to, past) == (times[i], times[i + 1], times[first:i])
    assert len(sampler.steps) == 6


@each_sampler
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_the_loop_yields_an_estimate_a_node_and_the_result_last(
    sampler: Sampler, steps: int
) -> None:
    path = nodes(Uniform(), SCHEDULE, steps)
    x = normal(3, 2)
    states = run(mixture(SCHEDULE), sampler, path, x, draws(3, 2))
    assert [state.node for state in states] == path
    assert torch.equal(states[0].x, x)
    for state in states[:-1]:
        assert torch.equal(state.x0, mixture(SCHEDULE)(state.x, state.node, None))
    assert torch.equal(states[-1].x, states[-1].x0)
    assert torch.equal(states[-1].x, states[-2].x0)


def test_ddim_keeps_the_noise_it_started_from() -> None:
    image, start = float64([0.4, -0.9]), normal(3, 2)
    path = nodes(Trailing(), SCHEDULE, 20)
    x = path[0].alpha * image + path[0].sigma * start
    for state in run(SingleImage(SCHEDULE, image), DDIM(), path, x, draws(3, 2))[:-1]:
        expected = state.node.alpha * image + state.node.sigma * start
        torch.testing.assert_close(state.x, expected, rtol=0, atol=1e-12)


def test_ddim_runs_backwards_to_the_noise_an_image_came_from() -> None:
    oracle, x = mixture(SCHEDULE), 0.5 * normal(16, 2)

    def returned(steps: int) -> float:
        times = torch.linspace(1e-3, 1, steps + 1, dtype=torch.float64)
        up = [node_at(SCHEDULE, t) for t in times]
        noise = run(oracle, DDIM(), up, x, draws(16, 2))[-1].x
        assert 0.5 < noise.std() < 2
        back = run(oracle, DDIM(), up[::-1], noise, draws(16, 2))[-1].x
        return (back - x).norm().item()

    errors = [returned(steps) for steps in (50, 100, 200)]
    assert all(0.4 < after / before < 0.6 for before, after in pairwise(errors))  # order 1
    assert errors[-1] < 0.1


def test_the_loop_is_differentiable_in_x() -> None:
    path = nodes(Trailing(), SCHEDULE, 4)

    def result(x: Tensor) -> Tensor:
        noise = draws(2, 2)
        *_, last = integrate(Bound(mixture(SCHEDULE), None), DDIM(0.5), path, x, noise)
        return last.x

    assert torch.autograd.gradcheck(result, normal(2, 2).requires_grad_())


@each_sampler
def test_nothing_is_remembered_between_or_across_runs(sampler: Sampler) -> None:
    oracle = mixture(SCHEDULE)

    def states(steps: int, seed: int) -> Iterator[Estimate]:
        path = nodes(Trailing(), SCHEDULE, steps)
        x, noise = normal(4, 2, seed=seed), draws(4, 2, seed=seed)
        return integrate(Bound(oracle, None), sampler, path, x, noise)

    first = [state.x for state in states(9, 0)]
    list(states(5, 1))
    interleaved = [state.x for state, _ in zip(states(9, 0), states(9, 1), strict=True)]
    for before, after in zip(first, interleaved, strict=True):
        assert torch.equal(before, after)


@each_sampler
def test_a_batch_of_1_equals_a_batch_of_64(sampler: Sampler) -> None:
    denoiser = NetworkDenoiser(small_unet(), SCHEDULE, Velocity())
    labels = torch.arange(64) % 3

    def at(batch_size: int) -> Tensor:
        return drawn(
            sample(
                denoiser,
                sampler,
                Trailing(),
                4,
                shape=(1, 8, 8),
                keys=KEYS,
                labels=labels,
                batch_size=batch_size,
            )
        )

    whole = at(64)
    assert whole.std(0).min() > 0.01  # 64 images, not one
    for batch_size in (1, 25):
        parts = at(batch_size)
        torch.testing.assert_close(parts, whole, rtol=0, atol=2e-5)
        assert (to_uint8(parts) == to_uint8(whole)).double().mean() >= 0.999


def test_a_sample_belongs_to_its_key_in_any_order() -> None:
    def at(keys: list[tuple[int, int]]) -> Tensor:
        return drawn(
            sample(
                mixture(SCHEDULE),
                DDPM(),
                Uniform(),
                5,
                shape=(2,),
                keys=keys,
                labels=None,
                batch_size=3,
            )
        )

    keys = [(0, 0), (0, 1), (1, 0), (5, 2), (2, 5)]
    whole = at(keys)
    assert len(whole.unique(dim=0)) == 5
    torch.testing.assert_close(at(keys[::-1]).flip(0), whole, rtol=0, atol=1e-6)
    torch.testing.assert_close(at([(1, 0)]), whole[2:3], rtol=0, atol=1e-6)


def test_labels_stay_beside_their_keys() -> None:
    # One tight component a class, so that a sample tells its label.
    means = float64([[-2, 0], [0, 2], [2, 0]])
    oracle = Mixture(
        SCHEDULE, means, float64([0.05] * 3), float64([0.2, 0.3, 0.5]), torch.arange(3)
    )
    labels = torch.tensor([2, 0, 1, 1, 2, 0, 0])
    batches = list(
        sample(
            oracle,
            DDIM(),
            Trailing(),
            20,
            shape=(2,),
            keys=KEYS[:7],
            labels=labels,
            batch_size=3,
        )
    )
    assert [len(batch.x) for batch in batches] == [3, 3, 1]
    assert [key for batch in batches for key in batch.keys] == KEYS[:7]
    nearest = [torch.cdist(batch.x.double(), means).argmin(1) for batch in batches]
    assert torch.equal(torch.cat(nearest), labels)
    for batch, found in zip(batches, nearest, strict=True):
        assert batch.labels is not None
        assert torch.equal(batch.labels, found)


@pytest.mark.parametrize("sampler", FIRST_ORDER.values(), ids=FIRST_ORDER.keys())
@pytest.mark.parametrize(("weight", "passes"), [(0.0, 1), (-1.0, 1), (2.0, 2)])
def test_evaluations_are_counted_at_the_network(
    sampler: Sampler, weight: float, passes: int
) -> None:
    guided: Denoiser = ClassifierFree(mixture(SCHEDULE), weight, null_label=3)
    with count_evaluations() as evaluations:
        drawn(
            sample(
                guided,
                sampler,
                Trailing(),
                6,
                shape=(2,),
                keys=KEYS[:5],
                labels=torch.tensor([0, 1, 2, 0, 1]),
                batch_size=2,
            )
        )
    assert evaluations == {"oracle": 5 * 6 * passes}


def test_a_trajectory_starts_from_sigma_times_the_first_draw_of_its_keys() -> None:
    path = nodes(Uniform(), SCHEDULE, 2)  # sigma is 0.96 there, not 1
    states = list(
        trajectory(mixture(SCHEDULE), DDPM("small"), path, shape=(2,), keys=KEYS[:3], labels=None)
    )
    noise = NoiseStreams(KEYS[:3], (2,))
    assert torch.equal(states[0].x, path[0].sigma * noise())
    now, to = path[0], path[1]
    added = now.sigma**2 - (now.alpha / to.alpha) ** 2 * to.sigma**2
    mean = (
        to.alpha * added * states[0].x0 + now.alpha / to.alpha * to.sigma**2 * states[0].x
    ) / now.sigma**2
    second = mean + (added * to.sigma**2 / now.sigma**2).sqrt() * noise()
    torch.testing.assert_close(states[1].x, second, rtol=0, atol=1e-6)
    result = drawn(
        sample(
            mixture(SCHEDULE), DDPM("small"), Uniform(), 2, shape=(2,), keys=KEYS[:3], labels=None
        )
    )
    assert torch.equal(states[-1].x, result)
    assert len(states) == 3


def test_samples_need_no_gradient() -> None:
    denoiser = NetworkDenoiser(small_unet(), SCHEDULE, Velocity())
    labels = torch.tensor([0, 1])
    (batch,) = sample(
        denoiser, DDIM(), Trailing(), 2, shape=(1, 8, 8), keys=KEYS[:2], labels=labels
    )
    assert not batch.x.requires_grad
    assert batch.x.dtype == torch.float32
