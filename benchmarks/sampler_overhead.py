"""What the sampling loop costs beside the network, and what the loops of others cost.

Backs the claim: the loop costs at most 2 % over the bare network calls at batch 64 on the shipped
model for every sampler. Beside it are diffusers' and k-diffusion's loops on the same network in the
same run.

A run is one whole trajectory as users get it: grid, noise streams, precision, static threshold,
w = 0. Theirs is `set_timesteps` (or `get_sigmas`) and the loop, with x0 clipped only where they
clip by default. Their noise comes from one generator for the whole batch, or in k-diffusion's SDE
solvers from a Brownian tree; "a seed an image" is diffusers with a list of generators, which gives
what our noise streams give: an image that does not depend on its batch. Every loop is measured in
two ways:

* Alone: in the network's place is a module that returns a ready output at once, so what remains is
  the loop. `overhead_share` is this time an evaluation, over that of a bare network call. It is
  the claim's figure, because it is hardly touched by the noise of the network's time.
  `loop_over_loop` compares two such times, `run_over_run` what they and the bare calls add up to.
* On the network: `whole_over_bare` is the whole run over as many bare calls, made right before or
  after it; `share_in_run` is the time outside the network over that inside it, in the same run,
  where caches are as cold as the network leaves them.

Measure on an idle machine, for a quarter of an hour: where another process holds a core, every
operation that torch shares among threads may wait milliseconds for its turn, and small operations
are then all that is measured. `load_average_before` tells.

An evaluation is one of the whole batch; RK45, which evaluates parts of it, is charged for the
parts. It needs the test requirements.

    python benchmarks/sampler_overhead.py [--batch 64] [--steps 6] [--repetitions 9] [--out FILE]
"""

import argparse
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import diffusers
import torch
from diffusers.utils.torch_utils import randn_tensor
from measuring import Spread, environment, from_tests, spread
from torch import Tensor, nn

from underone.checkpoint import DiffusionModel
from underone.diffusion import (
    GRIDS,
    RK45,
    SAMPLERS,
    AnnealedLangevin,
    Clipped,
    Sampler,
    nodes,
    trajectory,
)
from underone.generation import ANALYTIC, Draw, Setting, sampler_for
from underone.networks.precision import fast_dtype
from underone.zoo import load_model

CLAIMED_SHARE = 0.02
MODEL = "fashion-mnist"
GRID = "trailing"
# Runs without the network are short, so there can be many: this many rounds a repetition.
ROUNDS_ALONE = 10
# At its usual tolerance RK45 takes minutes a run; the loop is the same at this one.
RK45_TOLERANCE = 1e-2

Run = Callable[[], None]


class Watched(nn.Module):
    """A network, with a record of each call's batch size and of the time spent inside."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.rows: list[int] = []
        self.seconds = 0.0

    def forward(self, x: Tensor, condition: Tensor, label: Tensor) -> Tensor:
        started = perf_counter()
        output: Tensor = self.network(x, condition, label)
        self.seconds += perf_counter() - started
        self.rows.append(len(x))
        return output


class Instant(nn.Module):
    """In the network's place: a ready output, at once."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor, condition: Tensor, label: Tensor) -> Tensor:
        return self.output if len(x) == len(self.output) else self.output[: len(x)]


@dataclass(frozen=True)
class Subject:
    """What every loop is run on: the model, and ready inputs for bare calls of its network."""

    model: DiffusionModel
    steps: int
    dtype: torch.dtype | None
    x: Tensor
    condition: Tensor
    labels: Tensor

    @property
    def batch(self) -> int:
        return len(self.x)

    def autocast(self) -> torch.autocast:
        return torch.autocast("cpu", dtype=self.dtype, enabled=self.dtype is not None)


def make_subject(batch: int, steps: int) -> Subject:
    model = load_model(MODEL)
    assert model.num_classes is not None
    assert model.config.prediction.name == "noise", "their schedulers are told so"
    generator = torch.Generator().manual_seed(0)
    return Subject(
        model,
        steps,
        fast_dtype("cpu"),
        torch.randn(batch, *model.shape, generator=generator),
        torch.linspace(1, model.config.schedule.steps, batch),
        Draw(batch).class_labels(model.num_classes),
    )


