"""diffusers' UNet2DModel, wrapped to be called like our own networks."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn

from underone.checkpoint import Stored, built, read_weights
from underone.config import Config, parse
from underone.diffusion.prediction import TIME_SCALE
from underone.errors import UserError, kind_and_line
from underone.interop.documents import read_document, refuse
from underone.interop.packages import imported

WEIGHTS = "diffusion_pytorch_model.safetensors"
CLASS_NAME = "UNet2DModel"
# The most that weights take: float64 numbers, and a header that names them.
_BYTES_EACH, _HEADER_BYTES = 8, 2**20
# What attention's tensors were called before diffusers 0.15.
_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
Width = Annotated[int, Field(ge=1, le=2**16)]


class Shape(Config):
    """The settings that matter in a UNet2DModel's config.json, with diffusers' defaults."""

    sample_size: int | tuple[int, int]
    in_channels: int = 3
    out_channels: int = 3
    time_embedding_type: str = "positional"
    time_embedding_dim: Width | None = None
    block_out_channels: Annotated[tuple[Width, ...], Field(min_length=1, max_length=16)] = (
        224,
        448,
        672,
        896,
    )
    layers_per_block: int = Field(default=2, ge=1, le=64)
    class_embed_type: str | None = None
    num_class_embeds: int | None = Field(default=None, ge=1, le=10**6)

    @property
    def image_size(self) -> int:
        """The side of its images."""
        return self.sample_size if isinstance(self.sample_size, int) else self.sample_size[0]


class UNet2D(nn.Module):
    """(B, C, H, W), condition (B,) float 1000 t, label (B,) int64 or None -> (B, C, H, W).

    `unet` was trained with timesteps 0..`steps` - 1. `order` (classes,) is its own class for
    each of our labels.
    """

    order: Tensor | None

    def __init__(self, unet: nn.Module, steps: int, order: Tensor | None) -> None:
        super().__init__()
        self.unet = unet
        self.steps = steps
        self.register_buffer("order", order, persistent=False)

    def forward(self, x: Tensor, condition: Tensor, label: Tensor | None) -> Tensor:
        # Our step k is their timestep k - 1.
        timestep = condition * self.steps / TIME_SCALE - 1
        known_as = None if self.order is None else self.order[label]
        output: Tensor = self.unet(x, timestep, known_as, return_dict=False)[0]
        return output

    def feature_maps(
        self, x: Tensor, condition: Tensor, label: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The feature maps after the first level, after the last and after the middle."""
        unet: Any = self.unet  # its parts are not nn.Module's, so that mypy does not know them
        first, last = unet.down_blocks[0], unet.down_blocks[-1]
        middle = last if unet.mid_block is None else unet.mid_block
        outputs: dict[nn.Module, Any] = {}

        def keep(module: nn.Module, inputs: object, output: object) -> None:
            outputs[module] = output

        handles = [each.register_forward_hook(keep) for each in (first, last, middle)]
        try:
            self(x, condition, label)
        finally:
            for handle in handles:
                handle.remove()
        # A level returns its last map, then all of its maps.
        shallow, deep = outputs[first][1][len(first.resnets) - 1], outputs[last][0]
        return shallow, deep, deep if middle is last else outputs[middle]


def read_shape(path: Path) -> tuple[Shape, dict[str, Any]]:
    """The shape in a UNet2DModel's config.json, and all its settings."""
    document = read_document(path)
    kind = document.get("_class_name")
    if kind != CLASS_NAME:
        raise UserError(f"{path}: the network must be a {CLASS_NAME}, got {kind!r}")
    settings = {key: value for key, value in document.items() if not key.startswith("_")}
    shape = parse(
        Shape, {key: settings[key] for key in Shape.model_fields if key in settings}, str(path)
    )
    sides = {shape.sample_size} if isinstance(shape.sample_size, int) else set(shape.sample_size)
    refusals = [
        (
            len(sides) > 1 or not 1 <= shape.image_size <= 4096,
            f"sample_size {shape.sample_size}: images must be squares of 1..4096 pixels",
        ),
        (
            shape.in_channels not in (1, 3),
            f"in_channels {shape.in_channels}: images have 1 or 3 channels, other numbers are those"
            " of latent models",
        ),
        (
            shape.out_channels != shape.in_channels,
            f"out_channels {shape.out_channels}: they must be as many as in_channels, "
            f"{shape.in_channels}",
        ),
        (
            shape.time_embedding_type != "positional",
            f"time_embedding_type {shape.time_embedding_type!r}: it must be 'positional'",
        ),
        (
            shape.class_embed_type is not None,
            f"class_embed_type {shape.class_embed_type!r}: classes must be given by "
            "num_class_embeds alone",
        ),
    ]
    refuse(path, refusals)
    return shape, settings


def build(config: Path, settings: dict[str, Any], weights: Path) -> tuple[nn.Module, str]:
    """The UNet2DModel of `settings`, read from `config`, with its `weights`, and their hash."""
    kind = imported("diffusers", "underone[diffusers]").UNet2DModel
    odd = sorted(settings.keys() - inspect.signature(kind.__init__).parameters.keys())
    if odd:
        raise UserError(f"{config}: {odd[0]} is not a setting of the {CLASS_NAME} installed here")

    def made() -> nn.Module:
        try:
            network: nn.Module = kind(**settings)
        except Exception as error:  # values that diffusers itself finds impossible
            raise UserError(
                f"{config}: {CLASS_NAME} cannot be built from this: {kind_and_line(error)}"
            ) from None
        return network

    def read(expected: Mapping[str, Tensor]) -> Stored:
        return _stored(weights, sum(tensor.numel() for tensor in expected.values()))

    network, stored = built(made, read, weights)
    return network, stored.sha256


def _stored(path: Path, count: int) -> Stored:
    _refuse_other_weights(path)
    if path.stat().st_size > _BYTES_EACH * count + _HEADER_BYTES:
        raise UserError(
            f"{path} is larger than the {count:,} numbers that its config.json asks for: "
            "the two do not belong together"
        )
    stored = read_weights(path)
    tensors = {_renamed(name): tensor for name, tensor in stored.tensors.items()}
    return replace(stored, tensors=tensors)


def _refuse_other_weights(path: Path) -> None:
    """A `UserError` if the weights are missing, which names those that are there instead."""
    if path.is_file():
        return
    pickle = path.with_suffix(".bin")
    others: dict[Path, Callable[[Path], str]] = {
        path.with_name(f"{path.name}.index.json"): lambda found: f"{found} says they are sharded",
        pickle: lambda found: f"{found} is a pickle, which can run any code and is never opened",
    }
    explanations = [say(found) for found, say in others.items() if found.exists()]
    variants = sorted(each.name for each in path.parent.glob("*.safetensors"))
    explanations += [f"there is {variants[0]}, another variant"] if variants else []
    reason = f" ({explanations[0]})" if explanations else ""
    raise UserError(
        f"no weights at {path}{reason}: save the model anew with save_pretrained, as safetensors"
    )


def _renamed(name: str) -> str:
    stem, _, last = name.rpartition(".")
    stem, _, part = stem.rpartition(".")
    if "attentions" in stem and part in _OLD_NAMES:
        return f"{stem}.{_OLD_NAMES[part]}.{last}"
    return name
