"""The claim: samples cost their evaluations and pixels, however many are drawn at once or in all.

    python benchmarks/growth.py

The shipped FashionMNIST model by DDIM. Told is the time of one evaluation of one image, over that
of the usual draw (128 images in one batch, 2 steps) measured in the same round, so that a machine
whose speed drifts is divided by itself: 1.00 is growth in proportion. Other sizes of image are
drawn by networks of the same shape with random weights. Last, as many processes of one thread as
there are cores draw together, beside one process with all threads. Measure on an idle machine, for
five minutes.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from machine_share import seconds
from measuring import environment, spread

from underone.checkpoint import DiffusionModel
from underone.files import write_json
from underone.generation import DEFAULT_BATCH_SIZE, Draw, Setting, generate
from underone.networks import UNetConfig, build_network
from underone.networks.precision import place
from underone.zoo import load_model

RESULTS = Path(__file__).with_suffix(".json")
MODEL = "fashion-mnist-preconditioned"
ROUNDS, PROCESS_ROUNDS, PROCESS_BATCHES = 5, 3, 4
USUAL = Setting(steps=2)

Work = Callable[[], None]


def drawing(
    model: DiffusionModel,
    setting: Setting = USUAL,
    count: int = DEFAULT_BATCH_SIZE,
    batch: int = DEFAULT_BATCH_SIZE,
) -> tuple[Work, int]:
    """A draw, and the evaluations it takes."""

    def work() -> None:
        generate(model, setting, Draw(count), batch_size=batch)

    return work, count * setting.evaluations(model)


def of_size(model: DiffusionModel, size: int) -> DiffusionModel:
    """A model of larger or smaller images, of the same levels and untrained."""
    shape = model.config.network
    assert isinstance(shape, UNetConfig)
    bare = replace(shape, image_size=size, attention=())
    other = replace(bare, attention=(bare.resolutions[-1],))
    network = place(build_network(other), "cpu").eval()
    return replace(
        model, network=network, config=model.config.model_copy(update={"network": other})
    )


def series(model: DiffusionModel) -> dict[str, dict[str, tuple[Work, int]]]:
    """A draw and its evaluations, by what grows and how far."""
    return {
        "images in all": {f"{n:,}": drawing(model, count=n) for n in (256, 512, 1024)},
        "steps": {str(n): drawing(model, Setting(steps=n)) for n in (1, 5, 10)},
        "guidance weight": {"1": drawing(model, Setting(steps=2, guidance=1))},
        "images at once": {
            "1": drawing(model, count=8, batch=1),
            "8": drawing(model, count=64, batch=8),
            "32": drawing(model, batch=32),
            "512": drawing(model, count=512, batch=512),
        },
        "pixels": {
            "14 x 14": drawing(of_size(model, 14)),
            "56 x 56": drawing(of_size(model, 56)),
        },
    }


def growth(model: DiffusionModel) -> dict[str, dict[str, Any]]:
    """The time of an evaluation over that of the usual draw, by round."""
    usual, usual_evaluations = drawing(model)
    points = series(model)
    ratios: dict[tuple[str, str], list[float]] = {}
    for _ in range(ROUNDS):
        for what, sizes in points.items():
            for size, (work, evaluations) in sizes.items():
                here = seconds(usual) + seconds(usual)
                each = seconds(work) / evaluations
                ratios.setdefault((what, size), []).append(each / (here / 2 / usual_evaluations))
    return {
        what: {size: asdict(spread(ratios[what, size])) for size in sizes}
        for what, sizes in points.items()
    }


def start(threads: int) -> None:
    """Make a process ready to draw."""
    torch.set_num_threads(threads)
    drawing(load_model(MODEL))[0]()


def drawn(first: int) -> tuple[float, float]:
    """When this process began to draw and ended."""
    model, began = load_model(MODEL), time.time()
    generate(model, USUAL, Draw(PROCESS_BATCHES * DEFAULT_BATCH_SIZE, first=first))
    return began, time.time()


def together(processes: int, threads: int) -> float:
    """Images per second of this many processes."""
    with ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=start, initargs=(threads,)
    ) as pool:
        list(pool.map(drawn, range(processes)))  # all are there, and warm
        times = list(pool.map(drawn, range(processes)))
    images = processes * PROCESS_BATCHES * DEFAULT_BATCH_SIZE
    return images / (max(end for _, end in times) - min(began for began, _ in times))


def processes_over_threads() -> dict[str, Any]:
    """Processes of one thread over one process of all threads, in images a second."""
    cores = os.cpu_count() or 1
    pairs = [(together(1, cores), together(cores, 1)) for _ in range(PROCESS_ROUNDS)]
    return {
        "cores": cores,
        "ratio": asdict(spread([many / one for one, many in pairs])),
        "one_process": asdict(spread([one for one, _ in pairs])),
        "many_processes": asdict(spread([many for _, many in pairs])),
    }


def table(results: dict[str, Any]) -> str:
    """The growth, and what processes are worth."""
    rows = [
        "| what differs | | time of an evaluation | quartiles | by pixel |",
        "| --- " * 5 + "|",
    ]
    for what, sizes in results["growth"].items():
        for size, found in sizes.items():
            rows.append(f"| {what} | {size} | {_told(found)} | {_by_pixel(what, size, found)} |")
    many = results["processes"]
    rows += [
        "",
        f"{many['cores']} processes of one thread draw {many['ratio']['median']:.2f} times the "
        f"images a second of one process with {many['cores']} threads "
        f"({many['ratio']['lower']:.2f} to {many['ratio']['upper']:.2f}).",
    ]
    return "\n".join(rows)


def _told(found: dict[str, float]) -> str:
    return f"{found['median']:.2f} | {found['lower']:.2f} to {found['upper']:.2f}"


def _by_pixel(what: str, size: str, found: dict[str, float]) -> str:
    if what != "pixels":
        return ""
    side = int(size.partition(" ")[0])
    return f"{found['median'] * (28 / side) ** 2:.2f}"


def main() -> None:
    before = environment()
    model = load_model(MODEL)
    results = {"environment": before, "model": MODEL, "growth": growth(model)}
    write_json(RESULTS, results | {"processes": processes_over_threads()})


if __name__ == "__main__":
    main()
