"""Likelihood: exact where the density is known, a bound where it is one, always unbiased."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from conftest import ModelFolder, Run
from helpers import SmoothNetwork, draws, each_schedule, float64, normal
from underone.checkpoint import DiffusionConfig, DiffusionModel
from underone.conformance.oracles import Gaussian, Mixture, SingleImage, plane_mixture
from underone.data import Dataset, load_dataset, to_model_range
from underone.diffusion import LinearBeta, Node, Schedule, count_evaluations, node_at
from underone.diffusion.likelihood import (
    GREY_LEVEL,
    bits_per_dimension,
    dequantised,
    log_density,
    rademacher,
)
from underone.diffusion.node import Estimate
from underone.diffusion.samplers.ddpm import VARIANCES, posterior_mean, posterior_variance
from underone.diffusion.schedule import DiscreteSchedule
from underone.diffusion.variational_bound import (
    discretised_log_likelihood,
    strata,
    transition_divergence,
    variational_bound,
)
from underone.errors import UserError
from underone.likelihood import (
    Chain,
    Flow,
    Likelihood,
    Method,
    balanced_choice,
    likelihood,
    most_and_least_likely,
)
from underone.networks import UNet, UNetConfig

SLICE = Path(__file__).parent / "data" / "fashion-mnist"
SHIRT = Gaussian(LinearBeta(), 0.3, 0.4)
each_variance = pytest.mark.parametrize("variance", VARIANCES.values(), ids=VARIANCES.keys())


def log_normal(x: Tensor, mean: Tensor | float, variance: Tensor | float) -> Tensor:
    """log N(x; mean, variance I) of each row."""
    terms = (x - mean) ** 2 / variance + torch.as_tensor(2 * math.pi * variance).log()
    return -0.5 * terms.flatten(1).sum(1)


def step(schedule: Schedule, k: float) -> Node:
    return node_at(schedule, float64(k / schedule.steps))


def unit_probes(rows: int, elements: int) -> Tensor:
    """Probes whose mean is the divergence itself: sqrt(d) e_i, (d, rows, d)."""
    return (elements**0.5 * torch.eye(elements, dtype=torch.float64))[:, None].expand(-1, rows, -1)


def within(values: Tensor, expected: float, errors: float = 4.0) -> bool:
    """Whether the mean of `values` agrees with `expected` within so many standard errors."""
    error = values.std().item() / len(values) ** 0.5
    assert error > 0
    return abs(values.mean().item() - expected) < errors * error


# The probability flow


@each_schedule
@pytest.mark.parametrize("first_step", [1.0, 12.5])
def test_the_density_of_a_gaussian_is_exact_for_every_probe(
    schedule: Schedule, first_step: float
) -> None:
    oracle = Gaussian(schedule, 0.3, 0.4)
    y = 0.3 + 0.5 * normal(5, 1, 4, 4)
    clean, noisy = step(schedule, first_step), step(schedule, schedule.steps)
    exact = log_normal(y, 0.3, 0.4**2 + clean.noise_ratio**2)  # of the blurred data
    # The flow of a Gaussian is the affine map between its marginals.
    stretched = (oracle.variance(noisy) / oracle.variance(clean)).sqrt()
    x = 0.3 * noisy.alpha + stretched * clean.alpha * (y - 0.3)
    prior = log_normal(x, 0.0, noisy.sigma**2) - log_normal(
        x, 0.3 * noisy.alpha, oracle.variance(noisy)
    )
    # Its Jacobian is a multiple of I, of which every v^T J v is the divergence.
    probes = rademacher(normal(3, 5, 1, 4, 4, seed=1))
    found = log_density(oracle, y, None, probes, steps=200, first_step=first_step)
    assert found.shape == (3, 5)
    assert (found - exact - prior).abs().max() < 1e-4
    assert (found - found[0]).abs().max() < 1e-9
    assert prior.abs().max() < 3 / noisy.noise_ratio


def test_the_density_of_one_image_is_its_blur() -> None:
    oracle = SingleImage(LinearBeta(), torch.zeros(2, dtype=torch.float64))
    y = 0.01 * normal(4, 2)
    found = log_density(oracle, y, None, torch.ones(1, 4, 2), steps=50)[0]
    exact = log_normal(y, 0.0, step(LinearBeta(), 1).noise_ratio ** 2)
    assert (found - exact).abs().max() < 1e-3


def blurred_density(mixture: Mixture, y: Tensor, label: Tensor | None) -> Tensor:
    blur = step(mixture.schedule, 1).noise_ratio ** 2
    components = [
        log_normal(y, mean, deviation**2 + blur) + weight.log()
        for mean, deviation, weight in zip(
            mixture.means, mixture.deviations, mixture.weights, strict=True
        )
    ]
    terms = torch.stack(components, 1)
    if label is None:
        return terms.logsumexp(1)
    of_class = label[:, None] == mixture.classes
    total = torch.where(of_class, mixture.weights, 0.0).sum(1).log()
    return torch.where(of_class, terms, -math.inf).logsumexp(1) - total


@pytest.mark.parametrize("labelled", [False, True])
def test_the_density_of_a_mixture_at_order_four(labelled: bool) -> None:
    mixture = plane_mixture(LinearBeta())
    y = float64([[0.4, 0.5], [0.1, -0.5], [-0.5, 0.1], [0.8, -0.3]])
    label = torch.tensor([0, 1, 0, 2]) if labelled else None
    exact = blurred_density(mixture, y, label)
    probes = unit_probes(4, 2)

    def found(steps: int) -> Tensor:
        return log_density(mixture, y, label, probes, steps=steps).mean(0)

    fine = found(256)
    assert (fine - exact).abs().max() < 0.01  # the prior's error, not the solver's
    errors = [(found(steps) - fine).abs().max().item() for steps in (32, 64, 128)]
    assert errors[0] < 1e-3
    for coarse, halved in pairwise(errors):
        assert 10 < coarse / halved < 24


def test_random_probes_are_unbiased() -> None:
    mixture = plane_mixture(LinearBeta())
    y = float64([[0.4, 0.5]])
    exact = log_density(mixture, y, None, unit_probes(1, 2), steps=25).mean()
    many = y.expand(4000, 2)
    for probes in (rademacher(normal(1, 4000, 2)), normal(1, 4000, 2)):
        found = log_density(mixture, many, None, probes, steps=25)[0]
        assert within(found, exact.item())


def test_rademacher_probes_are_signs() -> None:
    noise = normal(1000)
    noise[0] = 0.0
    probes = rademacher(noise)
    assert torch.equal(probes.abs(), torch.ones_like(noise))
    assert torch.equal(probes[1:], noise[1:].sign())


def test_evaluations_do_not_depend_on_the_probes() -> None:
    for repetitions in (1, 3):
        probes = torch.ones(repetitions, 2, 1)
        with count_evaluations() as counter:
            log_density(SHIRT, normal(2, 1), None, probes, steps=7)
        assert counter == {"oracle": 2 * 4 * 7}


def test_a_float32_network_is_carried_in_float64() -> None:
    network = SmoothNetwork()
    seen = []

    class Field:
        schedule = LinearBeta()

        def __call__(self, x: Tensor, node: Node, label: Tensor | None) -> Tensor:
            seen.append(x.dtype)
            return network(x, node.t.expand(len(x)) * 1000, label)

    images = normal(2, 1, 4, 4).float()
    with torch.no_grad():  # gradients of x are taken whatever the caller's mode
        found = log_density(Field(), images, None, torch.ones(1, 2, 1, 4, 4), steps=3)
    assert set(seen) == {torch.float32}
    assert found.dtype == torch.float64
    assert not found.requires_grad


@pytest.mark.parametrize(("steps", "first_step"), [(0, 1.0), (5, 0.0), (5, 1000.0), (5, math.nan)])
def test_a_path_that_cannot_be_followed_is_refused(steps: int, first_step: float) -> None:
    with pytest.raises(UserError, match="the flow"):
        log_density(
            SHIRT, normal(1, 1), None, torch.ones(1, 1, 1), steps=steps, first_step=first_step
        )


def test_dequantised_images_fill_the_cells_of_their_levels() -> None:
    x = torch.tensor([-1.0, 0.0, 1.0]).repeat(20_000, 1)
    offset = (dequantised(x, normal(20_000, 3)).double() - x) / GREY_LEVEL
    assert offset.abs().max() <= 0.5 + 1e-4
    for column in offset.T:
        assert within(column, 0.0)
        assert within(column**2, 1 / 12)


def test_bits_of_the_uniform_density_are_eight() -> None:
    # Of 256 cells all alike one is found in 8 bits; the range they cover is 256 * 2/255 wide.
    uniform = torch.tensor([-12 * math.log(256 * 2 / 255)], dtype=torch.float64)
    assert bits_per_dimension(uniform, 12).item() == pytest.approx(8.0, abs=1e-12)


def quantised_gaussian(images: int, side: int) -> tuple[Tensor, float]:
    """Images of N(0.1, 0.2^2) rounded to grey levels; exact bits under its blurred density."""
    levels = float64(range(256)) / 127.5 - 1
    law = torch.distributions.Normal(float64(0.1), float64(0.2))
    mass = law.cdf(levels + GREY_LEVEL / 2) - law.cdf(levels - GREY_LEVEL / 2)
    variance = 0.2**2 + step(LinearBeta(), 1).noise_ratio ** 2
    # The mean over a cell of (x - m)^2 is that at its centre plus width^2 / 12.
    squares = (levels - 0.1) ** 2 + GREY_LEVEL**2 / 12
    log_p = -0.5 * (squares / variance + torch.log(2 * math.pi * variance))
    bits = -((mass * log_p).sum() / mass.sum() + math.log(GREY_LEVEL)) / math.log(2)
    drawn = (0.1 + 0.2 * normal(images, 1, side, side) + 1) * 127.5
    return to_model_range(drawn.round().to(torch.uint8)), bits.item()


def test_bits_of_quantised_images_are_right() -> None:
    images, expected = quantised_gaussian(300, 4)
    keys = [(0, index) for index in range(len(images))]
    oracle = Gaussian(LinearBeta(), 0.1, 0.2)
    bits = Flow(steps=40).bits(oracle, images, None, keys)[:, 0]
    assert within(bits, expected)


# The variational bound


@pytest.mark.parametrize("mean", [-3.0, -1.0, 0.123, 1.0, 40.0])
@pytest.mark.parametrize("deviation", [1e-3, 0.05, 2.0])
def test_the_masses_of_the_grey_levels_sum_to_one(mean: float, deviation: float) -> None:
    levels = to_model_range(torch.arange(256, dtype=torch.uint8).reshape(256, 1, 1, 1))
    means = torch.full_like(levels, mean)
    found = discretised_log_likelihood(levels, means, float64(deviation**2))
    assert found.logsumexp(0).item() == pytest.approx(0.0, abs=1e-6)
    assert found.isfinite().all()


def test_the_mass_of_a_grey_level_by_its_plain_formula() -> None:
    level = to_model_range(torch.full((1, 1, 1, 1), 100, dtype=torch.uint8))
    law = torch.distributions.Normal(float64(-0.2), float64(0.1))
    x = level.double().item()
    plain = (law.cdf(float64(x + 1 / 255)) - law.cdf(float64(x - 1 / 255))).log()
    found = discretised_log_likelihood(level, torch.full_like(level, -0.2), float64(0.01))
    assert found.item() == pytest.approx(plain.item(), abs=1e-5)


@each_schedule
@each_variance
def test_transitions_are_the_divergences_of_their_gaussians(
    schedule: Schedule, variance: Callable[[Node, Node], Tensor]
) -> None:
    x0, guess, x = (normal(3, 5, seed=seed) for seed in range(3))
    for k in (2, 3, 400, 1000):
        now, to = step(schedule, k), step(schedule, k - 1)
        true, modelled = (
            torch.distributions.Normal(posterior_mean(Estimate(now, x, mean), to), spread.sqrt())
            for mean, spread in (
                (x0, posterior_variance(now, to)),
                (guess, variance(now, to)),
            )
        )
        expected = torch.distributions.kl_divergence(true, modelled).sum(1)
        error = (x0 - guess).square().sum(1)
        found = transition_divergence(error, 5, now, to, variance)
        assert torch.allclose(found, expected, rtol=1e-6)


def test_a_chain_of_two_steps_by_hand() -> None:
    schedule = LinearBeta(steps=2, beta_min=0.1, beta_max=0.3)
    image, guess = 1 / 255, 0.5
    denoiser = SingleImage(schedule, float64([guess]))
    positions = torch.zeros(1, 1)
    x0 = float64([[image]])
    error = (guess - image) ** 2
    # alpha^2 = 0.9 and 0.63: beta-tilde_2 = 0.3 * 0.1 / 0.37; the mean's share is below.
    small = 0.3 * 0.1 / 0.37
    share = 0.9**0.5 * 0.3 / 0.37
    prior = 0.63 / (2 * 0.37) * image**2
    cell = torch.distributions.Normal(float64(guess), float64(small**0.5))
    edges = cell.cdf(float64([image - 1 / 255, image + 1 / 255]))
    for name, transition in (
        ("small", share**2 * error / (2 * small)),
        ("large", 0.5 * (small / 0.3 - 1 - math.log(small / 0.3) + share**2 * error / 0.3)),
    ):
        bound = variational_bound(denoiser, x0, None, draws(1, 1), positions, VARIANCES[name])
        assert bound.prior.item() == pytest.approx(prior, rel=1e-9)
        assert bound.transitions.item() == pytest.approx(transition, rel=1e-9)
        decoded = -(edges[1] - edges[0]).log().item()
        assert bound.reconstruction.item() == pytest.approx(decoded, rel=1e-9)
        total = bound.prior + bound.transitions + bound.reconstruction
        assert torch.equal(bound.total, total)


def scaled(steps: int) -> LinearBeta:
    """The linear schedule with the same noise in all, in fewer steps."""
    return LinearBeta(steps=steps, beta_min=0.1 / steps, beta_max=20 / steps)


def marginal(oracle: Gaussian, variance: Callable[[Node, Node], Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance of the chain's x_1: its states are Gaussian, as its means are affine."""
    path = [step(oracle.schedule, k) for k in range(oracle.schedule.steps, 0, -1)]
    mean, spread = float64(0.0), path[0].sigma ** 2
    for now, to in pairwise(path):
        slope, offset = oracle.affine(now)
        intercept = posterior_mean(Estimate(now, float64(0.0), offset), to)
        factor = posterior_mean(Estimate(now, float64(1.0), slope + offset), to) - intercept
        mean, spread = factor * mean + intercept, factor**2 * spread + variance(now, to)
    return mean, spread


