"""Checkpoint folders: config.json + model.safetensors, atomic, versioned, never mixed up.

A folder holds everything sampling needs: `config.json` (what the network is, its schedule and
prediction, its data set and classes, how it was trained), `model.safetensors` (the weights to use;
for a model that is sampled their moving average), where they differ `raw.safetensors`, and where it
was kept `weak.safetensors`, the moving average as it was early in the training.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import torch
from pydantic import Field, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from underone.config import Config, parse
from underone.data import Dataset
from underone.data.images import to_model_range
from underone.diffusion import (
    DDIM,
    Consistency,
    Cosine,
    Data,
    Explicit,
    FlowVelocity,
    Geometric,
    LinearBeta,
    NetworkDenoiser,
    Node,
    Noise,
    NoiseStreams,
    Preconditioned,
    Sampler,
    ScaledLinearBeta,
    Score,
    Straight,
    Velocity,
)
from underone.diffusion.evaluations import record_evaluations
from underone.diffusion.prediction import TIME_SCALE
from underone.errors import UserError
from underone.files import read_json, sha256_of_file, write_atomically, write_json
from underone.networks import (
    VAE,
    ClassifierConfig,
    EncoderConfig,
    FeatureNetwork,
    HalfUNet,
    NoisyClassifierConfig,
    TransformerConfig,
    UNet,
    UNetConfig,
    VAEConfig,
    build_feature_network,
)
from underone.networks.precision import place

AnySchedule = Annotated[
    LinearBeta | ScaledLinearBeta | Cosine | Geometric | Straight, Field(discriminator="name")
]
AnyPrediction = Annotated[
    Noise | Data | Velocity | Preconditioned | Score | FlowVelocity, Field(discriminator="name")
]
AnyClassifier = Annotated[ClassifierConfig | TransformerConfig, Field(discriminator="name")]
Weights = Literal["model", "raw", "weak"]
AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)


def check_noisy_end(schedule: AnySchedule, prediction: AnyPrediction) -> None:
    """A `UserError` where noise is predicted though no signal is left to divide out at t = 1."""
    alpha = schedule(torch.ones(()))[0].item()
    if isinstance(prediction, Noise) and alpha < torch.finfo(torch.float32).eps:
        raise UserError(
            f"this schedule ends at alpha = {alpha:.2g}, where x0 = (x - sigma noise) / alpha is "
            "rounding error alone: predict velocity or data, or use smaller betas"
        )


def check_framework(schedule: AnySchedule, prediction: AnyPrediction, network: UNetConfig) -> None:
    """A `UserError` where what the network predicts does not fit its noise or what it is told."""
    check_noisy_end(schedule, prediction)
    alpha, sigma = schedule(torch.linspace(0, 1, 9, dtype=torch.float64))
    whole = torch.ones_like(alpha)
    if isinstance(prediction, Velocity) and not torch.allclose(alpha**2 + sigma**2, whole):
        raise UserError(
            "velocity is alpha z - sigma x0, from which x0 is found only where alpha^2 + sigma^2 "
            f"= 1, unlike in the {schedule.name} schedule: predict noise or data, or flow-velocity "
            "in the straight one"
        )
    if isinstance(prediction, FlowVelocity) and not torch.allclose(alpha + sigma, whole):
        raise UserError(
            "flow-velocity is z - x0, the velocity of the straight path, and the "
            f"{schedule.name} schedule is not straight: choose the straight one, or predict "
            "velocity, noise or data"
        )
    if isinstance(prediction, Score) and network.time:
        raise UserError(
            "a score network is told no time, which it reads from the noise itself: set "
            "network.time = false, or predict noise"
        )


# What the data of a model from elsewhere are called until its user says what they are.
UNKNOWN_DATA = "unknown"


class DataRecord(Config):
    """The data a model was trained on; of a model from elsewhere no hash is known."""

    name: str
    sha256: str | None
    class_names: tuple[str, ...]


class TrainingRecord(Config):
    """How a model was trained; `weak_steps` of its `steps` made its `weak.safetensors`, if any.

    `flip`: it was shown mirror images as well.
    """

    recipe: str
    steps: int
    weak_steps: int | None = None
    batch_size: int
    images_seen: int
    seconds: float
    seed: int
    label_dropout: float = 0.0
    moving_average: float | None = None
    flip: bool = False
    torch: str


class DistillationRecord(Config):
    """What a distilled model was taught, and how it is sampled: by `sampler` along one of `paths`.

    `paths` are the steps k of each number of evaluations that it was made for, noisy first. What
    its teacher was guided by is in it, so that it is not guided itself.
    """

    teacher: str
    teacher_sha256: str
    method: str
    guidance: float = 0.0
    form: str = "classifier-free"
    sampler: Literal["ddim", "consistency"]
    paths: tuple[tuple[float, ...], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _has_paths(self) -> Self:
        for path in self.paths:
            Explicit(path)
        return self

    @property
    def own_sampler(self) -> Sampler:
        """How it takes its steps."""
        return DDIM() if self.sampler == "ddim" else Consistency()

    def path(self, steps: int) -> Explicit | None:
        """Its grid of so many steps, if it has one."""
        found = (path for path in self.paths if len(path) == steps)
        return next((Explicit(path) for path in found), None)


class DiffusionConfig(Config):
    """What a diffusion model's config.json says; `distillation` only of one that was distilled."""

    kind: Literal["diffusion"] = "diffusion"
    format_version: Literal[1] = 1
    network: UNetConfig
    schedule: AnySchedule
    prediction: AnyPrediction
    data: DataRecord
    training: TrainingRecord
    distillation: DistillationRecord | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_framework(self.schedule, self.prediction, self.network)
        return self


