"""Identities between samplers, and what each does exactly."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers import draws, each_grid, each_schedule, float64, moments, normal, run
from underone.conformance.flow import exact_flow
from underone.conformance.oracles import GaussianData, SingleImage, plane_mixture
from underone.diffusion import (
    DDIM,
    DDPM,
    DEIS,
    IPNDM,
    RK45,
    AnalyticDDPM,
    AnnealedLangevin,
    Bound,
    ClassifierFree,
    DPMSolver,
    Estimate,
    Euler,
    Grid,
    Heun,
    Karras,
    LinearBeta,
    LogSNR,
    Node,
    PredictorCorrector,
    Sampler,
    SASolver,
    Schedule,
    Step,
    Trailing,
    Uniform,
    UniPC,
    count_evaluations,
    nodes,
)
from underone.errors import UserError

SCHEDULE = LinearBeta()


def states(
    sampler: Sampler, path: Sequence[Node], x: Tensor, schedule: Schedule = SCHEDULE
) -> list[Estimate]:
    return run(plane_mixture(schedule), sampler, path, x, draws(*x.shape, seed=1))


@each_schedule
@each_grid
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Euler(), DDIM()),
        (DPMSolver(1), DDIM()),
        (DEIS(1), DDIM()),
        (IPNDM(1), DDIM()),
        (DPMSolver(1, eta=1), DDPM("small")),
        (SASolver(1, 0, eta=0), DDIM()),
        (SASolver(1, 0, eta=1), DDPM("small")),
        (DDIM(eta=1), DDPM("small")),
        (PredictorCorrector(DDIM(), corrections=0), DDIM()),
        (Heun(churn=0), Heun(churn=5, churn_min=1e9, churn_max=1e10)),
    ],
)
def test_two_names_for_one_step(
    schedule: Schedule, grid: Grid, one: Sampler, other: Sampler
) -> None:
    path, x = nodes(grid, schedule, 9), normal(16, 2)
    pairs = zip(states(one, path, x, schedule), states(other, path, x, schedule), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a.x, b.x, rtol=1e-9, atol=1e-9)


def test_the_predictor_of_unipc_2_bh2_is_dpm_solver_2m() -> None:
    model, path, x = (
        Bound(plane_mixture(SCHEDULE), None),
        nodes(LogSNR(), SCHEDULE, 6),
        normal(16, 2),
    )
    before = model(x, path[0])
    arrived = x + 0.1
    predicted, here = UniPC(2, "bh2").step(arrived, Step(path, 1, [before], model, draws(1)))
    assert not torch.equal(here.x, arrived)  # it was corrected first

    class SameEstimate(Bound):
        def __call__(self, x: Tensor, node: Node) -> Estimate:
            return Estimate(node, x, here.x0)

    same = SameEstimate(model.denoiser, None)
    other, _ = DPMSolver(2).step(here.x, Step(path, 1, [before], same, draws(1)))
    torch.testing.assert_close(predicted, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_without_corrector_sa_solver_3_is_the_exact_dpm_solver_3m(eta: float) -> None:
    path, x = nodes(Karras(), SCHEDULE, 8), normal(16, 2)
    model = Bound(plane_mixture(SCHEDULE), None)
    at = Step(path, 4, [model(x, node) for node in path[2:4]], model, draws(16, 2))
    one, _ = SASolver(3, 0, eta).step(x, at)
    other, _ = DPMSolver(3, eta, exact=True).step(x, replace(at, noise=draws(16, 2)))
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_solver_extrapolates_polynomials_of_its_degree_exactly(order: int, eta: float) -> None:
    """Where x0 is a polynomial in log-SNR along the path, the integral is known in closed form."""
    path = nodes(Karras(), SCHEDULE, 8)
    polynomial = [0.3, -0.2, 0.05][:order]

    def x0(log_snr: Tensor) -> Tensor:
        return sum((c * log_snr**i for i, c in enumerate(polynomial)), torch.zeros(()))

    past = [Estimate(node, normal(1, 1), x0(node.log_snr).reshape(1, 1)) for node in path[:4]]

    class Known(Bound):
        def __call__(self, x: Tensor, node: Node) -> Estimate:
            return Estimate(node, x, x0(node.log_snr).reshape(1, 1))

    at = Step(
        path, 4, past[-(order - 1) :], Known(plane_mixture(SCHEDULE), None), lambda: 0 * past[0].x
    )
    ours, here = DPMSolver(order, eta=eta, exact=True).step(normal(1, 1), at)
    points, weights = np.polynomial.legendre.leggauss(40)
    start, end = at.now.log_snr, at.to.log_snr
    lambdas = start + (end - start) * (torch.from_numpy(points) + 1) / 2
    kernel = (1 + eta) * torch.exp(-(1 + eta) * (end - lambdas))
    integral = (torch.from_numpy(weights) * kernel * x0(lambdas)).sum() * (end - start) / 2
    decay = at.to.sigma / at.now.sigma * torch.exp(-eta * (end - start))
    expected = decay * here.x + at.to.alpha * integral
    if order == 3:
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)
        published, _ = DPMSolver(order, eta=eta).step(normal(1, 1), at)
        assert (published - expected).abs().item() > 1e-4
    else:  # E / 2 in the place of 1 - E / H: the same to leading order
        torch.testing.assert_close(ours, expected, rtol=0, atol=0.1 * (end - start).item() ** 3)


@pytest.mark.parametrize("variable", ["time", "ratio", "log-ratio"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_the_weights_of_deis_integrate_polynomials_of_its_variable(
    variable: str, order: int
) -> None:
    path = nodes(Trailing(), SCHEDULE, 8)
    model = Bound(SingleImage(SCHEDULE, float64([0.0])), None)
    sampler = DEIS(order, variable)  # type: ignore[arg-type]

    def of(node: Node) -> Tensor:
        return {"time": node.t, "ratio": node.noise_ratio, "log-ratio": -node.log_snr}[variable]

    known, to = list(reversed(path[4 - order + 1 : 5])), path[5]
    weights = sampler._weights(known, to, model)
    ratios = torch.linspace(
        known[0].noise_ratio.item(), to.noise_ratio.item(), 200_001, dtype=torch.float64
    )
    variables = of(model.node(-ratios.log()))
    for power in range(order):
        exact = torch.trapezoid(variables**power, ratios)
        found = sum(
            (w * of(node) ** power for w, node in zip(weights, known, strict=True)), float64(0)
        )
        torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@each_schedule
def test_all_samplers_of_the_flow_agree_at_many_steps(schedule: Schedule) -> None:
    path, x = nodes(LogSNR(), schedule, 500), normal(8, 2)
    exact = exact_flow(plane_mixture(schedule), path[:-1], x)[-1]
    for sampler, error in (
        (Heun(), 1e-3),
        (DPMSolver(2), 1e-3),
        (DPMSolver(3), 1e-3),
        (DPMSolver(3, exact=True), 1e-4),
        (UniPC(), 1e-4),
        (DEIS(), 1e-4),
        (IPNDM(), 1e-3),
        (RK45(1e-7, 1e-7), 1e-5),
    ):
        found = states(sampler, path, x, schedule)[-2].x
        assert (found - exact).abs().max() < error, sampler


def test_the_free_start_of_ipndm_is_that_of_pure_noise() -> None:
    path, x = nodes(Trailing(), SCHEDULE, 6), normal(4, 2)
    oracle = plane_mixture(SCHEDULE)
    with count_evaluations() as counter:
        free = run(oracle, IPNDM(4, free_start=True), path, x, draws(4, 2))
    assert counter == {"oracle": 5 * 4}
    torch.testing.assert_close(free[0].noise, x, rtol=1e-12, atol=1e-12)
    normal_run = run(oracle, IPNDM(4), path, x, draws(4, 2))
    # At t = 1 nearly nothing is known of x0, so that little is lost.
    torch.testing.assert_close(free[1].x, normal_run[1].x, rtol=0, atol=0.02)


def test_churn_raises_the_noise_and_never_beyond_what_the_model_knows() -> None:
    image, path = float64([0.5, -0.5]), nodes(Karras(), SCHEDULE, 10)
    x = path[0].alpha * image + path[0].sigma * normal(4, 2)
    states = run(SingleImage(SCHEDULE, image), Euler(churn=3), path, x, draws(4, 2, seed=1))
    raised = [
        (state.node.noise_ratio / now.noise_ratio).item()
        for state, now in zip(states[:-1], path[:-1], strict=True)
    ]
    assert raised == pytest.approx([1.0] + 9 * [1.3], rel=1e-9)
    bounded = Euler(churn=3, churn_min=0.1, churn_max=10)
    states = run(SingleImage(SCHEDULE, image), bounded, path, x, draws(4, 2, seed=1))
    for state, now in zip(states[:-1], path[:-1], strict=True):
        inside = 0.1 <= now.noise_ratio <= 10
        assert (state.node.noise_ratio > 1.29 * now.noise_ratio) == inside


# Langevin


@pytest.mark.parametrize(("published", "variance"), [(False, 1.0), (True, 1 / (1 - 0.2 / 2))])
def test_langevin_settles_where_its_docstring_says(published: bool, variance: float) -> None:
    image, count = float64([0.5]), 40_000
    path = nodes(Trailing(), SCHEDULE, 3)
    sampler = AnnealedLangevin(inner=60, published=published)
    last = run(SingleImage(SCHEDULE, image), sampler, path, normal(count, 1), draws(count, 1))[-2]
    found = ((last.x - last.node.alpha * image) / last.node.sigma).var().item()
    assert found == pytest.approx(variance, rel=4 * (2 / count) ** 0.5)


# The adaptive method


@pytest.mark.slow
@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-7])
def test_rk45_keeps_its_tolerance(tolerance: float) -> None:
    path, x = nodes(LogSNR(), SCHEDULE, 2), normal(64, 2)
    exact = exact_flow(plane_mixture(SCHEDULE), path[:-1], x)[-1]
    found = states(RK45(tolerance, tolerance), path, x)[-2].x
    assert (found - exact).abs().max() < 50 * tolerance


def test_rk45_gives_each_sample_its_own_steps_and_its_own_label() -> None:
    oracle = ClassifierFree(plane_mixture(SCHEDULE), 0.5, null_label=3)
    path, x, labels = nodes(LogSNR(), SCHEDULE, 2), normal(6, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    with count_evaluations() as together:
        whole = run(oracle, RK45(), path, x, draws(1), labels)[-1].x
    with count_evaluations() as alone:
        rows = [
            run(oracle, RK45(), path, x[i : i + 1], draws(1), labels[i : i + 1])[-1].x
            for i in range(6)
        ]
    torch.testing.assert_close(torch.cat(rows), whole, rtol=0, atol=1e-12)
    assert together == alone
    assert len({row.item() for row in whole[:, 0]}) == 6


def test_rk45_says_so_where_it_cannot_go_on() -> None:
    class Undefined(SingleImage):
        def __call__(self, x: Tensor, node: Node, label: Tensor | None) -> Tensor:
            return super().__call__(x, node, label) * float("nan")

    path = nodes(LogSNR(), SCHEDULE, 2)
    with pytest.raises(UserError, match="steps have become too small"):
        run(Undefined(SCHEDULE, float64([0.0])), RK45(), path, normal(2, 1), draws(1))


# The analytic variance


@each_schedule
@pytest.mark.parametrize("steps", [2, 5, 50])
@pytest.mark.parametrize("deviation", [0.1, 0.5, 1.0])
def test_analytic_ddpm_reproduces_every_marginal_of_a_gaussian(
    schedule: Schedule, steps: int, deviation: float
) -> None:
    oracle, path = (
        GaussianData(schedule, mean=0.3, deviation=deviation),
        nodes(Uniform(), schedule, steps),
    )

    def data_variance(node: Node) -> Tensor:
        return deviation**2 * node.sigma**2 / oracle.variance(node)

    truth = [(node.alpha.item() * 0.3, oracle.variance(node).item()) for node in path[:-1]]
    found = moments(oracle, AnalyticDDPM(data_variance, visible=None), path, truth[0])[:-1]
    torch.testing.assert_close(float64(found), float64(truth), rtol=1e-9, atol=1e-12)
    for sampler, over in ((DDPM("large"), deviation < 1), (DDPM("small"), False)):
        variance = moments(oracle, sampler, path, truth[0])[-2][1]
        if deviation < 1:
            assert (variance > truth[-1][1] * (1 + 1e-6)) == over


def test_the_last_visible_noise_is_bounded() -> None:
    # No step to a node whose own noise cannot be seen adds more than two grey levels of noise.
    oracle, path = GaussianData(SCHEDULE, 0.0, 0.5), nodes(Uniform(), SCHEDULE, 10)
    sampler = AnalyticDDPM(lambda node: float64(0.2))
    assert path[-2].sigma < 0.02 < path[-3].sigma

    def deviation(index: int) -> float:
        x, model = float64([[0.0]]), Bound(oracle, None)
        silent, loud = (
            sampler.step(x, Step(path, index, [], model, float64([[z]]).clone))[0].item()
            for z in (0.0, 1.0)
        )
        return loud - silent

    assert deviation(7) > 0.02
    assert deviation(8) == pytest.approx(4 / 255 * (np.pi / 2) ** 0.5)
