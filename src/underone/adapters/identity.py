"""The hash of an external model: its weights, and all else that decides what it computes."""

import hashlib
import json

import torch
from torch import nn


def sha256_of(module: nn.Module, described: object) -> str:
    """The hash of a module's weights and buffers, by name, and of a description as JSON."""
    digest = hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
