"""Backbones of timm and of transformers, as the user has them installed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from underone.adapters.identity import sha256_of
from underone.adapters.images import check_finite, in_parts
from underone.errors import UserError, first_line
from underone.interop.packages import imported
from underone.metrics import Features


@dataclass(frozen=True, eq=False)
class PretrainedExtractor:
    """A backbone, and how images are prepared for it."""

    name: str
    sha256: str
    prepare: Callable[[Tensor], Tensor]
    features: Callable[[Tensor], Tensor]
    revision: int | None = None

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Features:
        """The features of uint8 images, float32; a `UserError` if the backbone fails."""
        try:
            (values,) = in_parts(images, lambda part: (self.features(self.prepare(part)),))
        except Exception as error:  # of a network of another kind, or images that it cannot take
            what = first_line(error)
            raise UserError(f"{self.name} failed on images {tuple(images.shape)}: {what}") from None
        check_finite(self.name, "features", values)
        return Features(values)


RESIZED = "bicubic"


@dataclass(frozen=True)
class Preparation:
    """Resized bicubically with antialiasing to `size` (height, width), then (x - mean) / std.

    x is in [0, 1]; the whole image is resized, nothing is cropped.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Prepared images (B, 3, *size), float32."""
        resized = functional.interpolate(
            images.float() / 255, self.size, mode=RESIZED, antialias=True, align_corners=False
        ).clamp(0, 1)
        mean, std = (torch.tensor(each)[:, None, None] for each in (self.mean, self.std))
        return (resized - mean) / std


def timm_extractor(name: str) -> PretrainedExtractor:
    """A timm backbone: "MODEL" with its own weights, "MODEL:FILE" with a .safetensors file's."""
    timm = imported("timm", "timm")
    model, _, weights = name.partition(":")
    overlay = {"file": weights, "num_classes": 0} if weights else None
    if weights and not (weights.endswith(".safetensors") and Path(weights).is_file()):
        raise UserError(f"timm:{name}: no .safetensors file at {weights}")
    try:
        network = timm.create_model(
            model, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay
        ).eval()
    except Exception as error:  # a name unknown to timm, weights that cannot be fetched
        raise UserError(f"timm:{name}: {first_line(error)}") from None
    config = network.pretrained_cfg
    preparation = Preparation(
        tuple(config["input_size"][1:]), tuple(config["mean"]), tuple(config["std"])
    )
    prepared = vars(preparation) | {"resized": RESIZED, "antialias": True}
    described = {"architecture": model, "prepared": prepared}
    return PretrainedExtractor(f"timm:{model}", sha256_of(network, described), preparation, network)


def transformers_extractor(folder: str) -> PretrainedExtractor:
    """A vision backbone that `save_pretrained` has written to `folder`, in float32.

    Its features are the pooled output or, where it has none or the pooler's weights were not saved,
    the mean over tokens.
    """
    transformers = imported("transformers", "transformers")
    path = Path(folder).expanduser()
    if not (path / "config.json").is_file():
        raise UserError(f"transformers:{folder}: no folder with a config.json, as of a saved model")
    try:
        network, loading = transformers.AutoModel.from_pretrained(
            path, local_files_only=True, output_loading_info=True, trust_remote_code=False
        )
        processor = transformers.AutoImageProcessor.from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )
        network.float().eval()  # saved in bfloat16 it would compute in that
    except Exception as error:  # files that are damaged or of another kind
        raise UserError(f"transformers:{folder}: {first_line(error)}") from None
    missing = sorted(name for name in loading["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise UserError(f"transformers:{folder}: it lacks weights, {missing[0]} among them")
    if loading["missing_keys"]:  # a pooler of random weights
        network.pooler = None

    def prepare(images: Tensor) -> Tensor:
        arrays = list(images.permute(0, 2, 3, 1).numpy())
        pixels: Tensor = processor(images=arrays, return_tensors="pt")["pixel_values"]
        return pixels

    def features(pixels: Tensor) -> Tensor:
        output = network(pixel_values=pixels)
        pooled = getattr(output, "pooler_output", None)
        pooled = output.last_hidden_state.mean(dim=1) if pooled is None else pooled
        return pooled.flatten(1)

    config = network.config.to_dict()
    for where in ("_name_or_path", "transformers_version"):  # which change nothing
        config.pop(where, None)
    described = {"prepared": processor.to_dict(), "config": config}
    return PretrainedExtractor(
        f"transformers:{path.name}", sha256_of(network, described), prepare, features
    )
