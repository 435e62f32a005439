import math
from decimal import Decimal, localcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import each_preserving_schedule, each_schedule, float64
from underone.diffusion import Cosine, LinearBeta, Schedule, node_at
from underone.errors import UserError

FINE_TIMES = torch.linspace(0, 1, 10_001, dtype=torch.float64)

times = st.floats(0, 1)
sizes = st.integers(1, 3000)
schedules = st.one_of(
    st.builds(LinearBeta, steps=sizes),
    st.builds(Cosine, steps=sizes),
    st.builds(LinearBeta, steps=st.just(1000), beta_max=st.floats(1e-4, 0.1)),
    st.builds(Cosine, steps=st.just(1000), offset=st.floats(1e-4, 0.5)),
)


def test_linear_beta_is_the_product_of_the_paper() -> None:
    with localcontext() as context:
        context.prec = 50
        first, last = Decimal("0.0001"), Decimal("0.02")
        product, alphas, sigmas = Decimal(1), [1.0], [0.0]
        for i in range(1000):
            product *= 1 - (first + (last - first) * i / 999)
            alphas.append(float(product.sqrt()))
            sigmas.append(float((1 - product).sqrt()))
    alpha, sigma = LinearBeta()(float64(range(1001)) / 1000)
    torch.testing.assert_close(alpha, float64(alphas), rtol=1e-12, atol=0)
    torch.testing.assert_close(sigma, float64(sigmas), rtol=1e-12, atol=0)


@pytest.mark.parametrize("steps", [50, 1000, 4000])
def test_cosine_is_the_formula_of_the_paper_with_its_clip(steps: int) -> None:
    def f(k: int) -> float:
        return math.cos((k / steps + 0.008) / 1.008 * math.pi / 2) ** 2

    expected = [f(k) / f(0) for k in range(steps)]
    alpha, sigma = Cosine(steps=steps)(float64(range(steps + 1)) / steps)
    torch.testing.assert_close(alpha[:-1] ** 2, float64(expected), rtol=1e-9, atol=0)
    torch.testing.assert_close(sigma[:-1] ** 2, 1 - float64(expected), rtol=1e-9, atol=1e-15)
    # Unclipped, beta_T would be 1 and alpha_T would be 0.
    assert (alpha[-1] / alpha[-2]).item() ** 2 == pytest.approx(1 - 0.999, rel=1e-9)


@settings(deadline=None)
@given(schedules, times)
def test_every_schedule_preserves_variance(schedule: Schedule, t: float) -> None:
    alpha, sigma = schedule(torch.tensor(t))
    assert alpha.dtype == sigma.dtype == torch.float64
    assert (alpha**2 + sigma**2).item() == pytest.approx(1, abs=1e-14)


@settings(deadline=None)
@given(schedules, times)
def test_time_inverts_the_schedule_at_fractional_times(schedule: Schedule, t: float) -> None:
    node = node_at(schedule, float64(t))
    assert schedule.time(node.log_snr).item() == pytest.approx(t, rel=1e-9, abs=1e-12)


@settings(deadline=None)
@given(schedules, st.data())
def test_time_inverts_the_schedule_at_whole_steps(schedule: Schedule, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, schedule.steps))
    node = node_at(schedule, float64(step / schedule.steps))
    assert schedule.time(node.log_snr).item() * schedule.steps == pytest.approx(step, rel=1e-9)


@each_schedule
def test_time_keeps_the_shape_and_is_clamped_to_the_ends(schedule: Schedule) -> None:
    wanted = torch.tensor([[math.inf, 60.0], [-60.0, -math.inf]])
    times = schedule.time(wanted)
    assert times.dtype == torch.float64
    torch.testing.assert_close(times, float64([[0, 0], [1, 1]]), rtol=0, atol=1e-12)


@each_schedule
def test_noise_only_grows_with_time(schedule: Schedule) -> None:
    node = node_at(schedule, FINE_TIMES)
    assert (node.alpha.diff() <= 0).all()
    assert (node.sigma.diff() > 0).all()
    assert (node.log_snr.diff() < 0).all()


@each_schedule
def test_time_0_is_clean_and_time_1_is_not_beyond_hope(schedule: Schedule) -> None:
    alpha, sigma = schedule(float64([0, 1]))
    assert (alpha[0].item(), sigma[0].item()) == (1, 0)
    assert 1e-5 < (alpha[1] / sigma[1]).item() < 0.03


@each_preserving_schedule
def test_log_alpha_is_linear_between_whole_steps(schedule: Schedule) -> None:
    whole, _ = schedule(float64(range(1001)) / 1000)
    for fraction in (0.25, 0.5):
        between, _ = schedule((float64(range(1000)) + fraction) / 1000)
        expected = whole[:-1] ** (1 - fraction) * whole[1:] ** fraction
        torch.testing.assert_close(between, expected, rtol=1e-10, atol=0)


@each_schedule
def test_times_of_any_shape_give_the_values_of_each_alone(schedule: Schedule) -> None:
    times = float64([[0, 0.1234, 0.5], [0.75, 0.9999, 1]])
    alpha, sigma = schedule(times)
    alone = [schedule(t) for t in times.flatten()]
    assert alpha.flatten().tolist() == [a.item() for a, _ in alone]
    assert sigma.flatten().tolist() == [s.item() for _, s in alone]
    assert alpha.shape == sigma.shape == times.shape


def test_schedules_of_other_parameters_are_other_schedules() -> None:
    t = float64(0.5)
    values = {
        schedule(t)[0].item()
        for schedule in (
            LinearBeta(),
            LinearBeta(beta_max=0.03),
            LinearBeta(beta_min=2e-4),
            LinearBeta(steps=500),
            Cosine(),
            Cosine(offset=0.01),
        )
    }
    assert len(values) == 6


@pytest.mark.parametrize("steps", [0, -3, 10**9])
def test_a_schedule_without_steps_is_refused(steps: int) -> None:
    with pytest.raises(UserError, match=f"1 to 1,000,000 steps, got {steps}"):
        Cosine(steps=steps)


@pytest.mark.parametrize(("low", "high"), [(0, 0.02), (0.02, 0.01), (1e-4, 1)])
def test_betas_outside_their_range_are_refused(low: float, high: float) -> None:
    with pytest.raises(UserError, match="0 < beta_min <= beta_max < 1"):
        LinearBeta(beta_min=low, beta_max=high)


@pytest.mark.parametrize("offset", [0, 1])
def test_an_offset_outside_its_range_is_refused(offset: float) -> None:
    with pytest.raises(UserError, match=r"offset must lie in \(0, 1\)"):
        Cosine(offset=offset)