class VAECheckpointConfig(Config):
    """What the config.json of a variational autoencoder says."""

    kind: Literal["vae"] = "vae"
    format_version: Literal[1] = 1
    network: VAEConfig
    data: DataRecord
    training: TrainingRecord


class ForeignNetwork(Config):
    """What is known of a network that another package builds, by its own `settings`.

    `classes`: how many it knows, without the null class; None for an unconditional network.
    """

    package: str
    image_size: int
    channels: int
    classes: int | None
    null_class: int | None
    settings: dict[str, Any]
    revision: None = None


class ForeignConfig(Config):
    """What a model from elsewhere is; of its training nothing is known."""

    kind: Literal["diffusion"] = "diffusion"
    network: ForeignNetwork
    schedule: AnySchedule
    prediction: AnyPrediction
    data: DataRecord

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_noisy_end(self.schedule, self.prediction)
        return self


class _FeatureConfig(Config):
    """Features are multiplied by `feature_scale` before anything is measured in them."""

    format_version: Literal[1] = 1
    feature_scale: float = Field(default=1.0, gt=0)
    data: DataRecord
    training: TrainingRecord


class ClassifierCheckpointConfig(_FeatureConfig):
    """What a classifier's config.json says."""

    kind: Literal["classifier"] = "classifier"
    network: AnyClassifier


class EncoderCheckpointConfig(_FeatureConfig):
    """What the config.json of an encoder says, which was trained without labels."""

    kind: Literal["encoder"] = "encoder"
    network: EncoderConfig


class NoisyClassifierCheckpointConfig(Config):
    """What the config.json of a classifier of noisy images says."""

    kind: Literal["noisy-classifier"] = "noisy-classifier"
    format_version: Literal[1] = 1
    network: NoisyClassifierConfig
    schedule: AnySchedule
    data: DataRecord
    training: TrainingRecord


