"""What tests of checkpoint folders share: small folders, and ways to damage them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from underone.checkpoint import (
    CheckpointConfig,
    ClassifierCheckpointConfig,
    DataRecord,
    DiffusionConfig,
    TrainingRecord,
    save_config,
    save_weights,
)
from underone.diffusion import LinearBeta, Noise
from underone.networks import ClassifierConfig, UNetConfig, build_network
from underone.networks.layers import Revision

Damage = Callable[[Path], object]


def diffusion(revision: Revision = 2, **changes: Any) -> DiffusionConfig:
    """The configuration of a small diffusion model."""
    network: dict[str, Any] = {
        "image_size": 8,
        "channels": 1,
        "classes": changes.pop("classes", 3),
        "width": changes.pop("width", 8),
        "heads": changes.pop("heads", 2),
        "attention": (4,),
        "revision": revision,
    }
    parts: dict[str, Any] = {
        "network": UNetConfig(**network),
        "schedule": LinearBeta(steps=10),
        "prediction": Noise(),
        "data": DataRecord(name="squares", sha256="0" * 64, class_names=("a", "b", "c")),
        "training": training(),
    }
    return DiffusionConfig(**parts | changes)


def classification(revision: Revision = 2, **changes: Any) -> ClassifierCheckpointConfig:
    """The configuration of a small classifier."""
    parts: dict[str, Any] = {
        "network": ClassifierConfig(
            image_size=8, channels=1, classes=3, widths=(8, 16), revision=revision
        ),
        "feature_scale": 0.25,
        "data": DataRecord(name="squares", sha256="0" * 64, class_names=("a", "b", "c")),
        "training": training(),
    }
    return ClassifierCheckpointConfig(**parts | changes)


def training(**changes: Any) -> TrainingRecord:
    record: dict[str, Any] = {
        "recipe": "none",
        "steps": 7,
        "batch_size": 2,
        "images_seen": 14,
        "seconds": 1.5,
        "seed": 3,
        "label_dropout": 0.1,
        "torch": "2",
    }
    return TrainingRecord(**record | changes)


def random_weights(config: CheckpointConfig, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    network = build_network(config.network)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    return network.state_dict()


def saved(folder: Path, config: CheckpointConfig, seed: int = 0) -> Path:
    """A checkpoint folder with random weights."""
    save_config(folder, config)
    save_weights(folder, random_weights(config, seed))
    return folder


def edited(**changes: Any) -> Damage:
    """Set keys of config.json, "a.b" being b inside a."""

    def edit(folder: Path) -> None:
        path = folder / "config.json"
        document = json.loads(path.read_text())
        for key, value in changes.items():
            *parents, last = key.split("__")
            inner = document
            for parent in parents:
                inner = inner[parent]
            inner[last] = value
        path.write_text(json.dumps(document))

    return edit


def removed(file: str) -> Damage:
    return lambda folder: (folder / file).unlink()
