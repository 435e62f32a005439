"""What every edit takes of a model and a setting."""

import torch
from torch import Tensor

from underone.checkpoint import DiffusionModel
from underone.diffusion import IPNDM, Node, Sampler, nodes
from underone.generation import Setting, grid_for


def path_of(model: DiffusionModel, setting: Setting) -> list[Node]:
    """The nodes of the setting's grid, the clean end with them."""
    return nodes(grid_for(model, setting), model.config.schedule, setting.steps)


def begins_with_noise(sampler: Sampler) -> bool:
    """Whether a sampler takes the state it begins with for noise alone, which no image is."""
    return isinstance(sampler, IPNDM) and sampler.free_start


def rows_of(labels: Tensor | None, rows: Tensor, device: torch.device) -> Tensor | None:
    """The labels of the rows `rows` (indices), where there are any, on `device`."""
    return None if labels is None else labels[rows].to(device)
