"""Everything a run needs to go on exactly where it was."""

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from underone.checkpoint import check_finite, load_tensors
from underone.errors import UserError
from underone.files import write_atomically
from underone.training.optimizers import MOMENTS, optimizers_for
from underone.training.recipe import Optimisation

# What the file's metadata holds, as JSON, and what an absent entry means; "" is refused.
_NUMBERS = {"step": "", "seconds": "", "first_loss": "null", "losses": "[]"}


@dataclass
class TrainingState:
    """The only mutable thing of training: advanced by the loop, saved, restored.

    `step` updates have been made in `seconds`. `average` is None where no average is kept, and
    `narrow`, one of half its width, where no snapshots are. `losses` are those since the last line
    of the log.
    """

    network: nn.Module
    average: nn.Module | None
    narrow: nn.Module | None
    optimizers: tuple[torch.optim.Optimizer, ...]
    step: int = 0
    seconds: float = 0.0
    first_loss: float | None = None
    losses: list[float] = field(default_factory=list)

    @classmethod
    def fresh(
        cls, network: nn.Module, optimisation: Optimisation, averages: int
    ) -> "TrainingState":
        """The state before the first update, with no average, with one, or with the narrow too."""
        copies = [deepcopy(network).eval().requires_grad_(False) for _ in range(averages)]
        average, narrow = (*copies, None, None)[:2]
        return cls(network, average, narrow, optimizers_for(network, optimisation))

    def save(self, path: Path) -> None:
        """Write the whole state as one safetensors file, atomically."""
        metadata = {
            "step": json.dumps(self.step),
            "seconds": json.dumps(self.seconds),
            "first_loss": json.dumps(self.first_loss),
            "losses": json.dumps(self.losses),
        }
        tensors = {name: tensor.contiguous() for name, tensor in self._tensors()}
        check_finite(tensors, path)
        write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata))

    def restore(self, path: Path) -> None:
        """Read back what `save` wrote; a file that does not fit is a `UserError`."""
        tensors = load_tensors(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        try:
            step, seconds, first_loss, losses = (
                json.loads(metadata.get(key, default)) for key, default in _NUMBERS.items()
            )
        except ValueError:
            raise UserError(f"{path} is not a training state: it does not say its step") from None
        if step > 0:
            self._make_moments(step)
        expected = dict(self._tensors())
        odd = sorted(
            name
            for name in expected.keys() | tensors.keys()
            if name not in expected
            or name not in tensors
            or expected[name].shape != tensors[name].shape
        )
        if odd:
            raise UserError(f"{path} does not fit this recipe's network: {odd[0]} differs")
        with torch.no_grad():
            for name, tensor in expected.items():
                tensor.copy_(tensors[name])
        self.step, self.seconds, self.first_loss, self.losses = step, seconds, first_loss, losses

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self.network.state_dict().items():
            yield f"network.{name}", tensor
        for kept, network in (("average", self.average), ("narrow", self.narrow)):
            for name, tensor in ({} if network is None else network.state_dict()).items():
                yield f"{kept}.{name}", tensor
        names: dict[Tensor, str] = {p: name for name, p in self.network.named_parameters()}
        for optimizer in self.optimizers:
            for parameter, kept in optimizer.state.items():
                for moment in MOMENTS[type(optimizer)]:
                    yield f"{moment}.{names[parameter]}", kept[moment]

    def _make_moments(self, step: int) -> None:
        """What the optimisers keep after so many steps, to be filled."""
        for optimizer in self.optimizers:
            for parameter in chain.from_iterable(g["params"] for g in optimizer.param_groups):
                optimizer.state[parameter] = {
                    "step": torch.tensor(float(step), device=parameter.device),
                    **{moment: torch.zeros_like(parameter) for moment in MOMENTS[type(optimizer)]},
                }
