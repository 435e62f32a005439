"""Checkpoint folders: config.json + model.safetensors, atomic, versioned, never mixed up.

A folder holds everything that sampling needs: `config.json` (the network, its schedule and
prediction, its data set and classes, how it was trained), `model.safetensors` (the weights to use;
for a model that is sampled, their moving average), `raw.safetensors` (the last weights, where they
differ) and, if it was kept, `weak.safetensors` (the moving average early in training).
"""

from underone.checkpoint.configs import (
    UNKNOWN_DATA,
    AnyClassifier,
    AnyPrediction,
    AnySchedule,
    CheckpointConfig,
    ClassifierCheckpointConfig,
    DataRecord,
    DiffusionConfig,
    DistillationRecord,
    EncoderCheckpointConfig,
    ForeignConfig,
    ForeignNetwork,
    NoisyClassifierCheckpointConfig,
    TrainingRecord,
    VAECheckpointConfig,
    check_framework,
)
from underone.checkpoint.folder import (
    identity_of,
    load_checkpoint,
    load_config,
    save_config,
)
from underone.checkpoint.models import (
    AnyCheckpoint,
    Checkpoint,
    DiffusionModel,
    FeatureModel,
    GenerativeModel,
    NoisyClassifier,
    VAEModel,
)
from underone.checkpoint.weights import (
    Stored,
    Weights,
    built,
    check_finite,
    load_tensors,
    named_weights,
    read_weights,
    save_weights,
    weights_file,
)

__all__ = [
    "UNKNOWN_DATA",
    "AnyCheckpoint",
    "AnyClassifier",
    "AnyPrediction",
    "AnySchedule",
    "Checkpoint",
    "CheckpointConfig",
    "ClassifierCheckpointConfig",
    "DataRecord",
    "DiffusionConfig",
    "DiffusionModel",
    "DistillationRecord",
    "EncoderCheckpointConfig",
    "FeatureModel",
    "ForeignConfig",
    "ForeignNetwork",
    "GenerativeModel",
    "NoisyClassifier",
    "NoisyClassifierCheckpointConfig",
    "Stored",
    "TrainingRecord",
    "VAECheckpointConfig",
    "VAEModel",
    "Weights",
    "built",
    "check_finite",
    "check_framework",
    "identity_of",
    "load_checkpoint",
    "load_config",
    "load_tensors",
    "named_weights",
    "read_weights",
    "save_config",
    "save_weights",
    "weights_file",
]
