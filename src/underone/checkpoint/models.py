"""Loaded checkpoints: a configuration and a network that is ready for use."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from underone.checkpoint.configs import (
    AnySchedule,
    CheckpointConfig,
    DiffusionConfig,
    DistillationRecord,
    FeatureConfig,
    ForeignConfig,
    NoisyClassifierCheckpointConfig,
    VAECheckpointConfig,
)
from underone.checkpoint.weights import Weights
from underone.data import Dataset
from underone.data.images import to_model_range
from underone.diffusion import NetworkDenoiser, Node, NoiseStreams
from underone.diffusion.evaluations import record_evaluations
from underone.diffusion.network_call import as_condition, mixed_precision
from underone.diffusion.prediction import TIME_SCALE
from underone.errors import UserError
from underone.networks import VAE, FeatureNetwork, HalfUNet


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: its configuration and its network, in evaluation mode.

    `sha256` identifies the function computed: weights, network, how its output is read. `what`
    describes the kind of checkpoint, to a user who took it for another.
    """

    what: ClassVar[str]

    folder: Path
    config: CheckpointConfig | ForeignConfig
    network: nn.Module
    sha256: str
    weights: Weights = "model"
    title: str | None = None

    @property
    def name(self) -> str:
        """The title it was given, or its folder's name."""
        return self.folder.name if self.title is None else self.title

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images it was trained on."""
        network = self.config.network
        return network.channels, network.image_size, network.image_size

    def check_shape(self, images: Tensor) -> None:
        """A `UserError` unless `images` (N, C, H, W) have the shape that it was trained on."""
        found = tuple(images.shape[1:])
        if found != self.shape:
            raise UserError(
                f"{self.name} takes images of {self.shape} (channels, height, width), got {found}: "
                "give it images like those it was trained on"
            )

    @property
    def device(self) -> torch.device:
        """The device of its network."""
        return next(self.network.parameters()).device

    @property
    def trained_on_flips(self) -> bool:
        """Whether it was trained on mirror images too, as far as that is known."""
        return not isinstance(self.config, ForeignConfig) and self.config.training.flip


@dataclass(frozen=True)
class DiffusionModel(Checkpoint):
    """A loaded diffusion model."""

    what = "a diffusion model, to be sampled"

    config: DiffusionConfig | ForeignConfig

    @property
    def num_classes(self) -> int | None:
        """How many classes it knows; its null label, if it has one, is this number."""
        return self.config.network.classes

    @property
    def has_null_label(self) -> bool:
        """Whether it was trained without labels as well as with them, so that it can be guided."""
        config = self.config
        if isinstance(config, ForeignConfig):
            return config.network.null_class is not None
        return self.num_classes is not None and config.training.label_dropout > 0

    @property
    def distillation(self) -> DistillationRecord | None:
        """How it was distilled, if it was."""
        return None if isinstance(self.config, ForeignConfig) else self.config.distillation

    def may_be_of(self, data: Dataset) -> bool:
        """Whether `data` are its training data or, if these are not recorded, could be."""
        sha256 = self.config.data.sha256
        if sha256 is not None:
            return data.sha256 == sha256
        fits = self.num_classes in (None, data.num_classes)
        return fits and tuple(data.images.shape[1:]) == self.shape

    def denoiser(self, autocast: torch.dtype | None = None, name: str = "model") -> NetworkDenoiser:
        """The network as a denoiser, without guidance or a threshold on x0.

        `autocast` is the dtype of mixed precision, `name` what its evaluations are counted under.
        """
        config = self.config
        return NetworkDenoiser(self.network, config.schedule, config.prediction, name, autocast)


@dataclass(frozen=True)
class VAEModel(Checkpoint):
    """A loaded conditional variational autoencoder."""

    what = "a conditional VAE, sampled in one pass of its decoder"

    config: VAECheckpointConfig
    network: VAE

    @property
    def num_classes(self) -> int:
        """How many classes it knows."""
        return self.config.network.classes

    def latents(self, keys: Sequence[tuple[int, int]]) -> Tensor:
        """z ~ N(0, I), (B, latent), row b from the stream of `keys[b]`, a (seed, index)."""
        device = self.device
        return NoiseStreams(keys, (self.config.network.latent,), device)()

    @torch.no_grad()
    def decode(self, z: Tensor, labels: Tensor, autocast: torch.dtype | None = None) -> Tensor:
        """The mean (B, C, H, W) of p(x | z, c), in one evaluation of the decoder.

        `z` is (B, latent), `labels` (B,) int64, `autocast` the dtype of mixed precision.
        """
        record_evaluations("model", len(z))
        with mixed_precision(z.device, autocast):
            return self.network.decode(z, labels.to(z.device))


# The models that images are drawn from.
GenerativeModel = DiffusionModel | VAEModel


@dataclass(frozen=True)
class FeatureModel(Checkpoint):
    """A loaded classifier or encoder."""

    what = "a classifier or encoder, whose features are for measuring"

    config: FeatureConfig
    network: FeatureNetwork

    @torch.no_grad()
    def features_and_logits(
        self, images: Tensor, batch_size: int = 100
    ) -> tuple[Tensor, Tensor | None]:
        """Features (N, D), unscaled, and logits (N, classes) of uint8 NCHW images, in float32.

        An encoder has no logits. Images of another shape than it was trained on are a `UserError`:
        the network would accept them, and be wrong.
        """
        self.check_shape(images)
        device = self.device
        features = torch.cat(
            [
                self.network.features(to_model_range(chunk).to(device)).cpu()
                for chunk in images.split(batch_size)
            ]
        )
        logits = self.network.logits(features.to(device))
        return features, None if logits is None else logits.cpu()


@dataclass(frozen=True)
class NoisyClassifier(Checkpoint):
    """A loaded classifier of noisy images: the classifier of `ClassifierGuidance`."""

    what = "a classifier of noisy images, to guide diffusion models"

    config: NoisyClassifierCheckpointConfig
    network: HalfUNet

    @property
    def schedule(self) -> AnySchedule:
        """The noise schedule it was trained under."""
        return self.config.schedule

    @property
    def num_classes(self) -> int:
        """How many classes it tells apart."""
        return self.config.network.classes

    def __call__(self, x: Tensor, node: Node, autocast: torch.dtype | None = None) -> Tensor:
        """The logits (B, classes) of p(c | x_t = x) at a node, of the dtype of x.

        Differentiable in x (B, C, H, W). `autocast` is the dtype of mixed precision.
        """
        with mixed_precision(x.device, autocast):
            logits: Tensor = self.network(x, as_condition(TIME_SCALE * node.t, x))
        return logits.to(x.dtype)


AnyCheckpoint = GenerativeModel | FeatureModel | NoisyClassifier
