"""Plain torch modules; they know nothing of diffusion."""

from underone.networks.classifier import Classifier, ClassifierConfig
from underone.networks.unet import UNet, UNetConfig


def build_network(config: UNetConfig | ClassifierConfig) -> UNet | Classifier:
    """The network of a shape, freshly initialised."""
    return UNet(config) if isinstance(config, UNetConfig) else Classifier(config)


__all__ = ["Classifier", "ClassifierConfig", "UNet", "UNetConfig", "build_network"]
