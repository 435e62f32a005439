"""A figure never travels alone: a metric's value with its protocol, subject and environment."""

import platform
from typing import Any

import numpy
import torch

import underone
from underone.config import Config
from underone.data import SampleSet
from underone.errors import UserError
from underone.metrics.extractor import Extractor, moments_of
from underone.metrics.frechet import Gaussian, frechet_distance
from underone.metrics.reference import Reference

PROTOCOL_VERSION = 1


class Identity(Config):
    """A name for people and a hash of the content for certainty."""

    name: str
    sha256: str


class Protocol(Config):
    """How something was measured. Two figures compare only where all of it is equal."""

    version: int = PROTOCOL_VERSION
    count: int
    labels: str
    extractor: Identity
    reference: Identity
    reference_count: int
    reference_split: str
    quantisation: str = "uint8"
    extractor_precision: str = "float32"


class FloorRecord(Config):
    """What real images score under the same protocol, from this many (see `Reference.floor`)."""

    fid: float
    count: int
    draws: int


class Measurement(Config):
    """The result of measuring one sample set.

    `rank_deficient`: there were no more samples than feature dimensions, so that the covariance
    is singular and FID says little. `subject` is what was measured, as its maker recorded it.
    """

    fid: float
    rank_deficient: bool
    floor: FloorRecord
    protocol: Protocol
    subject: dict[str, Any]
    environment: dict[str, Any]


def measure(samples: SampleSet, extractor: Extractor, reference: Reference) -> Measurement:
    """Every metric of a sample set, in the features of `extractor`, against `reference`."""
    if reference.extractor_sha256 != extractor.sha256:
        raise UserError(
            f"reference {reference.name} was made with another extractor "
            f"({reference.extractor} {reference.extractor_sha256[:12]}) than the one given "
            f"({extractor.name} {extractor.sha256[:12]}): figures of different extractors never mix"
        )
    if len(samples) < 2:
        raise UserError("FID needs at least 2 samples")
    moments = moments_of(extractor, samples.images)
    if moments.mean.shape != reference.mean.shape:
        raise UserError(
            f"reference {reference.name} has features of {len(reference.mean)} dimensions, but "
            f"{extractor.name} gives {len(moments.mean)}: build it again with this extractor"
        )
    floor = reference.floor(len(samples))
    return Measurement(
        fid=frechet_distance(Gaussian.of(moments), reference.gaussian),
        rank_deficient=moments.rank_deficient,
        floor=FloorRecord(fid=floor.value, count=floor.count, draws=floor.draws),
        protocol=Protocol(
            count=len(samples),
            labels=str(samples.protocol.get("labels", "unrecorded")),
            extractor=Identity(name=extractor.name, sha256=extractor.sha256),
            reference=Identity(name=reference.name, sha256=reference.sha256),
            reference_count=reference.count,
            reference_split=reference.split,
        ),
        subject=samples.protocol,
        environment=environment(),
    )


def environment() -> dict[str, Any]:
    """The versions and the machine a figure was made with."""
    return {
        "underone": underone.__version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
