"""Samplers, also the user's own, measured on exact denoisers against what they claim."""

from underone.conformance.battery import conformance
from underone.conformance.finding import Finding

__all__ = ["Finding", "conformance"]
