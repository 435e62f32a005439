"""Plain torch modules; they know nothing of diffusion."""

from torch import nn

from underone.networks.features import FeatureNetwork
from underone.networks.noisy_classifier import HalfUNet, NoisyClassifierConfig
from underone.networks.pyramid import Classifier, ClassifierConfig, Encoder, EncoderConfig
from underone.networks.transformer import Transformer, TransformerConfig
from underone.networks.unet import UNet, UNetConfig
from underone.networks.vae import VAE, VAEConfig

FeatureNetworkConfig = ClassifierConfig | TransformerConfig | EncoderConfig


def build_network(
    config: UNetConfig | VAEConfig | NoisyClassifierConfig | FeatureNetworkConfig,
) -> nn.Module:
    """The network of a shape, freshly initialised."""
    match config:
        case UNetConfig():
            return UNet(config)
        case VAEConfig():
            return VAE(config)
        case NoisyClassifierConfig():
            return HalfUNet(config)
        case _:
            return build_feature_network(config)


def build_feature_network(config: FeatureNetworkConfig) -> FeatureNetwork:
    """The feature network of a shape, freshly initialised."""
    match config:
        case ClassifierConfig():
            return Classifier(config)
        case TransformerConfig():
            return Transformer(config)
        case EncoderConfig():
            return Encoder(config)


__all__ = [
    "VAE",
    "Classifier",
    "ClassifierConfig",
    "Encoder",
    "EncoderConfig",
    "FeatureNetwork",
    "FeatureNetworkConfig",
    "HalfUNet",
    "NoisyClassifierConfig",
    "Transformer",
    "TransformerConfig",
    "UNet",
    "UNetConfig",
    "VAEConfig",
    "build_feature_network",
    "build_network",
]
