"""The question: at 3 to 8 evaluations, is the tuned sampler ahead of all classical ones?

    python benchmarks/tuned.py           # draws and measures what is missing
    python benchmarks/tuned.py table     # the result as Markdown

On the preconditioned FashionMNIST model, unguided, balanced labels, in the features of all three
shipped extractors. Every scheduler of diffusers that `nfe_quality` knows, and every one of our
samplers on four grids, were screened at 5 evaluations on the plain model (`tuned_plain.json`);
of ours and of theirs, those within `WITHIN` times the best there in any extractor's features are
screened on this one.
What is among the `KEPT` best there in any extractor's features, or was on the plain model at 8 or
10 in `nfe_quality.json`, is screened at each number of evaluations; the best there in any
extractor's features is drawn anew with other seeds, beside the tuned sampler and, at 5,000 samples,
DDIM at 20 steps. Where the tuned sampler is behind, it and the best rival are drawn with seeds
that neither was chosen on, and compared sample by sample. Every cell is kept in `tuned.json` once
measured: stopped at any moment, the script goes on where it was.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from measuring import environment
from nfe_quality import BATCH, Ours, Theirs, best, ours, theirs
from nfe_quality import Bench as Screening
from nfe_quality import known as screened
from torch import Tensor

from underone.checkpoint import DiffusionModel
from underone.data import SampleSet
from underone.diffusion import SAMPLERS
from underone.files import write_json
from underone.generation import TUNED, Draw, Setting, generate
from underone.metrics import Figure, Yardstick, measure
from underone.study.contest import paired
from underone.zoo import load_model, load_yardstick

MODEL = "fashion-mnist-preconditioned"
RESULTS = Path(__file__).with_suffix(".json")
PLAIN = RESULTS.with_name("tuned_plain.json")
BUDGETS = (3, 4, 5, 6, 7, 8)
SCREENED, CONFIRMED, BESIDE_DDIM = Draw(300, seed=500), Draw(2000, seed=600), Draw(5000, seed=600)
PAIRED = Draw(2000, seed=700)
SCREENED_AT, WITHIN, KEPT = 5, 1.5, 2
GRIDS = ("trailing", "log-snr,last=20", "log-snr,last=35", "karras,last=35")
EXTRACTORS = ("fashion-mnist", "fashion-mnist-transformer", "fashion-mnist-encoder")
DDIM_STEPS = 20


@dataclass(frozen=True)
class Fixed:
    """One of our samplers at the number of steps it has."""

    setting: Setting

    @property
    def name(self) -> str:
        return f"{self.setting.sampler}, {self.setting.steps} steps"

    def draw(self, model: DiffusionModel, evaluations: int, draw: Draw) -> tuple[Tensor, float]:
        samples = generate(model, self.setting, draw, batch_size=BATCH)
        return samples.images, sum(samples.protocol["evaluations"].values())


Candidate = Ours | Theirs | Fixed
DDIM = Fixed(Setting("ddim", DDIM_STEPS))


def known() -> dict[str, Any]:
    """What has been measured."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {"cells": {}}