FeatureConfig = ClassifierCheckpointConfig | EncoderCheckpointConfig
CheckpointConfig = (
    DiffusionConfig | VAECheckpointConfig | FeatureConfig | NoisyClassifierCheckpointConfig
)
_KINDS: dict[str, type[CheckpointConfig]] = {
    "diffusion": DiffusionConfig,
    "classifier": ClassifierCheckpointConfig,
    "encoder": EncoderCheckpointConfig,
    "noisy-classifier": NoisyClassifierCheckpointConfig,
    "vae": VAECheckpointConfig,
}


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: its configuration and its network, in evaluation mode.

    `sha256` is the identity of the function computed: weights, network, how its output is read.
    `what` says of each kind what it is, to a user who took it for another.
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
        """What it was taught, if it was distilled."""
        return None if isinstance(self.config, ForeignConfig) else self.config.distillation

    def may_be_of(self, data: Dataset) -> bool:
        """Whether `data` are what it was trained on or, where it does not say, fit it."""
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
        device = next(self.network.parameters()).device
        return NoiseStreams(keys, (self.config.network.latent,), device)()

    @torch.no_grad()
    def decode(self, z: Tensor, labels: Tensor, autocast: torch.dtype | None = None) -> Tensor:
        """The mean (B, C, H, W) of p(x | z, c), in one evaluation of the decoder.

        `z` is (B, latent), `labels` (B,) int64, `autocast` the dtype of mixed precision.
        """
        record_evaluations("model", len(z))
        with torch.autocast(z.device.type, dtype=autocast, enabled=autocast is not None):
            return self.network.decode(z, labels.to(z.device))


# What images are drawn from.
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

        An encoder has no logits.
        Images of another shape than it was trained on are a `UserError`: it would answer, wrongly.
        """
        if tuple(images.shape[1:]) != self.shape:
            raise UserError(
                f"{self.name} takes images of {self.shape} (channels, height, width), got "
                f"{tuple(images.shape[1:])}: use the extractor of these images' data set"
            )
        device = next(self.network.parameters()).device
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
        condition = (TIME_SCALE * node.t).to(x.device, torch.float32).expand(x.shape[0])
        with torch.autocast(x.device.type, dtype=autocast, enabled=autocast is not None):
            logits: Tensor = self.network(x, condition)
        return logits.to(x.dtype)


AnyCheckpoint = GenerativeModel | FeatureModel | NoisyClassifier


def weights_file(folder: Path, weights: Weights = "model") -> Path:
    """Where a checkpoint folder keeps its weights."""
    return folder / f"{weights}.safetensors"


def save_config(folder: Path, config: CheckpointConfig) -> None:
    """Write `config.json`."""
    write_json(folder / "config.json", config.model_dump(mode="json"))


def save_weights(
    folder: Path,
    tensors: Mapping[str, Tensor],
    weights: Weights = "model",
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write weights as safetensors, floating-point ones as `dtype`; there they must be finite."""
    plain = {
        name: tensor.detach().to(dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in tensors.items()
    }
    check_finite(plain, weights_file(folder, weights))
    write_atomically(weights_file(folder, weights), lambda path: save_file(plain, path))


def load_checkpoint(
    folder: Path, weights: Weights = "model", device: torch.device | str = "cpu"
) -> AnyCheckpoint:
    """Load a checkpoint folder. Whatever does not fit together is refused in one line."""
    config = load_config(folder)
    path = weights_file(folder, weights)
    if weights == "weak" and not path.exists():
        raise UserError(
            f"{folder} holds no {path.name}: it was trained before such snapshots were kept, or "
            "with weak_at = 0; train it again, or name another model as the weak one"
        )
    if isinstance(config, DiffusionConfig):
        denoiser = _loaded(UNet(config.network), path, device)
        # The hash is taken now: a run that is still training replaces the file later.
        return DiffusionModel(folder, config, denoiser, identity_of(config, path), weights)
    if isinstance(config, VAECheckpointConfig):
        autoencoder = _loaded(VAE(config.network), path, device)
        return VAEModel(folder, config, autoencoder, identity_of(config, path), weights)
    if isinstance(config, NoisyClassifierCheckpointConfig):
        classifier = _loaded(HalfUNet(config.network), path, device)
        return NoisyClassifier(folder, config, classifier, identity_of(config, path), weights)
    features = _loaded(build_feature_network(config.network), path, device)
    return FeatureModel(folder, config, features, identity_of(config, path), weights)


def _loaded(network: AnyNetwork, path: Path, device: torch.device | str) -> AnyNetwork:
    fill(network, load_tensors(path), path)
    return place(network, device).eval().requires_grad_(False)


def identity_of(config: CheckpointConfig | ForeignConfig, path: Path) -> str:
    """The hash of the function that a network with the weights in `path` computes."""
    function = {
        key: value
        for key, value in config.model_dump(mode="json").items()
        if key in ("kind", "network", "schedule", "prediction", "feature_scale")
    }
    digest = hashlib.sha256(json.dumps(function, sort_keys=True).encode())
    digest.update(sha256_of_file(path).encode())
    return digest.hexdigest()


def load_config(folder: Path) -> CheckpointConfig:
    """Read a checkpoint folder's config.json."""
    if folder.is_file():
        raise _bare_weights(folder)
    if not folder.is_dir():
        raise UserError(f"no checkpoint folder at {folder}")
    path = folder / "config.json"
    if not path.exists():
        found = weights_file(folder)
        raise (
            _bare_weights(found)
            if found.exists()
            else UserError(f"{folder} is not a checkpoint folder: it has no config.json")
        )
    document = read_json(path)
    kind = document.get("kind") if isinstance(document, dict) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        raise UserError(f"{path}: kind must be one of {', '.join(_KINDS)}, got {kind!r}")
    return parse(_KINDS[kind], document, str(path))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; truncated, pickled or non-finite content is refused."""
    if not path.is_file():
        raise UserError(f"no weights at {path}")
    with path.open("rb") as file:
        start = file.read(9)
    # safetensors begin with the 8-byte length of a JSON object, which may itself look like "PK".
    if start[8:] != b"{" and start.startswith(_PICKLES):
        raise UserError(
            f"{path} holds a pickle, which can run any code and is never opened: "
            "save the tensors with safetensors.torch.save_file"
        )
    try:
        tensors = load_file(path)
    except (SafetensorError, ValueError, OverflowError) as error:
        raise UserError(
            f"{path} is not a whole safetensors file ({error}): fetch or save it again"
        ) from None
    check_finite(tensors, path)
    return tensors


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """A `UserError` naming the first tensor with a NaN or infinite value."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(
                f"{path}: tensor {name} holds NaN or infinite values: not a usable model"
            )


