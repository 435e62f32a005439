"""Plain torch modules; they know nothing of diffusion."""

from underone.networks.classifier import Classifier, ClassifierConfig
from underone.networks.unet import UNet, UNetConfig

__all__ = ["Classifier", "ClassifierConfig", "UNet", "UNetConfig"]
