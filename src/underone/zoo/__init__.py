"""What is shipped: checkpoints and reference statistics."""

from pathlib import Path

import torch

from underone.checkpoint import (
    DiffusionModel,
    FeatureModel,
    GenerativeModel,
    VAEModel,
    named_weights,
)
from underone.errors import UserError, unknown
from underone.interop import is_from_elsewhere, load_named
from underone.metrics import Judge, NetworkExtractor, Reference, Yardstick, load_reference
from underone.networks.precision import place
from underone.shipped import model_names, zoo_folder


def reference_names() -> list[str]:
    """The names of the shipped reference statistics."""
    return sorted(path.stem for path in zoo_folder().glob("references/*.npz"))


def is_model(name: str) -> bool:
    """Whether `name` is of a shipped checkpoint, a folder or weights in one, or elsewhere."""
    if name in model_names() or is_from_elsewhere(name):
        return True
    path = Path(name).expanduser()
    return (path / "config.json").exists() or named_weights(path) is not None


def load_generative_model(name: str, device: torch.device | str = "cpu") -> GenerativeModel:
    """A model that is sampled, named as for `load_model`, on the device it is to draw on."""
    model = load_named(name)
    if not isinstance(model, DiffusionModel | VAEModel):
        raise UserError(f"{name} is not a diffusion model but {model.what}: it cannot be sampled")
    place(model.network, device)
    return model


def load_model(name: str, device: torch.device | str = "cpu") -> DiffusionModel:
    """A diffusion model by shipped name, checkpoint folder, `diffusers:PATH` or `hf://owner/name`.

    Its samples are drawn on `device`, and come back to the CPU.
    """
    model = load_generative_model(name, device)
    if isinstance(model, VAEModel):
        raise UserError(
            f"{name} is not a diffusion model but {model.what}, which has no path from noise to "
            "image that this could use: name a diffusion model"
        )
    return model


def load_extractor(name: str) -> NetworkExtractor:
    """An extractor by the shipped name or checkpoint folder of its network."""
    model = load_named(name)
    if not isinstance(model, FeatureModel):
        raise UserError(f"{name} is {model.what}: it extracts no features, name an extractor")
    return NetworkExtractor(model)


def find_reference(name: str) -> Reference:
    """Reference statistics by shipped name or .npz file."""
    if name in reference_names():
        return load_reference(zoo_folder() / "references" / f"{name}.npz")
    path = Path(name).expanduser()
    if path.exists() or path.suffix == ".npz":
        return load_reference(path)
    raise unknown("reference", name, reference_names())


def load_yardstick(name: str) -> Yardstick:
    """What to measure with and against: a reference, and the extractor it was made with."""
    reference = find_reference(name)
    return Yardstick(load_extractor(reference.origin.extractor), reference)


def load_judge(name: str) -> Judge:
    """The classifier that a reference was made with, as a judge of classes."""
    reference = find_reference(name)
    if reference.held_out is None:
        raise UserError(f"reference {name} cannot judge: it holds no features of held-out images")
    return _judge(reference)


def find_judge(reference: Reference) -> Judge | None:
    """A shipped classifier of the same data that is not the reference's own extractor, if any."""
    for name in reference_names():
        other = find_reference(name)
        knows_classes = other.held_out is not None and other.held_out.logits is not None
        same_data = other.origin.data_sha256 == reference.origin.data_sha256
        same_extractor = other.origin.extractor_sha256 == reference.origin.extractor_sha256
        if knows_classes and same_data and not same_extractor:
            return _judge(other)
    return None


def _judge(reference: Reference) -> Judge:
    return Judge.of(load_extractor(reference.origin.extractor), reference)