def exact_nats(oracle: Gaussian, image: Tensor, variance: Callable[[Node, Node], Tensor]) -> Tensor:
    """-log P(image) of the chain itself."""
    mean, spread = marginal(oracle, variance)
    second, first = (step(oracle.schedule, k) for k in (2, 1))
    slope, offset = oracle.affine(first)
    decoded = (slope * mean + offset).expand_as(image)
    added = posterior_variance(second, first)
    return -discretised_log_likelihood(image, decoded, slope**2 * spread + added)


@each_variance
@pytest.mark.parametrize("level", [51, -151])
def test_the_bound_lies_above_what_it_bounds(
    variance: Callable[[Node, Node], Tensor], level: int
) -> None:
    oracle, rows = Gaussian(scaled(22), 0.1, 0.5), 20_000
    image = float64([[level / 255]])
    bound = variational_bound(
        oracle, image.expand(rows, 1), None, draws(rows, 1), torch.zeros(rows, 21), variance
    )
    gap = bound.total - exact_nats(oracle, image, variance)
    assert gap.mean() > 3 * gap.std() / rows**0.5


@dataclass(frozen=True, kw_only=True)
class EvenLogSNR(DiscreteSchedule):
    """lambda even from 3 to -4 over the steps, so that more of them are all narrower."""

    def betas(self) -> Tensor:
        squares = torch.sigmoid(2 * torch.linspace(3, -4, self.steps, dtype=torch.float64))
        return 1 - squares / torch.cat([float64([1.0]), squares[:-1]])


