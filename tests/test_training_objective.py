"""What training minimises, and what each update is made of."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from underone.data import Dataset
from underone.diffusion import (
    Cosine,
    Data,
    LinearBeta,
    Noise,
    Preconditioned,
    Prediction,
    Schedule,
    Velocity,
)
from underone.training.augment import view
from underone.training.average import profile_exponent, update_average
from underone.training.begin import start
from underone.training.learning_rate import learning_rate
from underone.training.loop import updates
from underone.training.objective import Classification, Denoising, VICReg
from underone.training.randomness import Purpose, batch_indices, derived_seed
from underone.training.recipe import DiffusionRecipe, Views, load_recipe

PREDICTIONS: list[Prediction] = [Noise(), Data(), Velocity(), Preconditioned(0.7)]
SMALLEST = ("network.patch=7", "network.multipliers=[1]", "network.attention=[]")
SCHEDULES: list[Schedule] = [LinearBeta(), Cosine(), LinearBeta(steps=7)]


class Recorder(nn.Module):
    """Answers with a fixed multiple of its input, and keeps what it was given."""

    def forward(self, x: Tensor, condition: Tensor, label: Tensor | None) -> Tensor:
        self.x, self.condition, self.label = x, condition, label
        return 0.3 * x


def call(
    schedule: Schedule,
    prediction: Prediction,
    batch: int = 64,
    dropout: float = 0.0,
    classes: int | None = 5,
    seed: int = 0,
) -> tuple[Recorder, Tensor, float]:
    """The network as the objective left it, the clean images, and the loss."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(batch, 2, 4, 4, generator=generator) * 2 - 1
    labels = torch.arange(batch) % 5
    network = Recorder()
    objective = Denoising(schedule, prediction, dropout, classes)
    return network, images, objective(network, images, labels, generator).item()


# The DDPM objective.


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_loss_is_algorithm_1_by_hand(schedule: Schedule, prediction: Prediction) -> None:
    network, images, loss = call(schedule, prediction)
    by_hand = 0.0
    alpha_squared = torch.cumprod(1 - schedule.betas(), 0)  # type: ignore[attr-defined]
    for x0, x, condition in zip(images, network.x, network.condition, strict=True):
        step = condition.item() * schedule.steps / 1000
        assert step == pytest.approx(round(step), abs=1e-3)
        assert 1 <= round(step) <= schedule.steps
        alpha = math.sqrt(alpha_squared[round(step) - 1].item())
        sigma = math.sqrt(1 - alpha**2)
        preconditioned = isinstance(prediction, Preconditioned)
        norm = math.sqrt(sigma**2 + 0.49 * alpha**2) if preconditioned else 1.0
        noise = (norm * x - alpha * x0) / sigma
        wanted = {
            "noise": noise,
            "data": x0,
            "velocity": alpha * noise - sigma * x0,
            "preconditioned": (sigma / 0.7 * x0 - alpha * 0.7 * noise) / norm,
        }
        name: str = prediction.name  # type: ignore[attr-defined]
        by_hand += (0.3 * x - wanted[name]).square().sum().item()
    assert loss == pytest.approx(by_hand / images.numel(), rel=1e-3)


def test_the_noise_is_standard_normal_and_new_for_every_pixel() -> None:
    network, images, _ = call(LinearBeta(), Noise(), batch=2000)
    alpha, sigma = LinearBeta()(network.condition.double() / 1000)
    shape = (-1, 1, 1, 1)
    noise = (network.x - alpha.view(shape) * images) / sigma.view(shape)
    kept = noise[network.condition > 100].flatten(1)  # where little is lost by dividing
    assert kept.mean().item() == pytest.approx(0, abs=0.02)
    assert kept.var().item() == pytest.approx(1, abs=0.03)
    assert kept.pow(4).mean().item() == pytest.approx(3, abs=0.15)
    correlations = torch.corrcoef(kept.T) - torch.eye(32)
    assert correlations.abs().max() < 0.12


