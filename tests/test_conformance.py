"""Our samplers, through the battery that anyone's are put through; and the battery itself."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from helpers import draws, float64, normal, run
from underone.cli import underone_command
from underone.conformance import Finding, behaviour, conformance, distributions, orders
from underone.conformance.oracles import plane_mixture
from underone.conformance.orders import TOLERANCE, observed_order
from underone.conformance.paths import SCHEDULE, log_snr_path, uneven_path
from underone.diffusion import (
    DDIM,
    DDPM,
    DEIS,
    IPNDM,
    SAMPLERS,
    AnnealedLangevin,
    Cosine,
    DPMSolver,
    Estimate,
    Euler,
    Grid,
    Heun,
    Karras,
    Node,
    PredictorCorrector,
    Sampler,
    SASolver,
    Step,
    UniPC,
    node_at,
    nodes,
)
from underone.errors import UserError
from underone.named import sampler_named

VARIANTS: dict[str, Sampler] = {
    **SAMPLERS,
    "ddim-0.5": DDIM(0.5),
    "euler-churn": Euler(churn=20),
    "dpm-solver-1s-sde": DPMSolver(1, eta=1),
    "dpm-solver-3m-exact-sde": DPMSolver(3, eta=0.5, exact=True),
    "sa-solver-0-noise": SASolver(2, 3, eta=0),
    "sa-solver-3-4": SASolver(3, 4, eta=0),
    "sa-solver-uncorrected": SASolver(3, 0, eta=0),
    "sa-solver-half-noise": SASolver(3, 3, eta=0.5),
    "unipc-1": UniPC(1, "bh1"),
    "unipc-2": UniPC(2, "bh2"),
    "unipc-3-bh1": UniPC(3, "bh1"),
    "deis-4": DEIS(4),
    "deis-4-ratio": DEIS(4, "ratio"),
    "deis-3-log-ratio": DEIS(3, "log-ratio"),
    "ipndm-2": IPNDM(2),
    "ipndm-free-start": IPNDM(4, free_start=True),
    "corrected-unipc": PredictorCorrector(UniPC(), corrections=3, snr=0.4),
    "corrected-sa-solver": PredictorCorrector(SASolver(), corrections=2),
    "euler-bounded-churn": Euler(churn=20, churn_min=0.3, churn_max=20),
    "sa-solver-more-noise": SASolver(eta=1.5),
    "dpm-solver-2m-more-noise": DPMSolver(2, eta=2),
}
# A hundred inner steps are the default; two show as much of the loop in far less time.
VARIANTS["annealed-langevin"] = AnnealedLangevin(inner=40)

# One of each kind; the others are as many again of the same checks.
QUICK = ("ddpm-small", "ddim", "heun", "dpm-solver-2m", "sa-solver", "unipc-2", "ipndm-2")


@pytest.mark.parametrize(
    "sampler",
    [
        pytest.param(sampler, id=name, marks=[] if name in QUICK else pytest.mark.slow)
        for name, sampler in VARIANTS.items()
    ],
)
def test_a_sampler_does_all_that_it_claims(sampler: Sampler) -> None:
    findings = list(conformance(sampler))
    assert [finding for finding in findings if not finding.holds] == []
    checks = {finding.check for finding in findings}
    assert ("a single image" in checks) == sampler.exact_for_one_image
    assert any(check.startswith("order") for check in checks) == (sampler.global_order is not None)


def even_in_ratio(intervals: int) -> list[Node]:
    """Equal steps in sigma / alpha, from 5 to 0.05, and the clean end."""
    ratios = torch.linspace(5, 0.05, intervals + 1, dtype=torch.float64)
    return [
        *(node_at(SCHEDULE, SCHEDULE.time(-ratio.log())) for ratio in ratios),
        node_at(SCHEDULE, float64(0)),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_ipndm_has_its_order_where_steps_are_equal(order: int) -> None:
    assert observed_order(IPNDM(order), even_in_ratio) >= order - TOLERANCE


def test_the_published_third_order_is_second() -> None:
    assert observed_order(DPMSolver(3), log_snr_path) == pytest.approx(2, abs=TOLERANCE)
    assert observed_order(DPMSolver(3, exact=True), log_snr_path) == pytest.approx(3, abs=TOLERANCE)


@dataclass(frozen=True)
class RightForEqualSteps(Sampler):
    """The exact DPM-Solver++ 3M, with the weights of equal steps on any."""

    @property
    def history(self) -> int:
        return 2

    def step(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
        here, to = at.evaluate(x), at.to
        m0, m1, m2 = here.x0, at.past[1].x0, at.past[0].x0
        h = to.log_snr - at.now.log_snr
        e = -torch.expm1(-h)
        first = 1 - e / h
        bend = m0 - 2 * m1 + m2
        integral = e * m0 + first * (m0 - m1 + bend / 2) + (0.5 - first / h) * bend
        return to.sigma / at.now.sigma * x + to.alpha * integral, here


def test_weights_for_equal_steps_are_found_out_on_uneven_ones() -> None:
    assert observed_order(RightForEqualSteps(), log_snr_path) == pytest.approx(3, abs=TOLERANCE)
    assert observed_order(RightForEqualSteps(), uneven_path) < 3 - TOLERANCE


@dataclass(frozen=True)
class TwoDraws(Sampler):
    """DDIM(1) whose noise is made of two draws: right, and of order 1 along its path."""

    @property
    def stochastic(self) -> bool:
        return True

    def step(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
        both = (at.noise() + at.noise()) / 2**0.5
        return DDIM(1.0).step(x, replace(at, noise=lambda: both))


def test_a_sampler_may_draw_twice_a_step() -> None:
    with torch.no_grad():
        findings = [
            check(TwoDraws())
            for check in (
                orders.noise_order,
                distributions.mixture,
                behaviour.batches,
                behaviour.memory,
            )
        ]
    assert [finding for finding in findings if finding is None or not finding.holds] == []


@dataclass(frozen=True)
class Broken(Sampler):
    """DDIM with a fault."""

    fault: str

    @property
    def global_order(self) -> int:
        return 2 if self.fault == "order" else 1

    @property
    def stochastic(self) -> bool:
        return self.fault in ("noise", "spread")

    def evaluations(self, steps: int) -> int:
        return 2 * steps if self.fault == "count" else steps

    def step(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
        here, to = at.evaluate(x), at.to
        x0 = here.x0
        if self.fault == "batch":
            x0 = 0.9 * x0 + 0.1 * x0.mean(0)
        if self.fault == "memory":
            x0 = x0 + len(_REMEMBERED)
            _REMEMBERED.append(0)
        if self.fault == "finite" and at.total > 2:
            x0 = x0 / 0
        if self.fault == "dtype":
            x0 = x0.double()
        if self.fault == "error":
            raise IndexError("no such estimate\nof all that there are")
        if self.fault == "bias":
            x0 = 1.1 * x0
        noise = here.noise
        if self.fault in ("noise", "spread"):
            # Fresh noise every step follows no path; too much of it is too much.
            share = 0.6 if self.fault == "noise" else 0.8
            noise = 0.8 * noise + share * at.noise()
        preserving = self.fault == "preserving"
        sigma = (1 - to.alpha**2).sqrt() if preserving else to.sigma
        return to.alpha * x0 + sigma * noise, here

    def finish(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
        x0, here = super().finish(x, at)
        return (here.x if self.fault == "residue" else x0), here


_REMEMBERED: list[int] = []


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("order", orders.order),
        ("noise", orders.noise_order),
        ("bias", distributions.one_image),
        ("spread", distributions.mixture),
        ("preserving", distributions.mixture_under_other_schedules),
        ("residue", distributions.clean_end),
        ("finite", behaviour.finiteness),
        ("dtype", behaviour.finiteness),
        ("batch", behaviour.batches),
        ("memory", behaviour.memory),
        ("count", behaviour.evaluations),
    ],
)
def test_every_fault_is_found_by_its_check(
    fault: str, check: Callable[[Sampler], Finding | None]
) -> None:
    _REMEMBERED.clear()
    with torch.no_grad():
        finding = check(Broken(fault))
    assert finding is not None
    assert not finding.holds


def test_whatever_a_sampler_raises_is_a_finding() -> None:
    failed = {finding.check: finding for finding in conformance(Broken("error"))}
    assert failed["one image"] == Finding(
        "one image", "", "IndexError: no such estimate", holds=False
    )


def test_the_battery_makes_every_check_that_applies() -> None:
    every = {
        "the end is clean",
        "a single image",
        "mean and covariance of a mixture, 200 steps",
        "mean and covariance under other schedules, 200 steps",
        "finite on every schedule and grid",
        "alone as in a batch",
        "no memory between runs",
        "evaluations at 1, 2, 5, 10 steps",
    }
    deterministic = {finding.check for finding in conformance(DDIM())}
    assert deterministic == every | {"order of convergence, even and uneven"}
    assert {f.check for f in conformance(DDPM("small"))} == every | {
        "order along one Brownian path"
    }


OWN = """
from dataclasses import dataclass
from underone.diffusion import Sampler


