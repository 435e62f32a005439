"""What the recipes for 32x32 colour images cost: parameters, FLOPs, bytes, and one measured speed.

    python benchmarks/recipe_costs.py

Everything but the speed follows from the networks alone, on tensors without data. The speed is that
of training updates in seconds of CPU time of one thread, so that other work on the machine does not
count; its images are random, which costs as much as real ones. No quality is measured.
"""

import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from measuring import environment
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from underone.data import Dataset
from underone.files import write_json
from underone.networks import build_network
from underone.networks.features import FeatureNetwork
from underone.training.begin import fresh_state
from underone.training.kinds import objective_of
from underone.training.loop import updates
from underone.training.recipe import Recipe, load_recipe

RESULTS = Path(__file__).with_suffix(".json")
RECIPES = (
    "cifar10",
    "cifar10-small",
    "cifar10-classifier",
    "noto-emoji",
    "noto-emoji-classifier",
)
TIMED = "cifar10-small"
UPDATES = 3
# What training keeps of each float32 weight: itself, its gradient, Adam's two moments, its average.
COPIES = {"diffusion": 5, "classifier": 4}
# A processor or a graphics card as networks find it, in 1e12 floating-point operations a second.
SPEEDS = (0.08, 20.0, 50.0, 100.0)


def arithmetic(name: str) -> dict[str, float]:
    """What one recipe's network and updates cost; a multiply-add is two FLOPs."""
    recipe = load_recipe(name)
    with torch.device("meta"):
        network = build_network(recipe.network).train()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    forward = FlopCounterMode(display=False)
    with forward, torch.no_grad():
        _pass(network, recipe, 1)
    both, kept = FlopCounterMode(display=False), _Kept()
    # Two images, for batch normalisation needs them.
    with both, saved_tensors_hooks(kept.keep, lambda tensor: tensor):
        _pass(network, recipe, 2).square().sum().backward()
    training = both.get_total_flops() / 2
    return {
        "parameters": parameters,
        "forward_flops": forward.get_total_flops(),
        "training_flops": training,
        "state_bytes": 4 * COPIES[recipe.kind] * parameters,
        "activation_bytes_an_image": (kept.bytes - 4 * parameters) / 2,
        "updates": recipe.steps,
        "batch": recipe.batch_size,
        "whole_training_flops": training * recipe.steps * recipe.batch_size,
    }


class _Kept:
    """The bytes of distinct tensors that a forward pass keeps for the backward one."""

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}
        self.alive: list[Tensor] = []

    def keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self.sizes[storage._cdata] = storage.nbytes()
        self.alive.append(tensor)
        return tensor

    @property
    def bytes(self) -> int:
        return sum(self.sizes.values())


def _pass(network: nn.Module, recipe: Recipe, batch: int) -> Tensor:
    config = recipe.network
    x = torch.empty(batch, config.channels, config.image_size, config.image_size, device="meta")
    if isinstance(network, FeatureNetwork):
        network.eval() if batch == 1 else network.train()
        logits = network.logits(network.features(x))
        assert logits is not None
        return logits
    time_, label = x.new_zeros(batch), torch.zeros(batch, dtype=torch.int64, device="meta")
    found: Tensor = network(x, time_, label)
    return found


def measured_speed(name: str) -> dict[str, Any]:
    """Images a second of CPU time in training updates, on one thread."""
    recipe = load_recipe(name)
    torch.set_num_threads(1)
    images = torch.randint(0, 256, (256, 3, 32, 32), dtype=torch.uint8)
    dataset = Dataset("random", "train", images, torch.arange(256) % 10, tuple("0123456789"))
    state = fresh_state(recipe, torch.device("cpu"))
    running = updates(
        state, recipe, objective_of(recipe, torch.device("cpu")), dataset, recipe.steps, None
    )
    next(running)
    started = time.process_time()
    for _ in islice(running, UPDATES):
        pass
    seconds = time.process_time() - started
    return {"recipe": name, "images_a_second": UPDATES * recipe.batch_size / seconds}


def table(results: dict[str, Any]) -> str:
    """The recipes, one a row."""
    head = (
        "| recipe | parameters | forward, an image | an update | state | "
        "kept for the backward pass | updates | whole training |"
    )
    rows = [head, "| --- " * 8 + "|"]
    for name in RECIPES:
        found = results["recipes"][name]
        batch = found["batch"]
        update = found["training_flops"] * batch / 1e12
        rows.append(
            f"| `{name}` | {found['parameters'] / 1e6:.2f} M | "
            f"{found['forward_flops'] / 1e9:.2f} GFLOP | {batch} images, {update:.3g} TFLOP | "
            f"{found['state_bytes'] / 1e6:.0f} MB | "
            f"{found['activation_bytes_an_image'] * batch / 1e9:.1f} GB | {found['updates']:,} | "
            f"{found['whole_training_flops'] / 1e15:,.2f} PFLOP |"
        )
    return "\n".join(rows)


def hours(results: dict[str, Any]) -> str:
    """How long the recipes take at speeds that are assumed, not measured."""
    heads = [f"at {speed:g} TFLOP/s" for speed in SPEEDS]
    rows = ["| recipe | " + " | ".join(heads) + " |", "| --- " * (1 + len(SPEEDS)) + "|"]
    for name in RECIPES:
        whole = results["recipes"][name]["whole_training_flops"]
        cells = [_duration(whole / (1e12 * speed)) for speed in SPEEDS]
        rows.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def speed(results: dict[str, Any]) -> str:
    """The one speed that was measured, and what follows of it."""
    found = results["speed"]
    recipe = results["recipes"][found["recipe"]]
    rate = found["images_a_second"]
    seconds = recipe["updates"] * recipe["batch"] / rate
    return (
        f"`{found['recipe']}` trains on {rate:.0f} images a second of one CPU core "
        f"({results['environment']['cpu']}), {rate * recipe['training_flops'] / 1e9:.0f} GFLOP/s: "
        f"{_duration(seconds)} of that core in all."
    )


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.3g} {unit}"
    return ""


def main() -> None:
    results = {
        "recipes": {name: arithmetic(name) for name in RECIPES},
        "speed": measured_speed(TIMED),
        "environment": environment(),
    }
    write_json(RESULTS, results)
    print(table(results), hours(results), speed(results), sep="\n\n")


if __name__ == "__main__":
    main()
