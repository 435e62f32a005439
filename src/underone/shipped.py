"""Where shipped checkpoints are, and how checkpoints are named."""

from importlib.resources import files
from pathlib import Path

from underone.errors import unknown


def zoo_folder() -> Path:
    """The folder of the zoo."""
    return Path(str(files("underone"))) / "zoo"


def model_names() -> list[str]:
    """The names of the shipped checkpoints."""
    return sorted(path.parent.name for path in zoo_folder().glob("*/config.json"))


def find_checkpoint(name: str) -> Path:
    """The folder of a shipped checkpoint, or the path to one of the user's own."""
    if name in model_names():
        return zoo_folder() / name
    path = Path(name).expanduser()
    if path.exists() or path.name != name:
        return path
    raise unknown("model", name, model_names())
