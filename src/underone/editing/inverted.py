"""The result of an inversion, in memory and in an .npz."""

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from underone.data import SampleSet, read_arrays, to_uint8, write_arrays
from underone.errors import UserError
from underone.files import to_json
from underone.generation import Setting
from underone.modules import refuse_code

_ARRAYS = {"noise", "images", "protocol"}


@dataclass(frozen=True, eq=False)
class Inverted:
    """Noise float32 (N, C, H, W), the uint8 images decoded from it, and labels (N,) if any.

    `protocol` records how, as `generation.subject` does.
    """

    noise: Tensor
    images: Tensor
    labels: Tensor | None
    protocol: dict[str, Any]

    def __post_init__(self) -> None:
        SampleSet(self.images, self.labels)  # which says what is wrong with either
        if self.noise.dtype != torch.float32 or self.noise.shape != self.images.shape:
            raise ValueError(
                f"noise must be float32 {tuple(self.images.shape)}, like the images, not "
                f"{self.noise.dtype} {tuple(self.noise.shape)}"
            )
        if not self.noise.isfinite().all():
            raise ValueError("the noise is not finite")

    @property
    def setting(self) -> Setting:
        """The setting it was made with."""
        names = [field.name for field in fields(Setting)]
        known = {name: self.protocol[name] for name in names if name in self.protocol}
        match known.get("interval"):
            case [low, None]:  # infinity is null on disk, except in older files
                known["interval"] = low, math.inf
        return TypeAdapter(Setting).validate_python(known)

    @property
    def picture(self) -> Tensor:
        """The noise as uint8 images, grey at 0, black and white at three standard deviations."""
        return to_uint8(self.noise / 3)

    def save(self, path: Path) -> None:
        """Write `noise`, `images`, `labels` and `protocol` (JSON) atomically; no pickles."""
        tensors = {"noise": self.noise, "images": self.images, "labels": self.labels}
        arrays = {name: values.numpy() for name, values in tensors.items() if values is not None}
        write_arrays(path, arrays | {"protocol": np.array(to_json(self.protocol))})


def read_inverted(path: Path) -> Inverted:
    """Read what `Inverted.save` wrote; anything else is a `UserError`."""
    expected = "noise, images, labels and protocol, as underone invert --out FILE.npz writes them"
    arrays = read_arrays(path, lambda names: names & {*_ARRAYS, "labels"}, "noise", expected)
    missing = sorted(_ARRAYS - arrays.keys())
    if missing:
        raise UserError(f"{path} holds no {' and no '.join(missing)}: expected {expected}")
    labels = arrays.get("labels")
    try:
        inverted = Inverted(
            torch.from_numpy(arrays["noise"]),
            torch.from_numpy(arrays["images"]),
            None if labels is None else torch.from_numpy(labels),
            dict(json.loads(str(arrays["protocol"]))),
        )
        for name in ("sampler", "grid", "form"):
            refuse_code(str(inverted.protocol.get(name, "")), str(path))
        _ = inverted.setting
    except ValidationError as error:
        raise UserError(f"{path}: its protocol: {error.errors()[0]['msg']}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path} holds no noise of images: {error}") from None
    return inverted
