"""Measurement: features, metrics, and the protocol every figure carries."""

from underone.metrics.comparison import (
    not_allowed,
    paired_differences,
    protocol_differences,
    protocol_fields,
)
from underone.metrics.extractor import Extractor, Features, NetworkExtractor, features_of
from underone.metrics.figures import Figure
from underone.metrics.frechet import Gaussian, frechet_distance
from underone.metrics.measurement import Measurement, Protocol, measure, measure_batches
from underone.metrics.moments import Moments
from underone.metrics.reference import Reference, build_reference
from underone.metrics.reference_file import load_reference, save_reference
from underone.metrics.scores import METRICS, metric_names
from underone.metrics.yardstick import Judge, Yardstick

__all__ = [
    "METRICS",
    "Extractor",
    "Features",
    "Figure",
    "Gaussian",
    "Judge",
    "Measurement",
    "Moments",
    "NetworkExtractor",
    "Protocol",
    "Reference",
    "Yardstick",
    "build_reference",
    "features_of",
    "frechet_distance",
    "load_reference",
    "measure",
    "measure_batches",
    "metric_names",
    "not_allowed",
    "paired_differences",
    "protocol_differences",
    "protocol_fields",
    "save_reference",
]
