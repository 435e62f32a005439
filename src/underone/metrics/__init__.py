"""Measurement: features, moments, FID, and the protocol every figure carries."""

from underone.metrics.extractor import ClassifierFeatures, Extractor, moments_of
from underone.metrics.frechet import Gaussian, frechet_distance
from underone.metrics.measurement import Measurement, Protocol, measure
from underone.metrics.moments import Moments
from underone.metrics.reference import Floor, Reference, build_reference, load_reference

__all__ = [
    "ClassifierFeatures",
    "Extractor",
    "Floor",
    "Gaussian",
    "Measurement",
    "Moments",
    "Protocol",
    "Reference",
    "build_reference",
    "frechet_distance",
    "load_reference",
    "measure",
    "moments_of",
]
