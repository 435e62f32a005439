"""Distillation: what students minimise, and the steps they take."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from helpers import AsNetwork, SmoothNetwork, draws, float64, generator, normal
from underone.checkpoint import DiffusionModel
from underone.conformance.oracles import Mixture
from underone.diffusion import (
    DDIM,
    Bound,
    Clipped,
    Consistency,
    DPMSolver,
    Karras,
    LinearBeta,
    LogSNR,
    NetworkDenoiser,
    Node,
    Noise,
    Preconditioned,
    integrate,
    node_at,
    nodes,
)
from underone.errors import UserError
from underone.training.distillation import EasyConsistencyTuning, Student, TrajectoryDistillation
from underone.training.energy_distance import EnergyDistance
from underone.training.recipe import ConsistencyTuning, Trajectories
from underone.tuning.features import NetworkFeatures

SCHEDULE = LinearBeta()
DEVIATION = 0.7
STUDENT = Student(SCHEDULE, Preconditioned(DEVIATION), conditional=True, autocast=None)


def no_noise() -> Tensor:
    raise AssertionError


def one_image(shape: tuple[int, ...] = (1, 1, 4, 4)) -> Mixture:
    """Data that are a single image: whatever x is, its x0 is that."""
    image = 0.8 * torch.tanh(normal(*shape).float())
    return Mixture(SCHEDULE, image, float64([1e-9]), float64([1.0]), torch.tensor([0]))


def as_network(oracle: Mixture) -> nn.Module:
    return AsNetwork(oracle, Preconditioned(DEVIATION))


def following(teacher: NetworkDenoiser, evaluations: int, inner: int) -> TrajectoryDistillation:
    path = nodes(Karras(), SCHEDULE, evaluations * (inner + 1))
    return TrajectoryDistillation(STUDENT, Clipped(teacher), path, inner + 1)


def smooth_denoiser(network: nn.Module) -> NetworkDenoiser:
    return NetworkDenoiser(network, SCHEDULE, Preconditioned(DEVIATION))


# Trajectories.


@pytest.mark.parametrize("evaluations", [1, 2, 3])
def test_one_image_is_followed_without_loss(evaluations: int) -> None:
    oracle = one_image()
    path = nodes(Karras(), SCHEDULE, 4 * evaluations)
    objective = TrajectoryDistillation(STUDENT, oracle, path, 4)
    images = oracle.means.expand(6, 1, 4, 4)
    loss = objective(as_network(oracle), images, torch.zeros(6, dtype=torch.int64), generator())
    assert loss.item() < 1e-4


def test_the_loss_is_the_distance_to_the_teachers_states() -> None:
    teacher, student = SmoothNetwork(0), SmoothNetwork(1)
    objective = following(smooth_denoiser(teacher), 2, 3)
    images, labels = torch.zeros(5, 1, 6, 6), torch.arange(5) % 3
    loss = objective(student, images, labels, generator(7))

    x = objective.path[0].sigma * torch.randn(images.shape, generator=generator(7))
    known = Bound(Clipped(smooth_denoiser(teacher)), labels)
    states = [e.x for e in integrate(known, DPMSolver(3), objective.path, x, no_noise)]
    coarse = [objective.path[0], objective.path[4], objective.path[8]]
    taken = Bound(Clipped(smooth_denoiser(student)), labels)
    steps = [e.x for e in integrate(taken, DDIM(), coarse, x, no_noise)]
    assert len(states) == 9
    expected = sum((steps[k] - states[4 * k]).abs().mean() for k in (1, 2))
    torch.testing.assert_close(loss, expected)


def test_no_gradient_passes_through_an_earlier_step() -> None:
    student = SmoothNetwork(1)
    objective = following(smooth_denoiser(SmoothNetwork(0)), 2, 1)
    images, labels = torch.zeros(4, 1, 6, 6), torch.arange(4) % 3
    objective(student, images, labels, generator()).backward()
    found = [parameter.grad for parameter in student.parameters()]

    x = objective.path[0].sigma * torch.randn(images.shape, generator=generator())
    denoiser = Bound(Clipped(smooth_denoiser(student)), labels)
    targets = objective._targets(x, labels)
    total = [torch.zeros_like(parameter) for parameter in student.parameters()]
    for k in range(2):
        here, there = objective.path[2 * k], objective.path[2 * k + 2]
        *_, last = integrate(denoiser, DDIM(), (here, there), x, no_noise)
        loss = (last.x - targets[k + 1].x).abs().mean()
        gradients = torch.autograd.grad(loss, list(student.parameters()))
        total = [a + b for a, b in zip(total, gradients, strict=True)]
        x = last.x.detach()
    for a, b in zip(found, total, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.slow
def test_a_student_ends_nearer_to_the_teachers_end_than_its_teacher_in_as_few_steps() -> None:
    """On noise it has not seen."""
    teacher = SmoothNetwork(0)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.mul_(2)
    student = SmoothNetwork(0)
    student.load_state_dict(teacher.state_dict())
    objective = following(smooth_denoiser(teacher), 2, 7)
    optimizer = torch.optim.Adam(student.parameters(), lr=3e-3)
    draw = generator(1)
    for _ in range(200):
        labels = torch.randint(3, (32,), generator=draw)
        optimizer.zero_grad()
        objective(student, torch.zeros(32, 1, 6, 6), labels, draw).backward()
        optimizer.step()

    labels = torch.arange(64) % 3
    x = objective.path[0].sigma * torch.randn(64, 1, 6, 6, generator=generator(2))
    end = objective._targets(x, labels)[-1].x

    @torch.no_grad()
    def distance(network: nn.Module) -> float:
        bound = Bound(Clipped(smooth_denoiser(network)), labels)
        *_, last = integrate(bound, DDIM(), objective.path[::8], x, no_noise)
        return (last.x - end).abs().mean().item()

    assert distance(student) < 0.5 * distance(teacher)


def test_with_likeness_the_ends_are_compared_with_the_batch(small_model: DiffusionModel) -> None:
    student = SmoothNetwork(1)
    plain = following(smooth_denoiser(SmoothNetwork(0)), 2, 1)
    energy_distance = EnergyDistance(NetworkFeatures(small_model, None))
    both = replace(plain, likeness=3.0, energy_distance=energy_distance)
    images, labels = 0.5 * normal(6, 1, 28, 28).float(), torch.arange(6) % 3
    draw = generator(4)
    expected = plain(student, images, labels, draw)
    x = plain.path[0].sigma * torch.randn(images.shape, generator=generator(4))
    denoiser = Bound(Clipped(smooth_denoiser(student)), labels)
    *_, last = integrate(denoiser, DDIM(), plain.path[::2], x, no_noise)
    expected = expected + 3 * energy_distance(last.x.clamp(-1, 1), images, labels, draw)
    torch.testing.assert_close(both(student, images, labels, generator(4)), expected)


# Consistency.


def tuning(closeness: float = 256.0) -> EasyConsistencyTuning:
    return EasyConsistencyTuning(STUDENT, DEVIATION, -1.1, 2.0, closeness)


def test_where_there_is_one_image_every_estimate_agrees_already() -> None:
    oracle = one_image()
    images = oracle.means.expand(64, 1, 4, 4)
    labels = torch.zeros(64, dtype=torch.int64)
    assert tuning(4)(as_network(oracle), images, labels, generator()).item() < 1e-3


def test_compared_with_the_image_itself_it_is_a_denoiser_in_another_norm() -> None:
    """So far apart that every lower level is 0."""
    network, images = SmoothNetwork(0), 0.5 * normal(32, 1, 6, 6).float()
    labels = torch.arange(32) % 3
    objective = tuning(closeness=1.0)
    loss = objective(network, images, labels, generator(3))
    draw = generator(3)
    levels = objective._levels(32, draw)
    noise = torch.randn(images.shape, generator=draw)
    node = objective._node(levels)
    x = node.alpha.float()[:, None, None, None] * images
    x = x + node.sigma.float()[:, None, None, None] * noise
    distance = (smooth_denoiser(network)(x, node, labels) - images).flatten(1).norm(dim=1)
    torch.testing.assert_close(loss, (distance / levels).mean().float())


def test_levels_are_log_normal_in_units_of_twice_the_data_and_within_the_schedule() -> None:
    objective = tuning()
    levels = objective._levels(4096, generator())
    noisiest = node_at(SCHEDULE, float64(1.0)).noise_ratio / (2 * DEVIATION)
    assert (levels > 0).all()
    assert levels.max() <= noisiest
    assert levels.median().log().item() == pytest.approx(-1.1, abs=2e-3)
    logs = levels.log().sort().values
    assert (logs[3447] - logs[648]).item() / 2 == pytest.approx(2.0, abs=0.01)  # +- 1 deviation
    inside = levels[(levels > 0.02) & (levels < 50)]
    node = objective._node(inside)
    torch.testing.assert_close(node.noise_ratio, inside * 2 * DEVIATION)


def test_the_lower_level_is_the_published_one() -> None:
    """t (1 - n(t) / q), n(t) = 1 + 8 sigmoid(-t): how far apart two levels are compared."""
    asked: list[Node] = []

    class Watched(SmoothNetwork):
        def forward(self, x: Tensor, condition: Tensor, label: Tensor | None) -> Tensor:
            asked.append(node_at(SCHEDULE, condition.double() / 1000))
            return super().forward(x, condition, label)

    images = torch.zeros(256, 1, 4, 4)
    tuning(16.0)(Watched(), images, torch.zeros(256, dtype=torch.int64), generator())
    low, high = (node.noise_ratio / (2 * DEVIATION) for node in asked)
    chosen = (low > 0.02) & (high < 50)
    high, low = high[chosen], low[chosen]
    expected = high * (1 - (1 + 8 / (1 + high.exp())) / 16)
    assert len(high) > 100
    torch.testing.assert_close(low, expected, rtol=1e-3, atol=1e-5)


def test_the_second_estimate_is_the_goal_not_the_student() -> None:
    """No gradient passes through it, and both drop the same features."""

    class Dropping(SmoothNetwork):
        def forward(self, x: Tensor, condition: Tensor, label: Tensor | None) -> Tensor:
            masks.append(torch.rand(5))
            differentiable.append(torch.is_grad_enabled())
            return super().forward(x, condition, label)

    masks: list[Tensor] = []
    differentiable: list[bool] = []
    tuning()(Dropping(), torch.zeros(4, 1, 4, 4), torch.zeros(4, dtype=torch.int64), generator())
    assert torch.equal(*masks)
    assert differentiable == [False, True]


def test_consistency_sampling_noises_every_estimate_again() -> None:
    """Of one image x_s is alpha_s y + sigma_s z with z fresh: independent from step to step."""
    oracle = one_image((1, 1, 2, 2))
    path = nodes(LogSNR(last=100), SCHEDULE, 3)
    bound = Bound(oracle, None)
    x = path[0].sigma * normal(20_000, 1, 2, 2)
    drawn = draws(20_000, 1, 2, 2, seed=1)
    states = [e.x for e in integrate(bound, Consistency(), path, x, drawn)]
    noises = []
    for node, state in zip(path[:-1], states[:-1], strict=True):
        noises.append((state - node.alpha * oracle.means[0].double()) / node.sigma)
    flat = torch.stack([noise.flatten() for noise in noises[1:]])
    assert flat.mean(1).abs().max() < 0.02
    torch.testing.assert_close(torch.cov(flat), torch.eye(2).double(), atol=0.02, rtol=0)
    torch.testing.assert_close(states[-1][0], oracle.means[0].double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Trajectories(0), "at least 1 evaluation"),
        (lambda: Trajectories(1, inner=-1), "0 or more within"),
        (lambda: ConsistencyTuning(3), "1 or 2 evaluations"),
        (lambda: ConsistencyTuning(1, closeness=1.0), "closeness must be above 1"),
    ],
)
def test_methods_are_checked(make: Callable[[], object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        make()


def test_noise_prediction_is_distilled_too() -> None:
    """Along trajectories any prediction will do."""
    student = Student(SCHEDULE, Noise(), conditional=False, autocast=None)
    network = SmoothNetwork(0)
    path = nodes(Karras(), SCHEDULE, 1)
    teacher = Clipped(NetworkDenoiser(network, SCHEDULE, Noise()))
    objective = TrajectoryDistillation(student, teacher, path, 1)
    images, labels = torch.zeros(4, 1, 6, 6), torch.zeros(4, dtype=torch.int64)
    loss = objective(network, images, labels, generator())
    # One step of the teacher's solver is DDIM's.
    assert loss.item() == 0
