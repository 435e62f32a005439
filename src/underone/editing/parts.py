"""What all edits need of a model and a setting."""

import torch
from torch import Tensor

from underone.checkpoint import DiffusionModel
from underone.diffusion import IPNDM, Node, nodes
from underone.errors import UserError
from underone.generation import Setting, grid_for, sampler_for


def path_of(model: DiffusionModel, setting: Setting) -> list[Node]:
    """The nodes of the setting's grid, including the clean end."""
    return nodes(grid_for(model, setting), model.config.schedule, setting.steps)


def check_begins_anywhere(model: DiffusionModel, setting: Setting) -> None:
    """A `UserError` where a sampler assumes pure noise at its start, which no edited image is."""
    sampler = sampler_for(model, setting)
    if isinstance(sampler, IPNDM) and sampler.free_start:
        raise UserError(
            f"{setting.sampler} assumes that it begins at pure noise: leave out free_start"
        )


def rows_of(labels: Tensor | None, rows: Tensor, device: torch.device) -> Tensor | None:
    """The labels of the rows `rows` (indices), where there are any, on `device`."""
    return None if labels is None else labels[rows].to(device)
