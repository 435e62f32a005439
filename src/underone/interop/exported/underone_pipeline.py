"""Sample a model of underone with diffusers: DDIM on trailing steps, x0 clipped."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from torch import Tensor

from underone.diffusion import NoiseStreams


class UnderonePipeline(DiffusionPipeline):
    """The images of `underone sample --sampler ddim --grid trailing`, for the same seed."""

    def __init__(self, unet: Any, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        class_labels: Sequence[int] | None = None,
        num_inference_steps: int = 20,
        guidance: float = 0.0,
        seed: int = 0,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Images number 0..batch_size - 1 of `seed`, in turn of each class unless labels are given.

        `guidance` is the weight w of (1 + w) model(x, c) - w model(x, null). `output_type`: "pil",
        "np" (B, H, W, C) in [0, 1] or "pt" (B, C, H, W) in [0, 1].
        """
        shape, null = self.unet.config.shape, self.unet.config.shape["classes"]
        if guidance and not self.unet.config.null_class:
            raise ValueError("this model was trained without a null class: use guidance = 0")
        if class_labels is not None:
            batch_size = len(class_labels)
        label = None
        if null is not None:
            balanced = [index % null for index in range(batch_size)]
            label = torch.tensor(balanced if class_labels is None else list(class_labels))
            label = label.to(self.device)
        self.scheduler.set_timesteps(num_inference_steps)
        size = (shape["channels"], shape["image_size"], shape["image_size"])
        noise = NoiseStreams([(seed, index) for index in range(batch_size)], size)()
        left = self.scheduler.alphas_cumprod[self.scheduler.timesteps[0]]
        x = ((1 - left).sqrt() * noise).to(self.device, self.unet.dtype)
        for timestep in self.progress_bar(self.scheduler.timesteps):
            output = self._guided(x, timestep, label, guidance)
            # As in underone, the noise is what the clipped x0 implies.
            step = self.scheduler.step(output, timestep, x, use_clipped_model_output=True)
            x = step.prev_sample
        images: Any = (x / 2 + 0.5).clamp(0, 1).cpu()
        if output_type != "pt":
            images = images.permute(0, 2, 3, 1).float().numpy()
        if output_type == "pil":
            images = self.numpy_to_pil(images)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _guided(self, x: Tensor, timestep: Tensor, label: Tensor | None, weight: float) -> Tensor:
        conditional: Tensor = self.unet(x, timestep, label).sample
        if weight == 0 or label is None:
            return conditional
        null = torch.full_like(label, self.unet.config.shape["classes"])
        return (1 + weight) * conditional - weight * self.unet(x, timestep, null).sample
