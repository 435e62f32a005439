"""Measure whole sample sets, from a file or from a model as it draws them."""

from underone.evaluation.blocks import evaluate_samples
from underone.evaluation.live import LiveSamples, evaluate_model
from underone.evaluation.panel import PANEL_NEIGHBOURS, write_panel
from underone.evaluation.training_set import (
    among_training_images,
    training_features,
    training_images,
)

__all__ = [
    "PANEL_NEIGHBOURS",
    "LiveSamples",
    "among_training_images",
    "evaluate_model",
    "evaluate_samples",
    "training_features",
    "training_images",
    "write_panel",
]
