"""The end of sampling that has gone wrong."""

from underone.errors import UserError


class SamplingDivergedError(UserError):
    """Sampling has ended in NaN or infinity, or cannot go on: another setting may not."""
