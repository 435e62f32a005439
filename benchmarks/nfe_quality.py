"""The question: at few network evaluations, is our best sampler ahead of diffusers' best?

    python benchmarks/nfe_quality.py screen     # every candidate, 1,000 samples
    python benchmarks/nfe_quality.py confirm    # the best of each, 5,000 samples of other seeds
    python benchmarks/nfe_quality.py table      # the result as Markdown

On the shipped FashionMNIST model, unguided, balanced labels, at 5, 8, 10 and 20 evaluations. F*
is the model's FID at 200 steps of a deterministic solver, on the same seeds. All of theirs are
screened at 5, 8 and 10 evaluations; at 20, which costs as much as these together, the `KEPT` best
at 10 are. The network is compiled, for both alike; in the result that is kept, theirs at 5 and 8
evaluations and some at 10 were screened before it was, which differs by rounding. Every cell is
kept in `nfe_quality.json` once measured: stopped at any moment, the script goes on where it was.
"""

import argparse
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import diffusers
import torch
from measuring import compiled
from torch import Tensor

from underone.checkpoint import DiffusionModel
from underone.data import SampleSet, to_uint8
from underone.diffusion import NoiseStreams, node_at
from underone.files import write_json
from underone.generation import Draw, Setting, generate
from underone.metrics import Extractor, Reference, Yardstick, measure
from underone.networks.precision import fast_dtype
from underone.zoo import find_reference, load_extractor, load_model

RESULTS = Path(__file__).with_suffix(".json")
BUDGETS = (5, 8, 10, 20)
# Ours is also confirmed at the most evaluations that are at least 20 % fewer.
SAVINGS = {8: 6, 10: 8, 20: 16}
SCREENED, CONFIRMED = Draw(1000, seed=100), Draw(5000, seed=200)
REFERENCE_SETTING = Setting("dpm-solver-2m", 200)
BATCH = 250
BEST = 3
# How many of theirs, the best at so many evaluations, are screened at so many more.
KEPT, KEPT_AT, KEPT_FOR = 16, 10, 20


@dataclass(frozen=True)
class Ours:
    """One of our samplers on one grid; {steps} in the grid stands for the number of steps."""

    sampler: str
    grid: str

    @property
    def name(self) -> str:
        return f"{self.sampler} @ {self.grid}"

    def draw(self, model: DiffusionModel, evaluations: int, draw: Draw) -> tuple[Tensor, float]:
        samples = generate(
            model,
            Setting(self.sampler, self._steps(evaluations), self.grid),
            draw,
            batch_size=BATCH,
        )
        return samples.images, sum(samples.protocol["evaluations"].values())

    def _steps(self, evaluations: int) -> int:
        return (evaluations + 1) // 2 if self.sampler.startswith("heun") else evaluations


@dataclass(frozen=True)
class Theirs:
    """One of diffusers' schedulers with its options, driven as its documentation shows."""

    scheduler: str
    options: tuple[tuple[str, Any], ...]

    @property
    def name(self) -> str:
        return f"{self.scheduler}({', '.join(f'{key}={value}' for key, value in self.options)})"

    def draw(self, model: DiffusionModel, evaluations: int, draw: Draw) -> tuple[Tensor, float]:
        images, counts = [], Counter[int]()
        labels = draw.class_labels(model.num_classes)
        for start in range(0, draw.count, BATCH):
            keys = draw.keys[start : start + BATCH]
            x, used = self._run(model, evaluations, keys, labels[start : start + BATCH])
            images.append(to_uint8(x))
            counts[used] += len(keys)
        return torch.cat(images), sum(used * count for used, count in counts.items()) / draw.count

    @torch.no_grad()
    def _run(
        self,
        model: DiffusionModel,
        evaluations: int,
        keys: list[tuple[int, int]],
        labels: Tensor,
    ) -> tuple[Tensor, int]:
        scheduler = self._scheduler(evaluations)
        generator = torch.Generator().manual_seed(keys[0][0] * 1_000_003 + keys[0][1])
        x = NoiseStreams(keys, model.shape)() * scheduler.init_noise_sigma
        denoiser, used = model.denoiser(fast_dtype("cpu")), 0
        for index in scheduler.timesteps:
            scaled = scheduler.scale_model_input(x, index)
            # Their index of the step k is k - 1.
            node = node_at(denoiser.schedule, (index.double() + 1) / denoiser.schedule.steps)
            noise = (scaled - node.alpha * denoiser(scaled, node, labels)) / node.sigma
            used += 1
            x = _stepped(scheduler, noise, index, x, generator)
        return x, used

    def _scheduler(self, evaluations: int) -> Any:
        """With the most steps whose evaluations do not exceed the budget."""
        for steps in range(evaluations, 0, -1):
            scheduler = getattr(diffusers, self.scheduler)(
                num_train_timesteps=1000,
                beta_start=1e-4,
                beta_end=0.02,
                beta_schedule="linear",
                prediction_type="epsilon",
                **dict(self.options),
            )
            scheduler.set_timesteps(steps)
            if len(scheduler.timesteps) <= evaluations:
                return scheduler
        raise ValueError(f"{self.name} needs more than {evaluations} evaluations")