class Bench:
    """The cells measured so far; the model, and what it is measured with, when one is missing."""

    def __init__(self, results: dict[str, Any]) -> None:
        self.results = results

    @cached_property
    def model(self) -> DiffusionModel:
        return load_model(MODEL)

    @cached_property
    def yardsticks(self) -> dict[str, Yardstick]:
        return {name: load_yardstick(name) for name in EXTRACTORS}

    def fids(self, candidate: Candidate, budget: int, draw: Draw) -> dict[str, float]:
        """The FID of a candidate under each extractor, kept once measured."""
        key = _key(candidate, budget, draw)
        cells = self.results["cells"]
        if key not in cells:
            figures, evaluations = self.figures(candidate, budget, draw)
            cells[key] = {name: round(figure.value, 4) for name, figure in figures.items()}
            cells[key]["evaluations"] = evaluations
            self.results.setdefault("environment", environment("diffusers"))
            write_json(RESULTS, self.results)
            print(f"{cells[key]}  {key}", flush=True)
        found = cells[key]
        return {name: found[name] for name in EXTRACTORS}

    def figures(
        self, candidate: Candidate, budget: int, draw: Draw
    ) -> tuple[dict[str, Figure], float]:
        """The FID under each extractor, and the evaluations an image took."""
        images, evaluations = candidate.draw(self.model, budget, draw)
        labels = draw.class_labels(self.model.num_classes or 1)
        samples = SampleSet(images, labels, torch.tensor(draw.keys), {})
        each = {name: measure(samples, by).figures["fid"] for name, by in self.yardsticks.items()}
        return each, evaluations

    def apart(self, budget: int, rivals: Iterable[Candidate]) -> None:
        """How far the tuned sampler is above each rival, and how sure that is; kept once known."""
        kept = self.results.setdefault("paired", {})
        missing = [each for each in rivals if _key(each, budget, PAIRED) not in kept]
        if not missing:
            return
        mine, _ = self.figures(tuned(budget), budget, PAIRED)
        for rival in missing:
            theirs, _ = self.figures(rival, budget, PAIRED)
            found = {name: paired([mine[name]], [theirs[name]]) for name in EXTRACTORS}
            kept[_key(rival, budget, PAIRED)] = {
                name: [each.difference, each.interval.low, each.interval.high]
                for name, each in found.items()
                if each is not None
            }
            write_json(RESULTS, self.results)


def candidates_of_ours() -> list[Ours]:
    """Every sampler that takes one evaluation a step, and Heun's, on every grid."""
    names = [
        name for name, sampler in SAMPLERS.items() if sampler.evaluations(7) == 7 or name == "heun"
    ]
    every = [Ours(name, grid) for name in (*names, "ddpm-analytic") for grid in GRIDS]
    return list(dict.fromkeys([*every, *ours()]))


def near_the_best_on_the_plain_model(candidates: Iterable[Ours | Theirs]) -> list[Ours | Theirs]:
    """Those within `WITHIN` times the lowest FID there in any extractor's features."""
    cells = json.loads(PLAIN.read_text())["cells"]
    found = {each: cells[_key(each, SCREENED_AT, SCREENED)] for each in candidates}
    near: dict[Ours | Theirs, None] = {}
    for name in EXTRACTORS:
        least = min(_finite(fids[name]) for fids in found.values())
        near |= dict.fromkeys(each for each in found if found[each][name] <= WITHIN * least)
    return list(near)