@each_variance
def test_the_bound_closes_as_steps_grow_in_number(
    variance: Callable[[Node, Node], Tensor],
) -> None:
    # Without the decoder, L_T and the transitions bound KL(q(x_1 | x_0) || p(x_1)). They are
    # quadratic in the noise, so that its values 1 and -1 give their mean.
    gaps = []
    signs, x0 = float64([[1.0], [-1.0]]), 51 / 255
    for steps in (20, 80, 320):
        oracle = Gaussian(EvenLogSNR(steps=steps), 0.1, 0.5)
        image, positions = torch.full_like(signs, x0), torch.zeros(2, steps - 1)
        bound = variational_bound(oracle, image, None, lambda: signs, positions, variance)
        first = step(oracle.schedule, 1)
        mean, spread = marginal(oracle, variance)
        exact = torch.distributions.kl_divergence(
            torch.distributions.Normal(first.alpha * x0, first.sigma),
            torch.distributions.Normal(mean, spread.sqrt()),
        )
        gaps.append((bound.prior + bound.transitions).mean().item() - exact.item())
    assert gaps[0] > 3 * gaps[1] > 9 * gaps[2] > 0


@pytest.mark.parametrize("schedule", [scaled(25), scaled(400)])
@pytest.mark.parametrize("wanted", [1, 2, 7, 24])
def test_strata_are_all_the_steps_once(schedule: Schedule, wanted: int) -> None:
    edges = strata(schedule, wanted)
    assert len(edges) == wanted + 1
    assert edges[0] == 2
    assert edges[-1] == schedule.steps + 1
    assert (edges.diff() >= 1).all()
    if schedule.steps == 400:
        widths = float64([step(schedule, int(edge) - 1).log_snr for edge in edges]).diff().abs()
        # But where one step alone is wider than that.
        assert widths[edges.diff() > 1].max() < 1.5 * widths.mean()