def _stepped(scheduler: Any, output: Tensor, index: Tensor, x: Tensor, generator: Any) -> Tensor:
    """One step; some schedulers take no generator."""
    try:
        return scheduler.step(output, index, x, generator=generator).prev_sample
    except TypeError:
        return scheduler.step(output, index, x).prev_sample


def theirs() -> Iterator[Theirs]:
    """Every scheduler of diffusers for a discrete noise-prediction model, and their spacings."""
    for spacing in ("leading", "trailing", "linspace"):
        place = ("timestep_spacing", spacing)
        for clip in (True, False):
            yield Theirs("DDIMScheduler", (place, ("clip_sample", clip)))
        for variance in ("fixed_small", "fixed_large"):
            yield Theirs("DDPMScheduler", (place, ("variance_type", variance)))
        yield Theirs("PNDMScheduler", (place, ("skip_prk_steps", True)))
        for name in ("Euler", "Heun", "LMS", "KDPM2", "EulerAncestral", "KDPM2Ancestral"):
            yield Theirs(f"{name}DiscreteScheduler", (place,))
        for name in ("Euler", "Heun"):
            yield Theirs(f"{name}DiscreteScheduler", (place, ("use_karras_sigmas", True)))
        yield Theirs("SASolverScheduler", (place,))
        for order in (2, 3):
            solver = ("solver_order", order)
            yield Theirs(_DPM, (place, solver))
            yield Theirs(_DPM, (place, solver, ("thresholding", True)))
            yield Theirs(_DPM, (place, solver, ("algorithm_type", "sde-dpmsolver++")))
            yield Theirs("UniPCMultistepScheduler", (place, solver))
            # Its bh1 has no step to sigma = 0: it gives NaN.
            no_zero = (("solver_type", "bh1"), ("final_sigmas_type", "sigma_min"))
            yield Theirs("UniPCMultistepScheduler", (place, solver, *no_zero))
            yield Theirs("DEISMultistepScheduler", (place, solver))
    # These have no spacing by time steps, or replace it.
    for order in (2, 3):
        solver = ("solver_order", order)
        yield Theirs("DPMSolverSinglestepScheduler", (solver,))
        yield Theirs(_DPM, (solver, ("use_lu_lambdas", True)))
        for scheduler in (_DPM, "UniPCMultistepScheduler", "DEISMultistepScheduler"):
            yield Theirs(scheduler, (solver, ("use_karras_sigmas", True)))


_DPM = "DPMSolverMultistepScheduler"


def ours() -> Iterator[Ours]:
    """Our samplers on our grids: the classics, and one of each kind that is made for few steps."""
    for sampler in ("ddim", "ddpm-small", "ddpm-analytic", "heun"):
        yield Ours(sampler, "trailing")
    for sampler in ("dpm-solver-2m", "unipc,order=2", "dpm-solver-2m-sde", "sa-solver"):
        for ends in ("last=20", "last=35"):
            yield Ours(sampler, f"log-snr,{ends}")
    # Where there are steps to take it away again, more noise corrects more of the model's errors.
    yield Ours("sa-solver,eta=2", "log-snr,last=35")


def _star_key(draw: Draw) -> str:
    return f"F* | {draw.count} of seed {draw.seed}"


AnyCandidate = TypeVar("AnyCandidate", Ours, Theirs)