# A zip archive, which torch.save writes, and pickle protocols 2 to 5.
_PICKLES = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def fill(network: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Copy `tensors` into `network`, which must fit them name by name and shape by shape."""
    expected = network.state_dict()
    check_fit(expected, tensors, source)
    network.load_state_dict({name: tensors[name].to(expected[name].dtype) for name in expected})


def check_fit(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: Path) -> None:
    """A `UserError` naming the first of `tensors` that fits none of `expected`."""
    odd = sorted(expected.keys() ^ tensors.keys())
    for name, tensor in expected.items():
        if name in tensors and tensors[name].shape != tensor.shape:
            odd.append(name)
    if odd:
        raise _misfit(source, odd[0], expected, tensors)


def revision_of(names: Mapping[str, Any]) -> int:
    """The architecture revision whose resampling tensors these are."""
    return 1 if any(f"{part}.0.conv." in name for name in names for part in _RESAMPLING) else 2


_RESAMPLING = ("downsample", "upsample")


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


def _bare_weights(path: Path) -> UserError:
    names = load_tensors(path)
    found = revision_of(names)
    first = next((n for n in sorted(names) if "sample." in n), next(iter(sorted(names)), "none"))
    return UserError(
        f"{path} is a bare state dict without config.json: its tensors look like architecture "
        f"revision {found} (see {first}), but revisions 1 and 2 compute different functions of "
        "their weights, so it is not guessed: give the folder that holds config.json as well"
    )