@pytest.mark.parametrize("wanted", [0, 25])
def test_more_or_fewer_strata_than_steps_are_refused(wanted: int) -> None:
    with pytest.raises(UserError, match=r"takes 2\.\.25 evaluations"):
        strata(scaled(25), wanted)


@each_variance
def test_a_few_random_steps_mean_all_of_them(variance: Callable[[Node, Node], Tensor]) -> None:
    # With an estimate that knows one image, the terms differ but are not random.
    schedule = scaled(25)
    oracle = SingleImage(schedule, float64([0.7]))

    def transitions(rows: int, evaluations: int) -> Tensor:
        positions = torch.special.ndtr(normal(rows, evaluations - 1, seed=3))
        x0 = torch.full((rows, 1), 1 / 255, dtype=torch.float64)
        return variational_bound(oracle, x0, None, draws(rows, 1), positions, variance).transitions

    whole = transitions(2, 25)
    assert whole[0] == whole[1]
    for evaluations in (2, 4, 9):
        assert within(transitions(5000, evaluations), whole[0].item())


def test_a_bound_costs_the_evaluations_asked_for() -> None:
    for evaluations in (2, 40):
        with count_evaluations() as counter:
            Chain(evaluations).bits(SHIRT, torch.zeros(3, 1, 2, 2), None, [(0, 0), (0, 1), (0, 2)])
        assert counter == {"oracle": 3 * evaluations}