def test_steps_are_uniform_and_spread_over_every_batch() -> None:
    counts = torch.zeros(10)
    for seed in range(300):
        network, _, _ = call(LinearBeta(), Noise(), batch=10, seed=seed)
        steps = network.condition.round().long()
        # One step in each tenth of 1..1000, up to the offset they share.
        gaps = steps.sort().values.diff()
        assert ((gaps == 100) | (gaps == 99) | (gaps == 101)).all()
        counts += torch.bincount((steps - 1) // 100, minlength=10)
    assert (counts == 300).all()
    firsts = {int(call(LinearBeta(), Noise(), 1, seed=s)[0].condition) for s in range(300)}
    assert len(firsts) > 200
    assert min(firsts) < 30
    assert max(firsts) > 970


def test_every_step_from_the_first_to_the_last_is_drawn() -> None:
    steps: set[int] = set()
    for seed in range(50):
        network, _, _ = call(LinearBeta(steps=7), Noise(), batch=3, seed=seed)
        steps |= {round(condition * 7 / 1000) for condition in network.condition.tolist()}
    assert steps == set(range(1, 8))


@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_dropped_labels_become_the_null_label_and_others_stay(dropout: float) -> None:
    network, _, _ = call(LinearBeta(), Noise(), batch=4000, dropout=dropout)
    assert network.label is not None
    null = network.label == 5
    assert torch.equal(network.label[~null], (torch.arange(4000) % 5)[~null])
    margin = 4 * math.sqrt(4000 * dropout * (1 - dropout))
    assert abs(int(null.sum()) - 4000 * dropout) <= margin


def test_an_unconditional_network_is_given_no_label() -> None:
    network, _, _ = call(LinearBeta(), Noise(), dropout=0.5, classes=None)
    assert network.label is None


@dataclass(eq=False)
class BestLinear:
    """The best guess of a prediction's target for x0 ~ N(mean, deviation^2), times `factor`."""

    prediction: Prediction
    mean: float = 0.2
    deviation: float = 0.5
    factor: float = 1.0
    offset: float = 0.0
    errors: list[float] = field(default_factory=list)

    def __call__(self, x: Tensor, condition: Tensor, label: Tensor | None) -> Tensor:
        alpha, sigma = LinearBeta()(condition.double() / 1000)
        gain = alpha * self.deviation**2 / (alpha**2 * self.deviation**2 + sigma**2)
        shape = (-1, 1, 1, 1)
        node = mock.Mock(alpha=alpha, sigma=sigma)
        x = x / self.prediction.input(torch.ones_like(x), node)
        rest = x - alpha.view(shape) * self.mean
        x0 = self.mean + gain.view(shape) * rest
        noise = (x - alpha.view(shape) * x0) / sigma.view(shape)
        return self.factor * self.prediction.target(x0, noise, node) + self.offset


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_conditional_mean_of_a_gaussian_minimises_every_prediction(
    prediction: Prediction,
) -> None:
    generator = torch.Generator().manual_seed(0)
    images = 0.2 + 0.5 * torch.randn(3000, 1, 4, 4, generator=generator)
    labels = torch.zeros(3000, dtype=torch.int64)
    objective = Denoising(LinearBeta(), prediction, label_dropout=0.0, null_label=None)
    losses = {
        (factor, offset): objective(
            BestLinear(prediction, factor=factor, offset=offset),  # type: ignore[arg-type]
            images,
            labels,
            torch.Generator().manual_seed(1),
        ).item()
        for factor, offset in ((1.0, 0.0), (0.95, 0.0), (1.05, 0.0), (1.0, 0.05), (1.0, -0.05))
    }
    assert min(losses, key=lambda key: losses[key]) == (1.0, 0.0)


def test_classification_is_cross_entropy_against_smoothed_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 4, generator=generator)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    network = mock.Mock(return_value=logits)
    loss = Classification(label_smoothing=0.2)(network, torch.empty(0), labels, generator)
    smoothed = 0.8 * torch.eye(4)[labels] + 0.2 / 4
    expected = -(smoothed * logits.log_softmax(dim=1)).sum(dim=1).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


# What an update is made of.


def random_dataset(count: int = 23) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8, generator=generator)
    return Dataset("noise", "train", images, torch.arange(count) % 10, tuple("0123456789"))


