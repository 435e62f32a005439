"""Any Python callable as an extractor."""

import hashlib
import inspect
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from underone.adapters.identity import sha256_of
from underone.adapters.images import check_finite
from underone.errors import UserError
from underone.metrics import Features


@dataclass(frozen=True, eq=False)
class FunctionExtractor:
    """A function of uint8 images (B, C, H, W) that returns features (B, D), or them and logits."""

    name: str
    sha256: str
    function: Callable[[Tensor], Any]
    revision: int | None = None

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Features:
        """What the function returns, without gradients, in float32; else a `UserError`."""
        try:
            found = self.function(images)
        except (Exception, SystemExit) as error:  # the user's own code may raise anything
            raise UserError(
                f"{self.name} failed on images {tuple(images.shape)}: "
                f"{type(error).__name__}: {error}"
            ) from None
        pair = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
        values, logits = pair
        for what in (values,) if logits is None else (values, logits):
            if (
                not isinstance(what, Tensor)
                or what.ndim != 2
                or len(what) != len(images)
                or what.shape[1] == 0
                or what.is_complex()
            ):
                shape = tuple(getattr(what, "shape", ()))
                raise UserError(
                    f"{self.name} must return features as a tensor of shape ({len(images)}, D), or "
                    f"a pair of them and logits, got {type(what).__name__} {shape}"
                )
        check_finite(self.name, "features", values)
        if logits is not None:
            check_finite(self.name, "logits", logits)
        return Features(values.float().cpu(), None if logits is None else logits.float().cpu())


def function_extractor(module: str, name: str) -> FunctionExtractor:
    """The callable `name` of a Python module: a function, a torch module, anything called.

    It is known by the hash of the module's source, of its weights if it is a torch module, and of
    its attribute `sha256` if it has one: give it one where the weights come from elsewhere.
    """
    title = f"{module}:{name}"
    try:
        found = getattr(import_module(module), name)
    except Exception as error:  # the user's own module may raise anything
        raise UserError(
            f"no extractor {title}: {type(error).__name__}: {error}; it is a shipped name, a "
            "checkpoint folder, or the module:function of a module that Python finds"
        ) from None
    if not callable(found):
        raise UserError(f"{title} is no function of images but a {type(found).__name__}")
    function: Callable[..., Any] = found() if isinstance(found, type) else found
    if isinstance(function, nn.Module):
        function.eval()
    return FunctionExtractor(title, _identity(module, name, function), function)


def _identity(module: str, name: str, function: Callable[..., Any]) -> str:
    digest = hashlib.sha256(f"{module}:{name}\n".encode())
    with suppress(OSError, TypeError):  # of a compiled module the name must do
        digest.update(inspect.getsource(import_module(module)).encode())
    if isinstance(function, nn.Module):
        digest.update(sha256_of(function, {}).encode())
    digest.update(str(getattr(function, "sha256", "")).encode())
    return digest.hexdigest()
