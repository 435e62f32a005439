"""Tensors in files: written atomically, read with care, and never of another architecture."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from underone.errors import UserError, first_line
from underone.files import write_atomically

AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)
Weights = Literal["model", "raw", "weak"]
# A zip archive, which torch.save writes, and pickle protocols 2 to 5.
_PICKLES = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
# The types of weights; quantised and complex ones would silently be cast.
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_RESAMPLING = ("downsample", "upsample")


def weights_file(folder: Path, weights: Weights = "model") -> Path:
    """The file in which a checkpoint folder keeps its weights."""
    return folder / f"{weights}.safetensors"


def named_weights(path: Path) -> tuple[Path, Weights] | None:
    """The folder and which of its weights, if `path` is a weights file of a checkpoint."""
    folder = path.parent
    if not path.is_file() or not (folder / "config.json").exists():
        return None
    which: tuple[Weights, ...] = get_args(Weights)
    return next(((folder, each) for each in which if path == weights_file(folder, each)), None)


@dataclass(frozen=True, eq=False)
class Stored:
    """The tensors of a safetensors file, and the hash of the bytes that they were read from.

    `step` is the training step that it was saved after, if recorded; see `save_weights`.
    """

    tensors: dict[str, Tensor]
    sha256: str
    step: str | None


def save_weights(
    folder: Path,
    tensors: Mapping[str, Tensor],
    weights: Weights = "model",
    dtype: torch.dtype = torch.float32,
    step: int | None = None,
) -> None:
    """Write weights as safetensors, floating-point ones as `dtype`, in which they must be finite.

    Weights that are saved repeatedly record the `step` of their training: beside a config.json of
    another step they are refused.
    """
    plain = {
        name: tensor.detach().to(dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in tensors.items()
    }
    check_finite(plain, weights_file(folder, weights))
    metadata = None if step is None else {"step": str(step)}
    write_atomically(weights_file(folder, weights), lambda path: save_file(plain, path, metadata))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; see `read_weights`."""
    return read_weights(path).tensors


def read_weights(path: Path) -> Stored:
    """Read a safetensors file; truncated, pickled or non-finite content is refused."""
    if not path.is_file():
        raise UserError(f"no weights at {path}")
    # Read once, since a run that is still training replaces the file.
    content = path.read_bytes()
    # safetensors begin with the 8-byte length of a JSON object, which may itself look like "PK".
    if content[8:9] != b"{" and content.startswith(_PICKLES):
        raise UserError(
            f"{path} holds a pickle, which can run any code and is never opened: "
            "save the tensors with safetensors.torch.save_file"
        )
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, OverflowError, KeyError) as error:
        raise UserError(
            f"{path} is not a whole safetensors file ({error}): fetch or save it again"
        ) from None
    for name, tensor in tensors.items():
        if (tensor.is_floating_point() or tensor.is_complex()) and tensor.dtype not in _FLOATS:
            raise UserError(
                f"{path}: tensor {name} is of {tensor.dtype}: save it as float32 or float16"
            )
    check_finite(tensors, path)
    return Stored(tensors, hashlib.sha256(content).hexdigest(), _metadata(content).get("step"))


def _metadata(content: bytes) -> dict[str, str]:
    header = content[8 : 8 + int.from_bytes(content[:8], "little")]
    found: dict[str, str] = json.loads(header).get("__metadata__", {})
    return found


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """A `UserError` naming the first tensor with a NaN or infinite value."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(
                f"{path}: tensor {name} holds NaN or infinite values: not a usable model"
            )


def fill(network: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Copy `tensors` into `network`, which must fit them name by name and shape by shape."""
    expected = network.state_dict()
    check_fit(expected, tensors, source)
    network.load_state_dict({name: tensors[name].to(expected[name].dtype) for name in expected})


class _Undrawn(TorchFunctionMode):
    """Leaves weights as they are made: on the meta device there is nothing to draw.

    Torch would import its compiler to draw nothing, which takes longer than to load a model.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        named = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__:
            return named["tensor"] if "tensor" in named else args[0]
        return func(*args, **named)


def built(
    make: Callable[[], AnyNetwork],
    read: Callable[[Mapping[str, Tensor]], Stored],
    source: Path,
) -> tuple[AnyNetwork, Stored]:
    """The network that `make` makes, with the weights that `read` reads from `source`, and these.

    `read` is given the state_dict that the network expects, on the meta device. The network is made
    without memory first, since a config.json may claim more than there is, or than the file holds.
    """
    try:
        with torch.device("meta"), _Undrawn():
            expected = make().state_dict()
    except RuntimeError as error:
        raise UserError(
            f"{source.parent}: its config.json describes an impossible network: {first_line(error)}"
        ) from None
    stored = read(expected)
    check_fit(expected, stored.tensors, source)
    network = make()
    fill(network, stored.tensors, source)
    return network, stored


def check_fit(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: Path) -> None:
    """A `UserError` naming the first tensor in which `tensors` and `expected` differ."""
    odd = sorted(expected.keys() ^ tensors.keys())
    for name, tensor in expected.items():
        if name in tensors and tensors[name].shape != tensor.shape:
            odd.append(name)
    if odd:
        raise _misfit(source, odd[0], expected, tensors)
    for name, tensor in expected.items():
        if tensor.is_floating_point() and not tensors[name].is_floating_point():
            raise UserError(
                f"{source}: tensor {name} is of {tensors[name].dtype}, where the network has "
                "floating-point numbers: save it as float32 or float16"
            )


def revision_of(names: Mapping[str, Any]) -> int:
    """The architecture revision whose resampling tensors these are."""
    return 1 if any(f"{part}.0.conv." in name for name in names for part in _RESAMPLING) else 2


def _misfit(
    source: Path, name: str, expected: Mapping[str, Tensor], given: Mapping[str, Tensor]
) -> UserError:
    wanted, found = revision_of(expected), revision_of(given)
    shapes = " and ".join(
        f"{where} {tuple(tensors[name].shape)}" if name in tensors else f"not {where}"
        for where, tensors in (("in the config's network", expected), ("in the file", given))
    )
    if wanted != found:
        return UserError(
            f"{source} holds weights of architecture revision {found}, but its config.json says "
            f"revision {wanted}: first tensor that does not fit: {name} ({shapes}). Revisions are "
            "never mixed; restore the config.json that was saved with these weights"
        )
    return UserError(
        f"{source} does not fit its config.json: first tensor that does not fit: {name} ({shapes})"
    )
