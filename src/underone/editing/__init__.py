"""Editing given images with a model: invert, interpolate, vary, inpaint."""

from underone.editing.frames import Frames, check_frames, trajectories, way_of
from underone.editing.inversion import (
    check_invertible,
    check_pairs,
    decode,
    encode,
    interpolate,
    share_returned,
)
from underone.editing.inverted import Inverted, read_inverted
from underone.editing.redraw import Edit, Inpainting, Variation, redraw
from underone.editing.source import SOURCE_LABELS, classes_of

__all__ = [
    "SOURCE_LABELS",
    "Edit",
    "Frames",
    "Inpainting",
    "Inverted",
    "Variation",
    "check_frames",
    "check_invertible",
    "check_pairs",
    "classes_of",
    "decode",
    "encode",
    "interpolate",
    "read_inverted",
    "redraw",
    "share_returned",
    "trajectories",
    "way_of",
]