# Of a whole model


@pytest.fixture(scope="module")
def test_images() -> Dataset:
    return load_dataset("fashion-mnist", "test", SLICE)


METHODS: dict[str, Method] = {"flow": Flow(steps=2, repetitions=2), "chain": Chain(4, 2)}
each_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


def measured(
    model: DiffusionModel, data: Dataset, method: Method, rows: slice, batch_size: int = 20
) -> Likelihood:
    chosen = balanced_choice(data, 9)[rows]
    keys = [(0, index) for index in range(9)][rows]
    images, labels = data.images[chosen], data.labels[chosen]
    return likelihood(model, images, labels, method, keys=keys, batch_size=batch_size)


@each_method
def test_an_image_depends_on_its_key_alone(
    small_model: DiffusionModel, test_images: Dataset, method: Method
) -> None:
    whole = measured(small_model, test_images, method, slice(0, 9))
    assert whole.bits.shape == (9, 2)
    assert whole.bits.isfinite().all()
    assert (whole.bits[:, 0] != whole.bits[:, 1]).all()
    assert whole.evaluations == {"model": 8}  # 4 x 2 steps once, and 4 twice
    again = measured(small_model, test_images, method, slice(0, 9), batch_size=4)
    part = measured(small_model, test_images, method, slice(5, 9))
    assert torch.allclose(again.bits, whole.bits, rtol=1e-4)
    assert torch.allclose(part.bits, whole.bits[5:], rtol=1e-4)