@dataclass(frozen=True)
class Mine(Sampler):
    share: float = 1.0

    def step(self, x, at):
        here = at.evaluate(x)
        return at.to.alpha * here.x0 + self.share * at.to.sigma * here.noise, here
"""


@pytest.mark.slow
def test_the_command_measures_ones_own_sampler_and_fails_where_a_claim_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "faulty_samplers.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    command = ["conformance", "faulty_samplers:Mine,share=0.9"]
    result = CliRunner().invoke(underone_command, command)
    assert result.exit_code == 1
    failed = [line for line in result.stdout.splitlines() if line.startswith("FAILS")]
    assert any("a single image" in line for line in failed)
    assert any("order of convergence" in line for line in failed)
    result = CliRunner().invoke(underone_command, [*command, "--json"])
    findings = {finding["check"]: finding for finding in json.loads(result.stdout)["findings"]}
    assert not findings["order of convergence, even and uneven"]["holds"]
    assert findings["no memory between runs"]["holds"]


def test_a_sampler_of_ones_own_is_found_by_module_and_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_samplers.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    mine = sampler_named("own_samplers:Mine,share=0.5")
    assert isinstance(mine, Sampler)
    assert vars(mine) == {"share": 0.5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dimm", "unknown sampler 'dimm': did you mean 'ddim'?"),
        ("ddim,eta", "'eta' is none of its options; it takes eta"),
        ("ddim,order=2", "'order=2' is none of its options; it takes eta"),
        ("ddim,eta=high", "eta=high is not valid: input should be a valid number"),
        ("ddim,eta=3", "eta must lie in"),
        ("euler,churn=-1", "churn must be at least 0"),
        ("unipc,order=4", "UniPC has the orders 1, 2 and 3, not 4"),
        ("unipc,variant=bh3", "variant=bh3 is not valid"),
        ("predictor-corrector,predictor=ddpm", "did you mean"),
        ("predictor-corrector,predictor=deis", "choose another predictor"),
        ("no_such_module:Sampler", "No module named 'no_such_module'"),
        ("dataclasses:Sampler", "the module dataclasses has no 'Sampler'"),
        ("dataclasses:field", "is not a sampler"),
    ],
)
def test_what_is_no_sampler_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError) as refusal:
        sampler_named(text)
    assert message in str(refusal.value)


def test_a_predictor_is_given_by_its_name() -> None:
    assert sampler_named("predictor-corrector,predictor=unipc") == PredictorCorrector(UniPC())


def test_heun_needs_no_more_than_its_own_evaluations() -> None:
    assert [Heun().evaluations(steps) for steps in (1, 2, 10)] == [1, 3, 19]


@pytest.mark.parametrize("name", ["unipc", "sa-solver", "dpm-solver-3m", "edm"])
def test_karras_grids_of_the_cosine_schedule_must_begin_below_its_end(name: str) -> None:
    """What the page of samplers says of 20 steps."""
    oracle = plane_mixture(Cosine())
    data = distributions.draw(oracle, 4000)

    def error(grid: Grid) -> float:
        path = nodes(grid, oracle.schedule, 20)
        x = path[0].alpha * data + path[0].sigma * normal(4000, 2)
        end = run(oracle, SAMPLERS[name], path, x, draws(4000, 2, seed=1))[-1]
        _, covariance = distributions.moments(oracle, end.node)
        return ((end.x.T.cov() - covariance).norm() / covariance.norm()).item()

    assert 1.15 < error(Karras()) < 1.85
    assert 0.015 < error(Karras(first=990)) < 0.35
