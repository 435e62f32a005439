"""The one loop, and the sample sets drawn through it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from helpers import (
    FIRST_ORDER,
    draws,
    each_first_order_sampler,
    float64,
    normal,
    run,
    small_unet,
)
from underone.conformance.oracles import Mixture, SingleImage, plane_mixture
from underone.data import to_uint8
from underone.diffusion import (
    DDIM,
    DDPM,
    Batch,
    Bound,
    ClassifierFree,
    Denoiser,
    DPMSolver,
    Estimate,
    Heun,
    LinearBeta,
    NetworkDenoiser,
    NoiseStreams,
    Sampler,
    Step,
    Trailing,
    Uniform,
    UniPC,
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
class Recorder(Sampler):
    """A step that goes nowhere and notes what it was shown."""

    remembered: int | None
    steps: list[tuple[float, float, int, int, list[float]]] = field(default_factory=list)

    @property
    def history(self) -> int | None:
        return self.remembered

    def step(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
        times = [estimate.node.t.item() for estimate in at.past]
        self.steps.append((at.now.t.item(), at.to.t.item(), at.left, at.total, times))
        return x, at.evaluate(x)

    def finish(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
        return self.step(x, at)


def drawn(batches: Iterator[Batch]) -> Tensor:
    return torch.cat([batch.x for batch in batches])


@pytest.mark.parametrize("history", [0, 1, 2, 3, 4, None])
def test_a_step_sees_now_next_and_the_history_it_asked_for(history: int | None) -> None:
    path = nodes(Trailing(), SCHEDULE, 6)
    sampler = Recorder(history)
    run(plane_mixture(SCHEDULE), sampler, path, normal(1, 2), draws(1, 2))
    times = [node.t.item() for node in path]
    for i, seen in enumerate(sampler.steps):
        first = 0 if history is None else max(0, i - history)
        assert seen == (times[i], times[i + 1], 6 - i, 6, times[first:i])
    assert len(sampler.steps) == 6


@each_first_order_sampler
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_the_loop_yields_an_estimate_a_node_and_the_result_last(
    sampler: Sampler, steps: int
) -> None:
    path = nodes(Uniform(), SCHEDULE, steps)
    x = normal(3, 2)
    states = run(plane_mixture(SCHEDULE), sampler, path, x, draws(3, 2))
    assert [state.node for state in states] == path
    assert torch.equal(states[0].x, x)
    for state in states[:-1]:
        assert torch.equal(state.x0, plane_mixture(SCHEDULE)(state.x, state.node, None))
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
    oracle, x = plane_mixture(SCHEDULE), 0.5 * normal(16, 2)

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
        *_, last = integrate(Bound(plane_mixture(SCHEDULE), None), DDIM(0.5), path, x, noise)
        return last.x

    assert torch.autograd.gradcheck(result, normal(2, 2).requires_grad_())


@pytest.mark.parametrize("sampler", [DDPM("large"), DDIM(), Heun(), DPMSolver(3, eta=1), UniPC()])
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
                plane_mixture(SCHEDULE),
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
    guided: Denoiser = ClassifierFree(plane_mixture(SCHEDULE), weight, null_label=3)
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
        trajectory(
            plane_mixture(SCHEDULE), DDPM("small"), path, shape=(2,), keys=KEYS[:3], labels=None
        )
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
            plane_mixture(SCHEDULE),
            DDPM("small"),
            Uniform(),
            2,
            shape=(2,),
            keys=KEYS[:3],
            labels=None,
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
