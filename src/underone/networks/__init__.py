"""Plain torch modules; they know nothing of diffusion."""

from torch import nn

from underone.networks.features import FeatureNetwork
from underone.networks.pyramid import Classifier, ClassifierConfig, Encoder, EncoderConfig
from underone.networks.transformer import Transformer, TransformerConfig
from underone.networks.unet import UNet, UNetConfig

FeatureNetworkConfig = ClassifierConfig | TransformerConfig | EncoderConfig


def build_network(config: UNetConfig | FeatureNetworkConfig) -> nn.Module:
    """The network of a shape, freshly initialised."""
    return UNet(config) if isinstance(config, UNetConfig) else build_feature_network(config)


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
    "Classifier",
    "ClassifierConfig",
    "Encoder",
    "EncoderConfig",
    "FeatureNetwork",
    "FeatureNetworkConfig",
    "Transformer",
    "TransformerConfig",
    "UNet",
    "UNetConfig",
    "build_feature_network",
    "build_network",
]
