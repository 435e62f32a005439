"""Import packages that only some models need."""

from importlib import import_module
from types import ModuleType

from underone.errors import UserError


def imported(module: str, package: str) -> ModuleType:
    """A module of an optional package; if missing, a `UserError` that says what to install."""
    try:
        return import_module(module)
    except ImportError as error:
        lacking = f", but {error.name} is missing" if error.name else ""
        raise UserError(f"this needs {package}{lacking}: pip install {package}") from None
