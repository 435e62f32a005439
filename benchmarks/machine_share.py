"""The claim: sampling runs at 70 % of the machine's own matrix-product peak, training at 55 %.

    python benchmarks/machine_share.py

The peak is that of a product of two 4096 x 4096 matrices in the precision the network runs in,
bfloat16 where the machine is fast in that. The network is taken as it is and compiled, as sampling
does where the work repays it. In every round the peak, forward passes and an update of training are
measured one after the other, so that a machine whose speed drifts is divided by itself; told is the
median of the rounds' shares.
What the network does is counted, not estimated (`torch.utils.flop_counter`): convolutions and
matrix products alone, so that all else it does counts as lost, and where the time goes is told by
torch's profiler. Measure on an idle machine.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from measuring import environment, spread
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from underone.data import Dataset
from underone.files import write_json
from underone.networks.precision import fast_dtype
from underone.training.begin import fresh_state
from underone.training.kinds import objective_of
from underone.training.loop import updates
from underone.training.recipe import DiffusionRecipe, load_recipe
from underone.training.state import TrainingState

RESULTS = Path(__file__).with_suffix(".json")
RECIPE = "fashion-mnist-preconditioned"
SIDE, BATCH, PASSES = 4096, 128, 3
WAYS = {"plain": False, "compiled": True}
CPU = torch.device("cpu")
# What torch's operations are, by what their names contain; the first that fits.
KINDS = {
    "convolutions": ("conv",),
    "matrix products": ("mm", "matmul", "linear", "attention"),
    "normalisation": ("norm",),
    "activations": ("silu", "sigmoid"),
    "optimiser": ("adam", "foreach", "lerp"),
    "copies and layout": ("copy", "cat", "contiguous", "clone", "shuffle", "_to_copy", "fill"),
}


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def peak(dtype: torch.dtype) -> Callable[[], float]:
    """Operations a second of one matrix product."""
    a, b = (torch.randn(SIDE, SIDE, dtype=dtype) for _ in range(2))
    return lambda: 2 * SIDE**3 / seconds(lambda: a @ b)


class Subject:
    """The network of a recipe, its forward pass, and its training on random images."""

    def __init__(self, recipe: DiffusionRecipe, compiled: bool) -> None:
        self.dtype = fast_dtype(CPU)
        self.state: TrainingState = fresh_state(recipe, CPU)
        shape = (recipe.network.channels, recipe.network.image_size, recipe.network.image_size)
        images = torch.randint(0, 256, (1024, *shape), dtype=torch.uint8)
        classes = recipe.network.classes or 1
        names = tuple(str(number) for number in range(classes))
        dataset = Dataset("random", "train", images, torch.arange(1024) % classes, names)
        self.x = torch.randn(BATCH, *shape)
        self.condition, self.label = torch.rand(BATCH) * 1000, torch.arange(BATCH) % classes
        self.flops = self._counted()
        if compiled:
            self.state.network.compile(dynamic=False)
        self.training: Iterator[object] = updates(
            self.state, recipe, objective_of(recipe, CPU), dataset, 10**9, self.dtype
        )

    def forward(self) -> Tensor:
        network: nn.Module = self.state.network
        with (
            torch.inference_mode(),
            torch.autocast("cpu", dtype=self.dtype, enabled=self.dtype is not None),
        ):
            output: Tensor = network(self.x, self.condition, self.label)
        return output

    def passes(self) -> None:
        for _ in range(PASSES):
            self.forward()

    def update(self) -> None:
        list(islice(self.training, 1))

    def _counted(self) -> dict[str, int]:
        """Of a batch: a forward pass, and with the backward one."""
        inference = FlopCounterMode(display=False)
        with inference, torch.no_grad():
            self.state.network(self.x, self.condition, self.label)
        both = FlopCounterMode(display=False)
        with both:
            self.state.network(self.x, self.condition, self.label).square().sum().backward()
        return {"sampling": inference.get_total_flops(), "training": both.get_total_flops()}


def shares(subjects: dict[str, Subject], rounds: int) -> dict[str, Any]:
    """Of the peak, by round; and images a second."""
    measure_peak = peak(fast_dtype(CPU) or torch.float32)
    measure_peak()
    for subject in subjects.values():
        subject.passes(), subject.update()
    peaks: list[float] = []
    found: dict[str, dict[str, list[float]]] = {
        name: {"sampling": [], "training": []} for name in subjects
    }
    for _ in range(rounds):
        for name, subject in subjects.items():
            here = measure_peak()
            sampled = PASSES * subject.flops["sampling"] / seconds(subject.passes)
            trained = subject.flops["training"] / seconds(subject.update)
            here = (here + measure_peak()) / 2
            peaks.append(here)
            found[name]["sampling"].append(sampled / here)
            found[name]["training"].append(trained / here)
    median = spread(peaks).median
    return {
        "peak_gflops": asdict(spread([each / 1e9 for each in peaks])),
        "ways": {
            name: {
                work: asdict(spread(each))
                | {"a_second": spread(each).median * median * BATCH / subjects[name].flops[work]}
                for work, each in by_work.items()
            }
            for name, by_work in found.items()
        },
    }


def where_time_goes(work: Callable[[], object]) -> dict[str, float]:
    """The share of each kind of operation in the time of all."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        work()
    spent: Counter[str] = Counter()
    for event in found.key_averages():
        name = event.key.lower()
        fits = (kind for kind, parts in KINDS.items() if any(part in name for part in parts))
        spent[next(fits, "everything else")] += event.self_cpu_time_total
    total = sum(spent.values())
    return {kind: round(time / total, 3) for kind, time in spent.most_common()}


def table(results: dict[str, Any]) -> str:
    """The shares of the peak, and where the time goes."""
    low, peak, high = (results["peak_gflops"][part] for part in ("lower", "median", "upper"))
    rows = [
        f"Peak in {results['precision']}: {peak:.0f} GFLOP/s ({low:.0f} to {high:.0f}). "
        "Training uses the uncompiled network.",
        "",
        "| | network | share of the peak | quartiles | a second | GFLOP each |",
        "| --- " * 6 + "|",
    ]
    for work, title in (
        ("sampling", "sampling: evaluations of an image"),
        ("training", "training: images"),
    ):
        for name in WAYS:
            share = results["ways"][name][work]
            rows.append(
                f"| {title} | {name} | {share['median']:.0%} | {share['lower']:.0%} to "
                f"{share['upper']:.0%} | {share['a_second']:.0f} | "
                f"{results['gflop_an_image'][work]:.2f} |"
            )
    for work, found in results["where_time_goes"].items():
        told = ", ".join(f"{kind} {share:.0%}" for kind, share in found.items() if share >= 0.005)
        rows += ["", f"Where the time goes, {work} with the plain network: {told}."]
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    recipe = load_recipe(RECIPE)
    assert isinstance(recipe, DiffusionRecipe)
    before = environment()
    subjects = {name: Subject(recipe, compiled) for name, compiled in WAYS.items()}
    plain = subjects["plain"]
    found = {
        "recipe": RECIPE,
        "precision": str(plain.dtype or torch.float32).removeprefix("torch."),
        "batch": BATCH,
        "gflop_an_image": {k: v / BATCH / 1e9 for k, v in plain.flops.items()},
        **shares(subjects, rounds),
        "where_time_goes": {
            "sampling": where_time_goes(plain.passes),
            "training": where_time_goes(plain.update),
        },
        "environment": before,
    }
    write_json(RESULTS, found)


if __name__ == "__main__":
    main()