def known() -> dict[str, Any]:
    """What has been measured."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


class Bench:
    """The cells measured so far; the model, and what it is measured with, when one is missing."""

    def __init__(self, cells: dict[str, Any]) -> None:
        self.cells = cells

    @cached_property
    def model(self) -> DiffusionModel:
        return compiled(load_model("fashion-mnist"))

    @cached_property
    def reference(self) -> Reference:
        return find_reference("fashion-mnist")

    @cached_property
    def extractor(self) -> Extractor:
        return load_extractor(self.reference.origin.extractor)

    def fid(self, candidate: Ours | Theirs, budget: int, draw: Draw) -> float:
        """The FID of a candidate at most `budget` evaluations an image, kept once measured."""
        return self._cell(
            f"{candidate.name} | {budget} | {draw.count} of seed {draw.seed}",
            lambda: candidate.draw(self.model, budget, draw),
            draw,
        )

    def best_possible(self, draw: Draw) -> float:
        """F*: the FID at 200 steps of a deterministic solver."""

        def images() -> tuple[Tensor, float]:
            samples = generate(self.model, REFERENCE_SETTING, draw, batch_size=BATCH)
            return samples.images, sum(samples.protocol["evaluations"].values())

        return self._cell(_star_key(draw), images, draw)

    def _cell(self, key: str, draw_images: Callable[[], tuple[Tensor, float]], draw: Draw) -> float:
        if key not in self.cells:
            images, evaluations = draw_images()
            labels = draw.class_labels(self.model.num_classes)
            samples = SampleSet(images, labels, torch.tensor(draw.keys), {})
            fid = measure(samples, Yardstick(self.extractor, self.reference)).fid
            self.cells[key] = {"fid": round(fid, 4), "evaluations": evaluations}
            write_json(RESULTS, self.cells)
            print(f"{fid:8.3f}  {key}", flush=True)
        return float(self.cells[key]["fid"])


def screened(bench: Bench, budget: int) -> list[Theirs]:
    """Those of theirs that are screened at a budget."""
    if budget != KEPT_FOR:
        return list(theirs())
    return best(bench, theirs(), KEPT_AT, KEPT)


def screen(bench: Bench) -> None:
    """Every candidate at every budget, and ours at those that are at least 20 % lower."""
    for budget in BUDGETS:
        best(bench, ours(), budget, BEST)
        if budget in SAVINGS:
            best(bench, ours(), SAVINGS[budget], BEST)
    for budget in BUDGETS:
        best(bench, screened(bench, budget), budget, BEST)


def best(
    bench: Bench, candidates: Iterable[AnyCandidate], budget: int, count: int
) -> list[AnyCandidate]:
    """The best in a screening at a budget; one whose images are not finite is the last."""

    def fid(candidate: AnyCandidate) -> float:
        value = bench.fid(candidate, budget, SCREENED)
        return math.inf if math.isnan(value) else value

    return sorted(candidates, key=fid)[:count]


def confirm(bench: Bench) -> None:
    """The best of both at every budget, ours also at fewer evaluations, and F*."""
    for budget in BUDGETS:
        confirmed(bench, screened(bench, budget), budget, BEST)
        confirmed(bench, ours(), budget, 1)
        if budget in SAVINGS:
            confirmed(bench, ours(), SAVINGS[budget], 1)
    bench.best_possible(CONFIRMED)


def table(cells: dict[str, Any]) -> str:
    """The confirmed figures as Markdown."""
    bench = Bench(cells)
    star = bench.cells.get(_star_key(CONFIRMED), {}).get("fid", "not measured yet")
    lines = [
        f"`fashion-mnist`, w = 0, in the features of its classifier: chosen by {SCREENED.count:,} "
        f"samples, measured by {CONFIRMED.count:,} of other seeds. Theirs are on the spacings that "
        "they offer; on the same steps UniPC and DPM-Solver++ of both give the same images, so "
        "that what is ahead is mostly where the steps lie. The deterministic limit of this model "
        "is not worth approaching: "
        f"{REFERENCE_SETTING.sampler} at {REFERENCE_SETTING.steps} steps has FID {star}.",
        "",
        "| evaluations | the best of diffusers | FID | ours | FID | ours, evaluations | FID |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    ahead: list[str] = []
    behind: list[str] = []
    for budget in BUDGETS:
        peer, peer_fid = confirmed(bench, screened(bench, budget), budget, BEST)
        mine, my_fid = confirmed(bench, ours(), budget, 1)
        row = [f"{budget}", peer.name, f"{peer_fid:.3f}", mine.name, f"{my_fid:.3f}"]
        if budget in SAVINGS:
            saved, saved_fid = confirmed(bench, ours(), SAVINGS[budget], 1)
            row += [f"{saved.name}, {SAVINGS[budget]}", f"{saved_fid:.3f}"]
        else:
            row += ["", ""]
        lines.append(f"| {' | '.join(row)} |")
        (ahead if my_fid < peer_fid else behind).append(str(budget))
    told = f"Ours is ahead at {', '.join(ahead) or 'no'} evaluations"
    theirs = f", theirs at {', '.join(behind)}" if behind else ""
    return "\n".join([*lines, "", f"{told}{theirs}."])


def confirmed(
    bench: Bench, candidates: Iterable[AnyCandidate], budget: int, count: int
) -> tuple[AnyCandidate, float]:
    """The best in the confirmation among the `count` best in the screening, and its FID."""
    finalists = best(bench, candidates, budget, count)
    winner = min(finalists, key=lambda candidate: bench.fid(candidate, budget, CONFIRMED))
    return winner, bench.fid(winner, budget, CONFIRMED)


def main() -> None:
    parser = argparse.ArgumentParser(description="Quality at few network evaluations.")
    parser.add_argument("part", choices=["screen", "confirm", "table"])
    part = parser.parse_args().part
    if part == "table":
        print(table(known()))
    else:
        {"screen": screen, "confirm": confirm}[part](Bench(known()))


if __name__ == "__main__":
    main()
