"""Where shipped checkpoints lie, and how a checkpoint is called."""

from importlib.resources import files
from pathlib import Path

from underone.errors import unknown


def zoo_folder() -> Path:
    """Where the zoo lies."""
    return Path(str(files("underone"))) / "zoo"


def model_names() -> list[str]:
    """The shipped checkpoints."""
    return sorted(path.parent.name for path in zoo_folder().glob("*/config.json"))


def find_checkpoint(name: str) -> Path:
    """The folder of a shipped checkpoint's name, or of a path to the user's own."""
    if name in model_names():
        return zoo_folder() / name
    path = Path(name).expanduser()
    if path.exists() or path.name != name:
        return path
    raise unknown("model", name, model_names())