@each_method
def test_labels_and_seeds_matter_and_batches_are_told(
    small_model: DiffusionModel, test_images: Dataset, method: Method
) -> None:
    images, told = test_images.images[:3], list[int]()
    labels = test_images.labels[:3]

    def bits(label: Tensor, seed: int) -> Tensor:
        keys = [(seed, index) for index in range(3)]
        return likelihood(
            small_model, images, label, method, keys=keys, batch_size=2, on_images=told.append
        ).of_images

    given = bits(labels, 0)
    assert (bits((labels + 1) % 10, 0) != given).all()
    assert (bits(labels, 1) != given).all()
    assert told == [2, 1] * 3


def test_an_unconditional_model_is_given_no_labels(
    small_model: DiffusionModel, test_images: Dataset
) -> None:
    shape = UNetConfig(image_size=28, channels=1, classes=None, width=8, heads=2, patch=4)
    config = small_model.config.model_copy(update={"network": shape})
    network = UNet(shape).eval().requires_grad_(False)
    model = replace(small_model, config=config, network=network)
    found = likelihood(
        model, test_images.images[:2], test_images.labels[:2], Flow(1), keys=[(0, 0), (0, 1)]
    )
    assert found.labels is None
    assert found.of_classes == {}
    assert found.bits.isfinite().all()


def test_a_large_guidance_or_clipping_never_enters(
    small_model: DiffusionModel, test_images: Dataset
) -> None:
    keys = [(0, 0)]
    images, labels = test_images.images[:1], test_images.labels[:1]
    found = likelihood(small_model, images, labels, Flow(2), keys=keys).bits
    plain = Flow(2).bits(small_model.denoiser(), to_model_range(images), labels, keys)
    assert torch.equal(found, plain)
    static, none = (
        likelihood(small_model, images, labels, Chain(4, threshold=threshold), keys=keys).bits
        for threshold in ("static", "none")
    )
    assert static < none  # this network's estimates lie far outside


def test_averages_and_their_errors() -> None:
    bits = float64([[1.0, 3.0], [4.0, 4.0], [6.0, 6.0]])
    found = Likelihood(Flow(repetitions=2), bits, torch.tensor([1, 0, 1]), {})
    assert found.of_images.tolist() == [2, 4, 6]
    assert found.mean.value == 4
    assert found.mean.error == pytest.approx(2 / 3**0.5)
    assert found.of_classes[0].error is None
    assert (found.of_classes[1].images, found.of_classes[1].value) == (2, 4)
    assert list(found.of_classes) == [0, 1]
    # Only the first image's estimates differ, with variance 2: 2 / 3 on average, over 3 x 2.
    assert found.estimator_error == pytest.approx((2 / 3 / 6) ** 0.5)
    assert Likelihood(Flow(), bits[:, :1], None, {}).estimator_error is None


def test_the_choice_of_images_is_balanced_and_one_order(test_images: Dataset) -> None:
    chosen = balanced_choice(test_images, 25)
    assert test_images.labels[chosen].tolist() == [index % 10 for index in range(25)]
    assert torch.equal(balanced_choice(test_images, 5, first=20), chosen[20:])
    assert len(set(chosen.tolist())) == 25


def test_the_most_and_the_least_likely() -> None:
    bits = float64([5, 1, 4, 2, 3, 0])
    assert most_and_least_likely(bits, 2).tolist() == [5, 1, 2, 0]
    assert most_and_least_likely(bits, 10).tolist() == [5, 1, 3, 4, 2, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images, labels: (images[..., :27], labels), "takes images of"),
        (lambda images, labels: (images, labels + 3), "knows classes"),
        (lambda images, labels: (images, None), "is conditional"),
    ],
)
def test_images_that_are_not_the_models_are_refused(
    small_model: DiffusionModel,
    test_images: Dataset,
    change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]],
    message: str,
) -> None:
    images, labels = change(test_images.images[:9], test_images.labels[:9])
    keys = [(0, index) for index in range(9)]
    with pytest.raises(UserError, match=message):
        likelihood(small_model, images, labels, Flow(1), keys=keys)


