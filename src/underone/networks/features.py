"""The interface of networks whose features are measured in."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class FeatureNetwork(nn.Module, ABC):
    """(B, C, H, W) in [-1, 1] -> features (B, D), and what they say of the class, if anything."""

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """The features (B, D) of images."""

    def logits(self, features: Tensor) -> Tensor | None:
        """The class logits (B, classes) of features; None for a network that knows no classes."""
        return None
