"""Samplers, the user's own too, measured on exact denoisers against what they claim."""

from underone.conformance.battery import Finding, conformance

__all__ = ["Finding", "conformance"]