def test_a_network_that_diverges_is_told(small_model: DiffusionModel, test_images: Dataset) -> None:
    assert isinstance(small_model.config, DiffusionConfig)
    network = UNet(small_model.config.network)
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, 1e30)
    model = replace(small_model, network=network.requires_grad_(False))
    with pytest.raises(UserError, match="not finite"):
        likelihood(model, test_images.images[:1], test_images.labels[:1], Flow(1), keys=[(0, 0)])


# The command


@pytest.fixture
def run(run: Run, model_folder: ModelFolder) -> Run:
    """Runs `underone likelihood` on a small model: (exit status, stdout, stderr)."""
    folder = model_folder()

    def call(*arguments: object) -> tuple[int, str, str]:
        data = () if "--data" in arguments else ("--data", "fashion-mnist", "--root", SLICE)
        return run("likelihood", folder, *data, *arguments)

    return call


def test_the_command_prints_and_draws(run: Run, tmp_path: Path) -> None:
    picture = tmp_path / "new" / "likely.png"
    options = ("--count", 21, "--steps", 1, "--repetitions", 2, "--picture", picture)
    status, out, error = run(*options)
    assert status == 0
    assert "bits/dim" in out
    assert "Ankle boot" in out
    assert "w = 0, no clipping, float32; network evaluations of an image: 4" in out
    assert "2 repetitions" in out
    assert "most likely" in error
    assert Image.open(picture).size == (10 * 58 + 2, 2 * 58 + 2)


def test_the_command_prints_json(run: Run) -> None:
    status, out, _ = run("--count", 6, "--first", 2, "--steps", 3, "--bound", "--json")
    assert status == 0
    said = json.loads(out)
    assert (said["steps"], said["variance"], said["threshold"]) == (3, "large", "static")
    assert said["evaluations"] == {"model": 3}
    assert len(said["bits_of_images"]) == len(said["indices"]) == 6
    assert said["classes"].keys() == {
        "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker"
    }  # fmt: skip
    mean = sum(said["bits_of_images"]) / 6
    assert said["bits_per_dimension"]["value"] == pytest.approx(mean)
    _, out, _ = run("--count", 8, "--steps", 3, "--bound", "--json")
    assert json.loads(out)["bits_of_images"][2:] == pytest.approx(said["bits_of_images"], rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--count", 0), "count must be at least 1"),
        (("--count", 2000), "ask for fewer"),
        (("--steps", 0), "at least 1 step"),
        (("--first-step", 1000), "begin at a step in (0, 1000)"),
        (("--repetitions", 0), "at least 1 repetition"),
        (("--bound", "--steps", 1001), "2..1000 evaluations"),
        (("--bound", "--first-step", 1), "leave it out with --bound"),
        (("--variance", "small"), "give it with --bound"),
        (("--picture", "likely.jpg"), "end it in .png"),
        (("--data", "fashion"), "unknown data set"),
        (("--split", "held-out"), "held-out"),
    ],
)
def test_mistakes_are_one_line(run: Run, options: tuple[object, ...], message: str) -> None:
    status, out, error = run(*options)
    assert status == 2
    assert out == ""
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("classes", "side", "message"), [(2, 28, "knows 10 classes"), (10, 32, "takes images of")]
)
def test_other_data_are_refused_in_one_line(
    run: Run, tmp_path: Path, classes: int, side: int, message: str
) -> None:
    for label in range(classes):
        (tmp_path / f"class-{label}").mkdir()
        Image.new("L", (side, side)).save(tmp_path / f"class-{label}" / "0.png")
    status, out, error = run("--data", tmp_path, "--split", "train", "--count", 2)
    assert (status, out) == (2, "")
    assert message in error
    assert len(error.splitlines()) == 1
