"""The question: is our network 1.5 times as fast as `UNet2DModel` of equal FLOPs, as is the goal?

    python benchmarks/diffusers_speed.py

diffusers' own network for 28x28 images of ten classes, with the layers of its training example and
as wide as brings its forward pass nearest to the FLOPs of ours, beside the network of our recipe;
both in the precision this machine is fast in, laid out as each is faster, as they are and compiled
by torch. Forward passes, and whole updates of training: ours as `underone train` makes them; theirs
as diffusers' own example does
(`examples/unconditional_image_generation/train_unconditional.py`: AdamW, betas 0.95 and 0.999,
weight decay 1e-6, gradients clipped at 1, `EMAModel` with a power of 3/4). The two alternate, and
what is told is the median ratio of neighbours. Measure on an idle machine; it needs the test
requirements.
"""

import argparse
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.training_utils import EMAModel
from machine_share import BATCH, CPU, RECIPE, WAYS, Subject, seconds
from measuring import environment, spread
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from underone.files import write_json
from underone.networks.precision import fast_dtype
from underone.training.recipe import DiffusionRecipe, load_recipe

RESULTS = Path(__file__).with_suffix(".json")
SIDE, CLASSES, PASSES = 28, 10, 3
# The norms of diffusers have 32 groups unless told otherwise; narrower blocks need fewer.
GROUPS = 8
WIDTHS = range(16, 129, 8)
LAYOUTS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}


def peer(width: int) -> diffusers.UNet2DModel:
    """28, 14 and 7 pixels, one layer a block, attention at the lowest, classes as ours."""
    return diffusers.UNet2DModel(
        sample_size=SIDE,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(width, 2 * width, 2 * width),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=GROUPS,
        num_class_embeds=CLASSES + 1,
    )


def flops(network: nn.Module) -> int:
    """Of a forward pass of one image."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(torch.zeros(1, 1, SIDE, SIDE), torch.zeros(1), torch.zeros(1, dtype=torch.int64))
    return counter.get_total_flops()


class Peer:
    """diffusers' network, passed through and trained as its users do it."""

    def __init__(self, width: int, layout: torch.memory_format) -> None:
        self.network = peer(width).to(memory_format=layout)  # type: ignore[call-overload]
        self.dtype = fast_dtype(CPU)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8
        )
        self.average = EMAModel(
            self.network.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75
        )
        self.scheduler = diffusers.DDPMScheduler(1000)
        self.images = torch.rand(BATCH, 1, SIDE, SIDE) * 2 - 1
        self.labels = torch.arange(BATCH) % CLASSES
        self.autocast = partial(
            torch.autocast, "cpu", dtype=self.dtype, enabled=self.dtype is not None
        )

    def passes(self) -> None:
        times = torch.randint(0, 1000, (BATCH,))
        with torch.inference_mode(), self.autocast():
            for _ in range(PASSES):
                self.network(self.images, times, self.labels)

    def update(self) -> None:
        noise, times = torch.randn_like(self.images), torch.randint(0, 1000, (BATCH,))
        noisy = self.scheduler.add_noise(self.images, noise, times)
        with self.autocast():
            output = self.network(noisy, times, self.labels).sample
        functional.mse_loss(output.float(), noise).backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.step(self.network.parameters())


def faster(width: int) -> tuple[str, Peer]:
    """In the layout that its forward pass is faster in."""
    found = {}
    for name, layout in LAYOUTS.items():
        candidate = Peer(width, layout)
        candidate.passes()
        found[name] = (min(seconds(candidate.passes) for _ in range(3)), candidate)
    name = min(found, key=lambda each: found[each][0])
    return name, found[name][1]


def alternated(
    mine: Callable[[], None], theirs: Callable[[], None], images: int, rounds: int
) -> dict[str, Any]:
    """Images a second of both, and the ratio of neighbours."""
    mine(), theirs()
    pairs = [(seconds(mine), seconds(theirs)) for _ in range(rounds)]
    return {
        "ours": asdict(spread([images / ours for ours, _ in pairs])),
        "diffusers": asdict(spread([images / peers for _, peers in pairs])),
        "times_faster": asdict(spread([peers / ours for ours, peers in pairs])),
    }


def table(results: dict[str, Any]) -> str:
    """Images a second of both, and how many times as many ours are."""
    ours, theirs = (results["gflop_an_image"][who] for who in ("ours", "diffusers"))
    rows = [
        f"In {results['precision']}, batches of {results['batch']}: ours of {ours:.3f} GFLOP a "
        f"forward pass, `UNet2DModel` of width {results['diffusers_width']} "
        f"({results['diffusers_layout']}) of {theirs:.3f}.",
        "",
        "| a second | both networks | ours | diffusers | times faster | quartiles |",
        "| --- " * 6 + "|",
    ]
    for work, title in (
        ("sampling", "sampling: evaluations of an image"),
        ("training", "training: images"),
    ):
        for name in WAYS:
            found = results["ways"][name][work]
            times = found["times_faster"]
            rows.append(
                f"| {title} | {name} | {found['ours']['median']:.0f} | "
                f"{found['diffusers']['median']:.0f} | {times['median']:.2f} | "
                f"{times['lower']:.2f} to {times['upper']:.2f} |"
            )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    recipe = load_recipe(RECIPE)
    assert isinstance(recipe, DiffusionRecipe)
    before = environment("diffusers")
    mine = Subject(recipe, compiled=False)
    ours = mine.flops["sampling"] // BATCH
    widths = {width: flops(peer(width)) for width in WIDTHS}
    width = min(widths, key=lambda each: abs(widths[each] - ours))
    layout, theirs = faster(width)
    ways = {}
    for name, compiled in WAYS.items():
        if compiled:
            mine = Subject(recipe, compiled=True)
            theirs.network.compile(dynamic=False)
        ways[name] = {
            "sampling": alternated(mine.passes, theirs.passes, PASSES * BATCH, rounds),
            "training": alternated(mine.update, theirs.update, BATCH, rounds),
        }
    found = {
        "precision": str(mine.dtype or torch.float32).removeprefix("torch."),
        "batch": BATCH,
        "gflop_an_image": {"ours": ours / 1e9, "diffusers": widths[width] / 1e9},
        "diffusers_width": width,
        "diffusers_layout": layout,
        "ways": ways,
        "environment": before,
    }
    write_json(RESULTS, found)


if __name__ == "__main__":
    main()
