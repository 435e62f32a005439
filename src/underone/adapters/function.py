"""Any Python callable as an extractor."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from underone.adapters.identity import sha256_of
from underone.adapters.images import check_finite
from underone.errors import UserError, kind_and_line
from underone.metrics import Features
from underone.modules import imported_as, source_sha256


@dataclass(frozen=True, eq=False)
class FunctionExtractor:
    """A function of uint8 images (B, C, H, W) that returns features (B, D), or them and logits.

    It is identified by its name and `version`: change that whenever it computes something else.
    """

    name: str
    version: str
    function: Callable[[Tensor], Any]
    revision: int | None = None

    @property
    def sha256(self) -> str:
        """A hash of the name and the version."""
        return hashlib.sha256(f"{self.name}\n{self.version}".encode()).hexdigest()

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Features:
        """What the function returns, in float32, without gradients; a `UserError` if malformed."""
        try:
            found = self.function(images)
        except (Exception, SystemExit) as error:  # the user's own code may raise anything
            raise UserError(
                f"{self.name} failed on images {tuple(images.shape)}: {kind_and_line(error)}"
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

    Identified by the hash of the module's source, of its weights if it is a torch module, and of
    its attribute `sha256` if it has one: give it one where the weights come from elsewhere.
    """
    title = f"{module}:{name}"
    found = imported_as("extractor", title)
    if not callable(found):
        raise UserError(f"{title} is not a function of images but a {type(found).__name__}")
    try:
        function: Callable[..., Any] = found() if isinstance(found, type) else found
    except (Exception, SystemExit) as error:  # the user's own code may raise anything
        raise UserError(
            f"{title} cannot be made without arguments: {kind_and_line(error)}"
        ) from None
    if isinstance(function, nn.Module):
        function.eval()
    return FunctionExtractor(title, _version(title, function), function)


def _version(title: str, function: Callable[..., Any]) -> str:
    digest = hashlib.sha256(source_sha256(title).encode())
    if isinstance(function, nn.Module):
        digest.update(sha256_of(function, {}).encode())
    digest.update(str(getattr(function, "sha256", "")).encode())
    return digest.hexdigest()
