"""What one check of a sampler found."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One check: what was claimed, what was measured, and whether it holds."""

    check: str
    claimed: str
    measured: str
    holds: bool