@dataclass(frozen=True)
class Loop:
    """A sampling loop: `bind` gives its run on a network."""

    title: str
    bind: Callable[[nn.Module], Run]


# Ours.


def our_samplers(model: DiffusionModel) -> dict[str, Sampler]:
    """All of them; the one with an inner loop at 2 inner steps."""
    return {
        **SAMPLERS,
        ANALYTIC: sampler_for(model, Setting(ANALYTIC)),
        "annealed-langevin": AnnealedLangevin(inner=2),
        "rk45": RK45(RK45_TOLERANCE, RK45_TOLERANCE),
    }


def our_run(subject: Subject, sampler: Sampler, network: nn.Module) -> Run:
    model = replace(subject.model, network=network)
    denoiser = Clipped(model.denoiser(subject.dtype))
    keys = Draw(subject.batch).keys

    def run() -> None:
        path = nodes(GRIDS[GRID], denoiser.schedule, subject.steps)
        with torch.no_grad():
            for _ in trajectory(
                denoiser, sampler, path, shape=model.shape, keys=keys, labels=subject.labels
            ):
                pass

    return run


# Theirs.


def as_function(subject: Subject, network: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """(x, step (B,)) -> noise, in the precision we use; their steps count from 0."""

    def evaluate(x: Tensor, step: Tensor) -> Tensor:
        with subject.autocast():
            output: Tensor = network(x, step.to(torch.float32) + 1, subject.labels)
        return output.to(x.dtype)

    return evaluate


def diffusers_run(
    subject: Subject, scheduler_class: str, options: dict[str, Any], seed_an_image: bool
) -> Callable[[nn.Module], Run]:
    """The loop of diffusers' unconditional pipelines, as a function of the network."""
    scheduler = getattr(diffusers, scheduler_class)(
        beta_schedule="linear",
        beta_start=1e-4,
        beta_end=0.02,
        timestep_spacing=GRID,
        prediction_type="epsilon",
        **options,
    )
    # Their pipelines, too, look whether a scheduler draws noise.
    draws = "generator" in inspect.signature(scheduler.step).parameters

    def bind(network: nn.Module) -> Run:
        evaluate = as_function(subject, network)

        def run() -> None:
            generators = [
                torch.Generator().manual_seed(seed)
                for seed in range(subject.batch if seed_an_image else 1)
            ]
            extra = {"generator": generators if seed_an_image else generators[0]} if draws else {}
            with torch.no_grad():
                scheduler.set_timesteps(subject.steps)
                start = randn_tensor(subject.x.shape, generator=generators)
                x = start * scheduler.init_noise_sigma
                for step in scheduler.timesteps:
                    output = evaluate(
                        scheduler.scale_model_input(x, step), step.expand(subject.batch)
                    )
                    x = scheduler.step(output, step, x, **extra).prev_sample

        return run

    return bind


def k_diffusion_run(
    subject: Subject, function: str, options: dict[str, Any]
) -> Callable[[nn.Module], Run]:
    """A sampling function of k-diffusion on its wrapper for networks that predict noise."""
    sampling, external = (
        from_tests("peers").import_k_diffusion(part) for part in ("sampling", "external")
    )
    alpha_squared = (1 - subject.model.config.schedule.betas()).cumprod(0).float()

    def bind(network: nn.Module) -> Run:
        model = external.DiscreteEpsDDPMDenoiser(
            as_function(subject, network), alpha_squared, quantize=False
        )

        def run() -> None:
            torch.manual_seed(0)
            with torch.no_grad():
                sigmas = model.get_sigmas(subject.steps)
                x = torch.randn(subject.x.shape) * sigmas[0]
                getattr(sampling, function)(model, x, sigmas, disable=True, **options)

        return run

    return bind


@dataclass(frozen=True)
class Peer:
    """What of another library is run beside samplers of ours, and how it is configured."""

    library: str
    name: str
    called: str
    options: dict[str, Any]
    beside: tuple[str, ...]
    seed_an_image: bool = False

    @property
    def title(self) -> str:
        return f"{self.library} {self.name}{', a seed an image' if self.seed_an_image else ''}"

    def loop(self, subject: Subject) -> Loop:
        if self.library == "diffusers":
            bind = diffusers_run(subject, self.called, self.options, self.seed_an_image)
        else:
            bind = k_diffusion_run(subject, self.called, self.options)
        return Loop(self.title, bind)


def of_diffusers(name: str, scheduler: str, *beside: str, **options: Any) -> Peer:
    return Peer("diffusers", name, scheduler, options, beside)


def of_k_diffusion(name: str, *beside: str, **options: Any) -> Peer:
    """Up to its comma the name is the function's."""
    return Peer("k-diffusion", name, f"sample_{name.partition(',')[0]}", options, beside)


_MULTISTEP = "DPMSolverMultistepScheduler"
_SDE = {"algorithm_type": "sde-dpmsolver++"}
_DETERMINISTIC = (
    of_diffusers("DDIM", "DDIMScheduler", "ddim"),
    of_diffusers("Euler", "EulerDiscreteScheduler", "euler"),
    of_diffusers("Heun", "HeunDiscreteScheduler", "heun"),
    of_diffusers("DPM++ 1S", _MULTISTEP, "dpm-solver-1s", solver_order=1),
    of_diffusers("DPM++ 2M", _MULTISTEP, "dpm-solver-2m", solver_order=2),
    of_diffusers("DPM++ 3M", _MULTISTEP, "dpm-solver-3m", "dpm-solver-3m-exact", solver_order=3),
    of_diffusers("UniPC 3", "UniPCMultistepScheduler", "unipc", solver_order=3),
    of_diffusers("DEIS 3", "DEISMultistepScheduler", "deis", solver_order=3),
)
_STOCHASTIC = (
    of_diffusers("DDPM large", "DDPMScheduler", "ddpm-large", variance_type="fixed_large"),
    of_diffusers("DDPM small", "DDPMScheduler", "ddpm-small", variance_type="fixed_small"),
    of_diffusers("Euler ancestral", "EulerAncestralDiscreteScheduler", "ddpm-small"),
    of_diffusers("DPM++ 2M SDE", _MULTISTEP, "dpm-solver-2m-sde", solver_order=2, **_SDE),
    of_diffusers("SA-Solver", "SASolverScheduler", "sa-solver"),
    of_diffusers("DPM++ 3M SDE", _MULTISTEP, "dpm-solver-3m-sde", solver_order=3, **_SDE),
)
# Of the same method and order. Nothing like rk45, ddpm-analytic and the Langevin samplers is there.
PEERS = (
    *_DETERMINISTIC,
    *_STOCHASTIC,
    *(replace(peer, seed_an_image=True) for peer in _STOCHASTIC),
    of_k_diffusion("euler", "euler"),
    of_k_diffusion("heun", "heun"),
    # The churn of our "edm".
    of_k_diffusion("heun, churn 40", "edm", s_churn=40.0, s_tmin=0.05, s_tmax=50.0, s_noise=1.003),
    of_k_diffusion("dpmpp_2m", "dpm-solver-2m"),
    of_k_diffusion("dpmpp_2m_sde", "dpm-solver-2m-sde"),
    of_k_diffusion("dpmpp_3m_sde", "dpm-solver-3m-sde"),
    of_k_diffusion("lms, order 3", "deis", order=3),
    # Adams-Bashforth of the same order, but with weights of its own for unequal steps.
    of_k_diffusion("lms, order 4", "ipndm", order=4),
)


# Measuring.


@dataclass(frozen=True)
class Timing:
    """The seconds of one run, in all and inside the network, and the batch size of each call."""

    total: float
    inside: float
    rows: tuple[int, ...]
    batch: int

    @property
    def evaluations(self) -> float:
        """Of a whole batch."""
        return sum(self.rows) / self.batch

    @property
    def in_whole_batches(self) -> bool:
        return set(self.rows) == {self.batch}

    @property
    def loop(self) -> float:
        """Seconds outside the network, an evaluation."""
        return (self.total - self.inside) / self.evaluations


def timed(run: Run, watched: Watched, batch: int) -> Timing:
    watched.rows, watched.seconds = [], 0.0
    total = seconds_of(run)
    return Timing(total, watched.seconds, tuple(watched.rows), batch)


def seconds_of(run: Run) -> float:
    started = perf_counter()
    run()
    return perf_counter() - started


def bare_calls(subject: Subject, rows: Sequence[int]) -> Run:
    """Calls of the network itself, with ready inputs of these batch sizes."""
    inputs = {
        count: (subject.x[:count], subject.condition[:count], subject.labels[:count])
        for count in set(rows)
    }

    def run() -> None:
        with torch.no_grad(), subject.autocast():
            for count in rows:
                subject.model.network(*inputs[count])

    return run


def ready_output(subject: Subject) -> Tensor:
    with torch.no_grad(), subject.autocast():
        output: Tensor = subject.model.network(subject.x, subject.condition, subject.labels)
    return output


def measure_alone(subject: Subject, loops: Sequence[Loop], rounds: int) -> dict[str, list[Timing]]:
    """Every loop without the network, all of them in turn, round after round."""
    watched = Watched(Instant(ready_output(subject)))
    runs = {loop.title: loop.bind(watched) for loop in loops}
    for run in runs.values():  # not measured: what is made once, and memory, is then in place
        run()
    timings: dict[str, list[Timing]] = {title: [] for title in runs}
    for _ in range(rounds):
        for title, run in runs.items():
            timings[title].append(timed(run, watched, subject.batch))
    return timings


@dataclass(frozen=True)
class Pair:
    """A run on the network, and as many bare calls beside it."""

    whole: Timing
    bare: float


def measure_on_network(
    subject: Subject, loops: Sequence[Loop], repetitions: int
) -> dict[str, list[Pair]]:
    """Every loop on the network beside bare calls, in turn first and second."""
    watched = Watched(subject.model.network)
    runs: dict[str, tuple[Run, Run]] = {}
    for loop in loops:
        run = loop.bind(watched)
        timed(run, watched, subject.batch)  # which also tells what to call barely
        runs[loop.title] = run, bare_calls(subject, watched.rows)
    pairs: dict[str, list[Pair]] = {title: [] for title in runs}
    for repetition in range(repetitions):
        for title, (run, bare) in runs.items():
            first = seconds_of(bare) if repetition % 2 else None
            whole = timed(run, watched, subject.batch)
            pairs[title].append(Pair(whole, seconds_of(bare) if first is None else first))
    return pairs


# Reporting.


@dataclass(frozen=True)
class Cost:
    """What one loop costs an evaluation."""

    evaluations: float
    loop_microseconds: Spread
    overhead_share: float
    share_in_run: Spread
    loop_microseconds_in_run: Spread
    whole_over_bare: Spread


def cost(alone: Sequence[Timing], pairs: Sequence[Pair], network_seconds: float) -> Cost:
    loop = spread([1e6 * timing.loop for timing in alone])
    return Cost(
        pairs[0].whole.evaluations,
        loop,
        1e-6 * loop.median / network_seconds,
        spread([pair.whole.total / pair.whole.inside - 1 for pair in pairs]),
        spread([1e6 * pair.whole.loop for pair in pairs]),
        spread([pair.whole.total / pair.bare for pair in pairs]),
    )


def bare_seconds(pairs: Sequence[Pair]) -> Spread:
    """Of one bare call of a whole batch."""
    return spread(
        [pair.bare / pair.whole.evaluations for pair in pairs if pair.whole.in_whole_batches]
    )


def over_peer(ours: Sequence[Timing], theirs: Sequence[Timing]) -> Spread:
    """The time of our loop over theirs, an evaluation, round by round."""
    if ours[0].evaluations != theirs[0].evaluations:
        raise RuntimeError(
            f"{ours[0].evaluations:g} evaluations beside their {theirs[0].evaluations:g}: "
            "choose other --steps"
        )
    return spread([mine.loop / peer.loop for mine, peer in zip(ours, theirs, strict=True)])


def report(subject: Subject, repetitions: int) -> dict[str, Any]:
    """Everything that is measured, as the JSON file has it."""
    surroundings = environment("diffusers", "k-diffusion", "torchsde")
    ours = {
        name: Loop(f"underone {name}", partial(our_run, subject, sampler))
        for name, sampler in our_samplers(subject.model).items()
    }
    theirs = {peer.title: peer.loop(subject) for peer in PEERS}
    loops = [*ours.values(), *theirs.values()]
    alone = measure_alone(subject, loops, repetitions * ROUNDS_ALONE)
    pairs = measure_on_network(subject, loops, repetitions)
    bare = bare_seconds([pair for name in pairs for pair in pairs[name]])
    costs = {title: cost(alone[title], pairs[title], bare.median) for title in alone}
    samplers = {
        name: {
            **asdict(costs[loop.title]),
            "peers": {
                peer.title: {
                    "loop_over_loop": asdict(over_peer(alone[loop.title], alone[peer.title])),
                    "run_over_run": (1 + costs[loop.title].overhead_share)
                    / (1 + costs[peer.title].overhead_share),
                }
                for peer in PEERS
                if name in peer.beside
            },
        }
        for name, loop in ours.items()
    }
    most = max(ours, key=lambda name: costs[ours[name].title].overhead_share)
    return {
        "claim": {
            "largest_overhead_share": costs[ours[most].title].overhead_share,
            "of": most,
            "claimed": CLAIMED_SHARE,
            "largest_share_in_run": max(
                costs[loop.title].share_in_run.median for loop in ours.values()
            ),
            "loops_slower_than_a_peer": [
                f"{name} than {title}"
                for name, figures in samplers.items()
                for title, ratios in figures["peers"].items()
                if ratios["loop_over_loop"]["median"] > 1
            ],
            "largest_run_over_run": max(
                ratios["run_over_run"]
                for figures in samplers.values()
                for ratios in figures["peers"].values()
            ),
        },
        "environment": surroundings,
        "network_dtype": str(subject.dtype or torch.float32).removeprefix("torch."),
        "model": {"name": subject.model.name, "sha256": subject.model.sha256},
        "batch": subject.batch,
        "steps": subject.steps,
        "grid": GRID,
        "repetitions": repetitions,
        "network_seconds": asdict(bare),
        "samplers": samplers,
        "peers": {title: asdict(costs[title]) for title in theirs},
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    return parser.parse_args()


def table(results: dict[str, Any]) -> str:
    """The share of every loop in the network's time, and its time over that of others' loops."""
    rows = [
        f"In {results['network_dtype']}, batches of {results['batch']}:",
        "",
        "| sampler | its loop, of the network's time | its time over another's loop |",
        "| --- " * 3 + "|",
    ]
    for name, found in results["samplers"].items():
        peers = ", ".join(
            f"{each['loop_over_loop']['median']:.2f} ({peer})"
            for peer, each in found["peers"].items()
        )
        rows.append(f"| {name} | {found['overhead_share']:.1%} | {peers} |")
    claim = results["claim"]
    slower, count = len(claim["loops_slower_than_a_peer"]), peers_of(results)
    rows += [
        "",
        f"Above 1 ours is the slower: {slower} of {count} times. The whole run, network included, "
        f"takes at most {claim['largest_run_over_run'] - 1:.1%} longer than theirs.",
    ]
    return "\n".join(rows)


def peers_of(results: dict[str, Any]) -> int:
    return sum(len(found["peers"]) for found in results["samplers"].values())


def main() -> None:
    given = arguments()
    figures = report(make_subject(given.batch, given.steps), given.repetitions)
    print(table(figures))
    claim, network = figures["claim"], figures["network_seconds"]
    print(f"\na bare call: {1e3 * network['median']:.1f} ms")
    print(f"largest overhead: {claim['largest_overhead_share']:.2%}, of {claim['of']}")
    print(f"largest share outside the network, in runs: {claim['largest_share_in_run']:.2%}")
    print(f"largest run over a peer's run, network included: {claim['largest_run_over_run']:.4f}")
    slower = claim["loops_slower_than_a_peer"]
    print(
        "\n".join(["loops alone that are slower than a peer's:", *slower, f"{len(slower)} in all"])
    )
    given.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
