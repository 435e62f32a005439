"""Signs in a measurement that samples are copies of training images, given in clear cases only.

They are not a proof, but a reason to look at the samples beside training images.
"""

import math

from underone.metrics.figures import Figure
from underone.metrics.measurement import Measurement
from underone.metrics.uncertainty import CONFIDENCE, Blocks, normal_factor, student_t_factor

# An FID below this share of the floor is 0 up to rounding, and may have no standard error.
_NEGLIGIBLE = 1e-3
# How far chance may take a figure from that of held-out images, at the fewest samples allowed.
_BY_CHANCE = {"memorised-share": 0.25, "data-copying": 3.0}


def below_floor(measurement: Measurement) -> bool:
    """Whether FID is below that of real images by more than the chance variation of both.

    Samples of a perfect model reach the floor; samples with the moments of the training set itself
    fall below it. False unless the reference is of the training set, and the floor of as many
    images as there are samples.
    """
    floor, protocol = measurement.floor, measurement.protocol
    if floor is None or protocol.reference_split != "train" or floor.count != protocol.count:
        return False
    if "fid" not in measurement.figures or "fid" not in floor.figures:
        return False
    figure, real = measurement.figures["fid"], floor.figures["fid"].value
    if figure.value < _NEGLIGIBLE * real:
        return True
    margin = _margin(figure, floor.draws)
    return margin is not None and figure.value < real - margin


def like_copies(measurement: Measurement) -> bool:
    """Whether a memorisation measure is nearer to its value on copies than on held-out images.

    It must also be further from the latter than chance would take it.
    """
    floor = {} if measurement.floor is None else measurement.floor.figures
    for name, chance in _BY_CHANCE.items():
        figure, copies, real = (
            figures.get(name) for figures in (measurement.figures, measurement.copies, floor)
        )
        if figure is None or copies is None or real is None:
            continue
        off, scale = figure.value - real.value, copies.value - real.value
        if abs(off) > chance and off * scale > scale**2 / 2:
            return True
    return False


def _margin(figure: Figure, draws: int) -> float | None:
    """Half the 95 % interval of its difference from the mean of `draws` equally variable ones."""
    if figure.blocks:
        several = Blocks(figure.blocks)
        count = len(figure.blocks)
        factor = student_t_factor(CONFIDENCE, count - 1)
        return factor * several.standard_deviation * math.sqrt(1 / count + 1 / draws)
    if figure.error is None:
        return None
    return normal_factor() * figure.error * math.sqrt(1 + 1 / draws)
