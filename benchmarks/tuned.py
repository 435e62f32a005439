"""The claim: at 3 to 8 evaluations the tuned sampler beats all classical ones, diffusers' too.

    python benchmarks/tuned.py           # draws and measures what is missing
    python benchmarks/tuned.py table     # the result as Markdown

On the shipped FashionMNIST model, unguided, balanced labels. At each number of evaluations our
classical samplers and the schedulers of diffusers that were best in `nfe_quality.json` are screened
at 1,000 samples; whatever is the best of either in any of the three shipped extractors is drawn at
5,000 samples of other seeds, beside the tuned sampler and DDIM at 20 steps. Every cell is kept in
`tuned.json` once measured: stopped at any moment, the script goes on where it was.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from measuring import environment
from nfe_quality import BATCH, KEPT, KEPT_AT, Ours, Theirs, best, ours, theirs
from nfe_quality import Bench as Screening
from torch import Tensor

from underone.checkpoint import DiffusionModel
from underone.data import SampleSet
from underone.files import write_json
from underone.generation import TUNED, Draw, Setting, generate
from underone.metrics import Yardstick, measure
from underone.zoo import load_model, load_yardstick

RESULTS = Path(__file__).with_suffix(".json")
BUDGETS = (3, 4, 5, 6, 7, 8)
# Beyond the claim, for the table.
FURTHER = (9, 10)
SCREENED, CONFIRMED = Draw(1000, seed=500), Draw(5000, seed=600)
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


class Bench:
    """The cells measured so far; the model, and what it is measured with, when one is missing."""

    def __init__(self) -> None:
        self.results: dict[str, Any] = (
            json.loads(RESULTS.read_text()) if RESULTS.exists() else {"cells": {}}
        )

    @cached_property
    def model(self) -> DiffusionModel:
        return load_model("fashion-mnist")

    @cached_property
    def yardsticks(self) -> dict[str, Yardstick]:
        return {name: load_yardstick(name) for name in EXTRACTORS}

    def fids(self, candidate: Candidate, budget: int, draw: Draw) -> dict[str, float]:
        """The FID of a candidate under each extractor, kept once measured."""
        key = f"{candidate.name} | {budget} | {draw.count} of seed {draw.seed}"
        cells = self.results["cells"]
        if key not in cells:
            images, evaluations = candidate.draw(self.model, budget, draw)
            labels = draw.class_labels(self.model.num_classes or 1)
            samples = SampleSet(images, labels, torch.tensor(draw.keys), {})
            found = {name: measure(samples, by).fid for name, by in self.yardsticks.items()}
            cells[key] = {name: round(fid, 4) for name, fid in found.items()}
            cells[key]["evaluations"] = evaluations
            self.results.setdefault("environment", environment("diffusers"))
            write_json(RESULTS, self.results)
            print(f"{cells[key]}  {key}", flush=True)
        found = cells[key]
        return {name: found[name] for name in EXTRACTORS}


def classical() -> list[tuple[str, Sequence[Ours | Theirs]]]:
    """What is screened, by whose it is."""
    peers = best(Screening(), theirs(), KEPT_AT, KEPT)
    return [("ours", list(ours())), ("diffusers", peers)]


def finalists(bench: Bench, candidates: Sequence[Ours | Theirs], budget: int) -> list[Candidate]:
    """The best in the screening under each extractor, once each."""
    every = [(candidate, bench.fids(candidate, budget, SCREENED)) for candidate in candidates]
    chosen: list[Candidate] = []
    for name in EXTRACTORS:
        winner, _ = min(every, key=lambda entry: _finite(entry[1][name]))
        if winner not in chosen:
            chosen.append(winner)
    return chosen


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


def tuned(budget: int) -> Fixed:
    return Fixed(Setting(TUNED, budget))


def run(bench: Bench) -> None:
    """All cells, the tuned ones first."""
    for budget in (*BUDGETS, *FURTHER):
        bench.fids(tuned(budget), budget, CONFIRMED)
    bench.fids(Fixed(Setting("ddim", DDIM_STEPS)), DDIM_STEPS, CONFIRMED)
    rivals = classical()
    for budget in BUDGETS:
        for _, candidates in rivals:
            best_of(bench, finalists(bench, candidates, budget), budget)


def table(bench: Bench) -> str:
    """One row a number of evaluations and extractor."""
    rivals = classical()
    ddim = bench.fids(Fixed(Setting("ddim", DDIM_STEPS)), DDIM_STEPS, CONFIRMED)
    lines = [
        "| evaluations | extractor | tuned | ours, classical | | diffusers | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for budget in (*BUDGETS, *FURTHER):
        mine = bench.fids(tuned(budget), budget, CONFIRMED)
        others = [
            best_of(bench, finalists(bench, candidates, budget), budget)
            for _, candidates in rivals
            if budget in BUDGETS
        ]
        for name in EXTRACTORS:
            cells = [f"{fid:.3f} | {whose}" for fid, whose in (other[name] for other in others)]
            rest = " | ".join(cells) if cells else " | | | "
            lines.append(f"| {budget} | {name} | {mine[name]:.3f} | {rest} |")
    told = ", ".join(f"{fid:.3f} ({name})" for name, fid in ddim.items())
    return "\n".join([*lines, "", f"DDIM at {DDIM_STEPS} steps: {told}."])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", nargs="?", choices=("run", "table"), default="run")
    bench = Bench()
    if parser.parse_args().command == "run":
        run(bench)
    print(table(bench))


if __name__ == "__main__":
    main()