def watched_updates(
    tmp_path: Path, steps: int
) -> tuple[list[tuple[Tensor, Tensor, Tensor, Tensor]], Dataset]:
    """For each update: its images and labels, and what both sources of chance would draw next."""
    recipe = load_recipe("tiny", ["batch_size=4", *SMALLEST])
    dataset = random_dataset()
    run = start(tmp_path / "run", "tiny", recipe, dataset, torch.device("cpu"), steps=steps)
    seen = []

    def objective(
        network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Tensor:
        seen.append((images, labels, torch.rand(8), torch.rand(8, generator=generator)))
        return torch.stack([p.square().sum() for p in network.parameters()]).sum()

    for _ in updates(run.state, recipe, objective, dataset, steps, None):
        pass
    return seen, dataset


def test_dropout_is_not_drawn_from_the_same_numbers_as_the_noise(tmp_path: Path) -> None:
    seen, _ = watched_updates(tmp_path, 6)
    draws = [tuple(draw.tolist()) for record in seen for draw in record[2:]]
    assert len(set(draws)) == 12


def test_an_epoch_of_updates_is_every_image_with_its_own_label(tmp_path: Path) -> None:
    seen, dataset = watched_updates(tmp_path, 23)  # 23 updates of 4 are 4 epochs of 23
    images = torch.cat([record[0] for record in seen])
    labels = torch.cat([record[1] for record in seen])
    flat = dataset.images.flatten(1) / 127.5 - 1
    for epoch in range(4):
        mine = slice(23 * epoch, 23 * (epoch + 1))
        found = torch.cdist(images[mine].flatten(1), flat).argmin(dim=1)
        torch.testing.assert_close(images[mine].flatten(1), flat[found])
        assert sorted(found.tolist()) == list(range(23))
        assert torch.equal(labels[mine], dataset.labels[found])


@given(
    count=st.integers(1, 40),
    batch=st.integers(1, 90),
    seed=st.integers(0, 2**70),
    first=st.integers(0, 50),
)
def test_a_walk_visits_every_image_once_an_epoch_wherever_it_is_entered(
    count: int, batch: int, seed: int, first: int
) -> None:
    walk = torch.cat([batch_indices(count, batch, seed, step) for step in range(first, first + 5)])
    skipped = -first * batch % count  # up to the first whole epoch
    for start_of_epoch in range(skipped, len(walk) - count + 1, count):
        epoch = walk[start_of_epoch : start_of_epoch + count]
        assert sorted(epoch.tolist()) == list(range(count))
    again = batch_indices(count, batch, seed, first + 4)
    assert torch.equal(walk[-batch:], again)


def test_seeds_purposes_and_numbers_lead_to_different_streams() -> None:
    seeds = {
        derived_seed(seed, purpose, number)
        for seed in range(10)
        for purpose in Purpose
        for number in range(50)
    }
    assert len(seeds) == 10 * len(Purpose) * 50
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_other_seeds_walk_in_other_orders() -> None:
    orders = {
        tuple(batch_indices(50, 50, seed, step).tolist()) for seed in range(3) for step in (0, 1)
    }
    assert len(orders) == 6


# The average and the learning rate.


@pytest.mark.parametrize("width", [0.01, 0.05, 0.1, 0.2, 0.27])
def test_the_power_gives_the_profile_its_width(width: float) -> None:
    exponent = profile_exponent(width)
    times = (torch.arange(200_000).double() + 0.5) / 200_000
    weights = times**exponent / (times**exponent).sum()
    mean = (weights * times).sum()
    assert (weights * (times - mean) ** 2).sum().sqrt().item() == pytest.approx(width, rel=1e-3)


def test_the_first_update_leaves_no_trace_of_the_initial_weights() -> None:
    network, average = nn.Linear(3, 3), nn.Linear(3, 3)
    update_average(average, network, 1, profile_exponent(0.1))
    assert torch.equal(average.weight, network.weight)
    assert average.weight.data_ptr() != network.weight.data_ptr()


@given(warmup=st.integers(0, 50), horizon=st.integers(1, 200), step=st.integers(0, 199))
def test_the_learning_rate_never_leaves_its_range(warmup: int, horizon: int, step: int) -> None:
    rate = learning_rate(min(step, horizon - 1), 0.1, warmup, horizon)
    assert 0 < rate <= 0.1 * (1 + 1e-12)
    assert learning_rate(horizon, 0.1, 0, horizon) == pytest.approx(0, abs=1e-12)


def test_the_rate_is_level_before_it_falls_in_a_line() -> None:
    rates = [learning_rate(step, 2.0, 10, 100, flat=0.4, decay="linear") for step in range(101)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10:41] == [2.0] * 31
    assert rates[40:] == pytest.approx([2 * (100 - step) / 60 for step in range(40, 101)])
    # A warm-up that is longer than the level part goes on first.
    late = learning_rate(30, 2.0, 50, 100, flat=0.1, decay="linear")
    assert late == pytest.approx(2 * 31 / 50)


def test_a_recipe_without_labels_trains_an_unconditional_network(tmp_path: Path) -> None:
    recipe = load_recipe("tiny", SMALLEST)
    assert isinstance(recipe, DiffusionRecipe)
    recipe = recipe.model_copy(update={"network": replace(recipe.network, classes=None)})
    run = start(tmp_path / "run", "tiny", recipe, random_dataset(), torch.device("cpu"), steps=2)
    assert [now.update.step for now in run.advance(lambda: False)] == [1, 2]
    run.save()
    assert "An unconditional diffusion model" in (tmp_path / "run" / "README.md").read_text()


class Fixed(nn.Module):
    """Answers with what it was prepared to, whatever it is asked."""

    def __init__(self, *answers: Tensor) -> None:
        super().__init__()
        self.answers = list(answers)

    def forward(self, x: Tensor) -> Tensor:
        return self.answers.pop(0)


def agreement(first: Tensor, second: Tensor, *weights: float) -> float:
    images = torch.zeros(len(first), 1, 4, 4)
    loss = VICReg(Views(), *weights)
    return loss(Fixed(first, second), images, torch.zeros(0), torch.Generator()).item()


def test_agreement_is_vicreg_by_hand() -> None:
    first = torch.tensor([[0.0, 0.0], [1.0, 2.0], [2.0, 1.0]])
    second = torch.tensor([[1.0, 0.0], [1.0, 2.0], [2.0, 3.0]])
    assert agreement(first, second, 1, 0, 0) == pytest.approx((1 + 4) / 6)
    # Variances of the columns: 1 and 1, then 1/3 and 7/3; the covariance of the first is 1/2.
    hinge = 1 - (1 / 3 + 1e-4) ** 0.5
    assert agreement(first, second, 0, 1, 0) == pytest.approx(hinge / 2 / 2, rel=1e-4)
    covariance = ((second - second.mean(0)).T @ (second - second.mean(0)) / 2)[0, 1].item()
    squares = 2 * 0.5**2 / 2 + 2 * covariance**2 / 2
    assert agreement(first, second, 0, 0, 1) == pytest.approx(squares)


def test_a_constant_agrees_with_itself_but_says_nothing() -> None:
    constant = torch.ones(5, 3)
    assert agreement(constant, constant, 25, 25, 1) == pytest.approx(25 * (1 - 0.01), rel=1e-4)


def test_views_are_other_cuts_of_the_same_image_and_need_no_label() -> None:
    generator = torch.Generator().manual_seed(0)
    images = (torch.rand(4, 1, 8, 8, generator=generator) * 2 - 1).repeat(8, 1, 1, 1)
    seen = view(images, Views(), generator)
    assert seen.shape == images.shape
    assert -1 <= seen.min() < seen.max() <= 1
    assert not torch.allclose(seen[0], seen[4])  # one image, two views
    same = view(images, Views(smallest_crop=1, rotation=0, contrast=0), generator)
    torch.testing.assert_close(same, images, rtol=0, atol=1e-5)
    # Mixed precision rounds no coordinates.
    few = [torch.Generator().manual_seed(1) for _ in range(2)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = view(images, Views(), few[0])
    assert torch.equal(mixed, view(images, Views(), few[1]))
    turned = view(images, Views(smallest_crop=1, rotation=90, contrast=0), generator)
    assert not torch.allclose(turned, images)
    # What lies outside the image is black, whatever the contrast.
    white = view(torch.ones(64, 1, 8, 8), Views(rotation=45, contrast=0), generator)
    assert white.min() == -1
