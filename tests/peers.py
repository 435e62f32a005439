"""The packages that the tests compare with, imported without torchvision.

Some of them import torchvision at their first line, for networks and data sets that no test here
touches, and torchvision would bring another torch. While they are imported an empty stand-in takes
its place; afterwards nothing of it is left for anybody else to find.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest

_TORCHVISION = (
    "torchvision",
    "torchvision.datasets",
    "torchvision.models",
    "torchvision.models.feature_extraction",
    "torchvision.models.inception",
    "torchvision.ops",
    "torchvision.ops.misc",
    "torchvision.transforms",
    "torchvision.transforms.functional",
)


class _Anything(type):
    """Of an empty class every attribute is another: enough for the members of an enumeration."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (), {})


class StandIn(ModuleType):
    """A module in which every name is an empty class: enough to be imported or derived from."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        # Code that only asks whether the module is there looks at its spec.
        self.__spec__ = ModuleSpec(name, loader=None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (), {})


@contextmanager
def without_torchvision() -> Iterator[None]:
    """Inside, `import torchvision` finds a stand-in, unless torchvision itself is installed."""
    if importlib.util.find_spec("torchvision") is not None:
        yield
        return
    _ask_transformers()
    modules = {name: StandIn(name) for name in _TORCHVISION}
    for name, module in modules.items():
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, module)
    with pytest.MonkeyPatch.context() as patch:
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        yield


def _ask_transformers() -> None:
    """Make it remember that torchvision is missing: with a stand-in it would expect all of it."""
    with suppress(ImportError):
        importlib.import_module("transformers.utils").is_torchvision_available()


def _imported(*names: str) -> ModuleType:
    """The first of these modules, the others imported with it."""
    with without_torchvision():
        first, *_ = [importlib.import_module(name) for name in names]
    return first


@cache
def import_torch_fidelity() -> ModuleType:
    """`torch_fidelity`, with its `metric_fid`, `metric_kid`, `metric_isc` and `metric_prc`."""
    return _imported("torch_fidelity", "torch_fidelity.metric_prc")


@cache
def import_torchmetrics() -> ModuleType:
    """`torchmetrics`, with its `image.fid`, `image.kid`, `image.inception` and `image.mifid`."""
    # It imports torch-fidelity where that is installed.
    import_torch_fidelity()
    parts = ("fid", "kid", "inception", "mifid")
    return _imported("torchmetrics", *(f"torchmetrics.image.{part}" for part in parts))


@cache
def import_cleanfid() -> ModuleType:
    """`cleanfid`, with its `fid`."""
    return _imported("cleanfid", "cleanfid.fid")


@cache
def import_pytorch_fid() -> ModuleType:
    """`pytorch_fid`, with its `fid_score`."""
    return _imported("pytorch_fid", "pytorch_fid.fid_score")


@cache
def import_prdc() -> ModuleType:
    """`prdc`."""
    return _imported("prdc")


@cache
def _k_diffusion() -> ModuleType:
    """The package without its own imports, which ask for networks, metrics and data sets."""
    found = importlib.util.find_spec("k_diffusion")
    if found is None:
        raise ImportError("install k-diffusion as the Makefile does")
    package = ModuleType("k_diffusion")
    package.__path__ = list(found.submodule_search_locations or [])
    sys.modules["k_diffusion"] = package
    return package


@cache
def import_k_diffusion(part: str) -> ModuleType:
    """`k_diffusion.sampling`, or another part."""
    _k_diffusion()
    return _imported(f"k_diffusion.{part}")


@cache
def import_timm() -> ModuleType:
    """`timm`."""
    return _imported("timm")
