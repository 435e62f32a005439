"""From a model and a setting to a sample set: the one way images are made."""

from underone.generation.command_line import option_words, sample_command
from underone.generation.compilation import compiled, repays_compiling
from underone.generation.draw import Draw
from underone.generation.sample_sets import (
    DEFAULT_BATCH_SIZE,
    check,
    class_labels,
    generate,
    generate_batches,
    labels_of,
    subject,
    to_images,
    uses_labels,
    usual_labels,
)
from underone.generation.setting import (
    ANALYTIC,
    DECODER,
    DISTILLED,
    OWN_GRIDS,
    TUNED,
    Precision,
    Setting,
    autocast_of,
    denoiser_for,
    grid_for,
    precision_name,
    sampler_for,
    usual_setting,
)

__all__ = [
    "ANALYTIC",
    "DECODER",
    "DEFAULT_BATCH_SIZE",
    "DISTILLED",
    "OWN_GRIDS",
    "TUNED",
    "Draw",
    "Precision",
    "Setting",
    "autocast_of",
    "check",
    "class_labels",
    "compiled",
    "denoiser_for",
    "generate",
    "generate_batches",
    "grid_for",
    "labels_of",
    "option_words",
    "precision_name",
    "repays_compiling",
    "sample_command",
    "sampler_for",
    "subject",
    "to_images",
    "uses_labels",
    "usual_labels",
    "usual_setting",
]
