"""What tests of diffusers folders share: a small network of theirs, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel

from underone.errors import UserError
from underone.zoo import load_model

CLASSES = 3


def small_unet(rows: int | None = CLASSES + 1, **changes: Any) -> Any:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "num_class_embeds": rows,
    }
    return UNet2DModel(**settings | changes)


def refusal(folder: Path | str) -> str:
    with pytest.raises(UserError) as caught:
        load_model(f"diffusers:{folder}")
    assert "\n" not in str(caught.value)
    return str(caught.value)
