"""Data sets and sample sets: uint8 NCHW images, int64 labels, and the only normalisation."""

from underone.data.arrays import read_arrays, write_arrays
from underone.data.dataset import SPLITS, Dataset, balanced_indices
from underone.data.images import check_images, to_model_range, to_uint8
from underone.data.load import (
    DATASET_NAMES,
    LICENCES,
    available_splits,
    find_training_split,
    load_dataset,
)
from underone.data.locate import cache_folder, keep
from underone.data.picture import png_bytes, save_picture, tile, to_picture
from underone.data.prepare import prepare_folder
from underone.data.sample_set import SampleSet, read_samples

__all__ = [
    "DATASET_NAMES",
    "LICENCES",
    "SPLITS",
    "Dataset",
    "SampleSet",
    "available_splits",
    "balanced_indices",
    "cache_folder",
    "check_images",
    "find_training_split",
    "keep",
    "load_dataset",
    "png_bytes",
    "prepare_folder",
    "read_arrays",
    "read_samples",
    "save_picture",
    "tile",
    "to_model_range",
    "to_picture",
    "to_uint8",
    "write_arrays",
]
