"""Read and write checkpoint folders."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from underone.checkpoint.configs import (
    CheckpointConfig,
    ClassifierCheckpointConfig,
    DiffusionConfig,
    EncoderCheckpointConfig,
    ForeignConfig,
    NoisyClassifierCheckpointConfig,
    VAECheckpointConfig,
)
from underone.checkpoint.models import (
    AnyCheckpoint,
    DiffusionModel,
    FeatureModel,
    NoisyClassifier,
    VAEModel,
)
from underone.checkpoint.weights import (
    Weights,
    built,
    load_tensors,
    named_weights,
    read_weights,
    revision_of,
    weights_file,
)
from underone.config import parse_kind
from underone.errors import UserError
from underone.files import read_json, write_json
from underone.networks import build_network
from underone.networks.precision import place

# What a folder is loaded as, by the type of its config.json.
_MODELS: Mapping[type[CheckpointConfig], Callable[..., AnyCheckpoint]] = {
    DiffusionConfig: DiffusionModel,
    ClassifierCheckpointConfig: FeatureModel,
    EncoderCheckpointConfig: FeatureModel,
    NoisyClassifierCheckpointConfig: NoisyClassifier,
    VAECheckpointConfig: VAEModel,
}
_KINDS = {config.model_fields["kind"].default: config for config in _MODELS}


def save_config(folder: Path, config: CheckpointConfig) -> None:
    """Write `config.json`."""
    write_json(folder / "config.json", config.model_dump(mode="json"))


def load_checkpoint(
    folder: Path, weights: Weights = "model", device: torch.device | str = "cpu"
) -> AnyCheckpoint:
    """Load a checkpoint folder; parts that do not fit together are a `UserError`.

    `folder` may also be one of its weights files, for example `raw.safetensors`, to choose these.
    """
    folder, weights = named_weights(folder) or (folder, weights)
    config = load_config(folder)
    path = weights_file(folder, weights)
    if weights == "weak" and not path.exists():
        raise UserError(
            f"{folder} holds no {path.name}: it was trained before such snapshots were kept, or "
            "with weak_at = 0; train it again, or name another model as the weak one"
        )
    network, stored = built(
        lambda: build_network(config.network), lambda expected: read_weights(path), path
    )
    if stored.step not in (None, str(config.training.steps)):
        raise UserError(
            f"{path} holds weights of step {stored.step}, but its config.json says "
            f"{config.training.steps}: a run is saving them now, or was killed while it did; "
            "try again, or go on with --resume"
        )
    ready = place(network, device).eval().requires_grad_(False)
    identity = identity_of(config, stored.sha256)
    return _MODELS[type(config)](folder, config, ready, identity, weights)


def identity_of(config: CheckpointConfig | ForeignConfig, weights_sha256: str) -> str:
    """The hash of the function that a network computes, from that of its weights file."""
    function = {
        key: value
        for key, value in config.model_dump(mode="json").items()
        if key in ("kind", "network", "schedule", "prediction", "feature_scale")
    }
    digest = hashlib.sha256(json.dumps(function, sort_keys=True).encode())
    digest.update(weights_sha256.encode())
    return digest.hexdigest()


def load_config(folder: Path) -> CheckpointConfig:
    """Read a checkpoint folder's config.json."""
    if folder.is_file():
        raise _bare_weights(folder)
    if not folder.is_dir():
        raise UserError(f"no checkpoint folder at {folder}")
    path = folder / "config.json"
    if not path.exists():
        found = weights_file(folder)
        raise (
            _bare_weights(found)
            if found.exists()
            else UserError(f"{folder} is not a checkpoint folder: it has no config.json")
        )
    return parse_kind(_KINDS, read_json(path), str(path))


def _bare_weights(path: Path) -> UserError:
    names = load_tensors(path)
    found = revision_of(names)
    first = next((n for n in sorted(names) if "sample." in n), next(iter(sorted(names)), "none"))
    return UserError(
        f"{path} is a bare state dict without config.json: its tensors look like architecture "
        f"revision {found} (see {first}), but revisions 1 and 2 compute different functions of "
        "their weights, so it is not guessed: give the folder that holds config.json as well"
    )
