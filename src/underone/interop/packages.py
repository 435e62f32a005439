"""Packages that are needed for some models only."""

from importlib import import_module
from types import ModuleType

from underone.errors import UserError


def imported(module: str, package: str) -> ModuleType:
    """A module of an optional package; a `UserError` that says what to install where it lacks."""
    try:
        return import_module(module)
    except ImportError as error:
        lacking = f", but {error.name} is missing" if error.name else ""
        raise UserError(f"this needs {package}{lacking}: pip install {package}") from None
