"""What is shipped: checkpoints and reference statistics."""

from importlib.resources import files
from pathlib import Path

from underone.checkpoint import ClassifierModel, DiffusionModel, load_checkpoint
from underone.errors import UserError, unknown
from underone.metrics import ClassifierFeatures, Reference, load_reference


def zoo_folder() -> Path:
    """Where the zoo lies."""
    return Path(str(files("underone.zoo")))


def model_names() -> list[str]:
    """The shipped checkpoints."""
    return sorted(path.parent.name for path in zoo_folder().glob("*/config.json"))


def reference_names() -> list[str]:
    """The shipped reference statistics."""
    return sorted(path.stem for path in zoo_folder().glob("references/*.npz"))


def find_checkpoint(name: str) -> Path:
    """The folder of a shipped checkpoint's name, or of a path to the user's own."""
    if name in model_names():
        return zoo_folder() / name
    path = Path(name).expanduser()
    if path.exists() or path.name != name:
        return path
    raise unknown("model", name, model_names())


def load_model(name: str) -> DiffusionModel:
    """A diffusion model by shipped name or checkpoint folder."""
    model = load_checkpoint(find_checkpoint(name))
    if not isinstance(model, DiffusionModel):
        raise UserError(f"{name} is a classifier, not a diffusion model: it cannot be sampled")
    return model


def load_extractor(name: str) -> ClassifierFeatures:
    """An extractor by the shipped name or checkpoint folder of its classifier."""
    model = load_checkpoint(find_checkpoint(name))
    if not isinstance(model, ClassifierModel):
        raise UserError(f"{name} is a diffusion model, not a classifier: it extracts no features")
    return ClassifierFeatures(model)


def find_reference(name: str) -> Reference:
    """Reference statistics by shipped name or .npz file."""
    if name in reference_names():
        return load_reference(zoo_folder() / "references" / f"{name}.npz")
    path = Path(name).expanduser()
    if path.exists() or path.suffix == ".npz":
        return load_reference(path)
    raise unknown("reference", name, reference_names())