def rivals(bench: Bench) -> list[Sequence[Ours | Theirs]]:
    """What is screened at each number of evaluations: of ours, and of diffusers."""
    earlier = Screening(screened())
    chosen: list[Sequence[Ours | Theirs]] = []
    pairs = ((candidates_of_ours(), list(ours())), (list(theirs()), list(theirs())))
    for every, screened_before in pairs:
        candidates = near_the_best_on_the_plain_model(every)
        kept: dict[Ours | Theirs, None] = {}
        for name in EXTRACTORS:
            kept |= dict.fromkeys(ranked(bench, candidates, SCREENED_AT, name)[:KEPT])
        for budget in (8, 10):
            kept |= dict.fromkeys(best(earlier, screened_before, budget, KEPT // 2))
        chosen.append(list(kept))
    return chosen


def ranked(
    bench: Bench, candidates: Sequence[Ours | Theirs], budget: int, extractor: str
) -> list[Ours | Theirs]:
    """The candidates by their FID in the screening, the lowest first; NaN is the worst."""
    return sorted(
        candidates, key=lambda each: _finite(bench.fids(each, budget, SCREENED)[extractor])
    )


def finalists(bench: Bench, candidates: Sequence[Ours | Theirs], budget: int) -> list[Candidate]:
    """The best in the screening under each extractor, once each."""
    winners = (ranked(bench, candidates, budget, name)[0] for name in EXTRACTORS)
    return list(dict.fromkeys(winners))


def _key(candidate: Candidate, budget: int, draw: Draw) -> str:
    return f"{candidate.name} | {budget} | {draw.count} of seed {draw.seed}"


def _finite(fid: float) -> float:
    """NaN, of images that are not finite, is the worst."""
    return float("inf") if fid != fid else fid


def best_of(bench: Bench, candidates: Sequence[Candidate], budget: int) -> dict[str, Any]:
    """The best confirmed figure under each extractor, and whose it is."""
    every = [(candidate, bench.fids(candidate, budget, CONFIRMED)) for candidate in candidates]
    return {
        name: min(((fids[name], candidate.name) for candidate, fids in every))
        for name in EXTRACTORS
    }


def ahead(bench: Bench, every: Sequence[Sequence[Candidate]], budget: int) -> dict[str, Candidate]:
    """Under each extractor where the tuned sampler is behind, who is ahead of it and of all."""
    mine = bench.fids(tuned(budget), budget, CONFIRMED)
    final = [each for candidates in every for each in finalists(bench, candidates, budget)]
    found = {}
    for name in EXTRACTORS:
        best = min(final, key=lambda each: bench.fids(each, budget, CONFIRMED)[name])
        if bench.fids(best, budget, CONFIRMED)[name] < mine[name]:
            found[name] = best
    return found


def tuned(budget: int) -> Fixed:
    return Fixed(Setting(TUNED, budget))


def run(bench: Bench) -> None:
    """All cells, the tuned ones last."""
    every = rivals(bench)
    for budget in BUDGETS:
        for candidates in every:
            best_of(bench, finalists(bench, candidates, budget), budget)
    for budget in BUDGETS:
        bench.fids(tuned(budget), budget, CONFIRMED)
    bench.fids(tuned(SCREENED_AT), SCREENED_AT, BESIDE_DDIM)
    bench.fids(DDIM, DDIM_STEPS, BESIDE_DDIM)
    for budget in BUDGETS:
        bench.apart(budget, dict.fromkeys(ahead(bench, every, budget).values()))


def table(results: dict[str, Any]) -> str:
    """One row a number of evaluations and extractor."""
    bench = Bench(results)
    every = rivals(bench)
    lines = [
        "| evaluations | extractor | tuned | ours, classical | | diffusers | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for budget in BUDGETS:
        mine = bench.fids(tuned(budget), budget, CONFIRMED)
        others = [
            best_of(bench, finalists(bench, candidates, budget), budget) for candidates in every
        ]
        for name in EXTRACTORS:
            cells = [f"{fid:.3f} | {whose}" for fid, whose in (other[name] for other in others)]
            lines.append(f"| {budget} | {name} | {mine[name]:.3f} | {' | '.join(cells)} |")
    lines += ["", f"At {BESIDE_DDIM.count:,} samples:", ""]
    for candidate, budget in ((tuned(SCREENED_AT), SCREENED_AT), (DDIM, DDIM_STEPS)):
        fids = bench.fids(candidate, budget, BESIDE_DDIM)
        told = ", ".join(f"{fid:.3f} ({name})" for name, fid in fids.items())
        lines.append(f"- {candidate.name}: {told}.")
    lines += _paired_lines(bench, every)
    return "\n".join(lines)


def _paired_lines(bench: Bench, every: Sequence[Sequence[Candidate]]) -> list[str]:
    """Where it was behind: both drawn again and compared sample by sample."""
    kept = bench.results.get("paired", {})
    rows = []
    for budget in BUDGETS:
        for rival in dict.fromkeys(ahead(bench, every, budget).values()):
            for name, (apart, low, high) in kept.get(_key(rival, budget, PAIRED), {}).items():
                interval = f"{apart:+.3f} ({low:+.3f} to {high:+.3f})"
                rows.append(f"| {budget} | {name} | {rival.name} | {interval} |")
    if not rows:
        return []
    return [
        "",
        f"Where it was behind, both on {PAIRED.count:,} paired samples of other seeds:",
        "",
        "| evaluations | extractor | the best rival there | tuned minus rival, 95 % interval |",
        "| --- | --- | --- | --- |",
        *rows,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", nargs="?", choices=("run", "table"), default="run")
    results = known()
    if parser.parse_args().command == "run":
        run(Bench(results))
    print(table(results))


if __name__ == "__main__":
    main()
