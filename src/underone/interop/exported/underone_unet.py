"""The U-Net of underone as a model of diffusers; underone, which builds it, must be installed."""

from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from pydantic import TypeAdapter
from torch import Tensor

from underone.checkpoint import AnyPrediction, AnySchedule
from underone.diffusion import NetworkDenoiser, node_at
from underone.networks import UNet, UNetConfig


class UnderoneUNet(ModelMixin, ConfigMixin):
    """A noisy image (B, C, H, W), a timestep in 0..steps - 1 and classes (B,) -> UNet2DOutput.

    `shape` is the network's `UNetConfig`. The class after the last is the null class, if
    `null_class`. What comes out is the network's output, or where diffusers has no name for what
    that is, the x0 that it implies by `schedule` and `prediction`.
    """

    @register_to_config
    def __init__(
        self,
        shape: dict[str, Any],
        steps: int,
        null_class: bool,
        schedule: dict[str, Any] | None = None,
        prediction: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.network = UNet(TypeAdapter(UNetConfig).validate_python(dict(shape)))
        self.denoiser = (
            None
            if schedule is None
            else NetworkDenoiser(
                self.network,
                TypeAdapter(AnySchedule).validate_python(schedule),
                TypeAdapter(AnyPrediction).validate_python(prediction),
            )
        )

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        class_labels: Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DOutput | tuple[Tensor]:
        # Timestep i is step i + 1 of underone, whose networks see the time in thousandths.
        # On the CPU, for not every device has float64.
        step = torch.as_tensor(timestep).cpu().double() + 1
        if self.denoiser is None:
            condition = (step * 1000 / self.config.steps).float().to(sample.device)
            condition = condition.expand(len(sample))
            output = self.network(sample, condition, class_labels)
        else:
            node = node_at(self.denoiser.schedule, step / self.config.steps)
            output = self.denoiser(sample, node, class_labels)
        return UNet2DOutput(sample=output) if return_dict else (output,)
