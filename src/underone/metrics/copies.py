"""Whether figures are such as copies of training images have; each says yes only where it is plain.

Neither proves it: what they call for is to look at the samples beside training images.
"""

import math

from underone.metrics.figures import Figure
from underone.metrics.measurement import Measurement
from underone.metrics.uncertainty import CONFIDENCE, Blocks, normal_factor, student_t_factor

# A share of the floor that is nothing but rounding; no error is known of such an FID.
_NEGLIGIBLE = 1e-3
# How far from held-out images chance may take a figure, at the fewest samples it is taken of.
_BY_CHANCE = {"memorised-share": 0.25, "data-copying": 3.0}


def below_floor(measurement: Measurement) -> bool:
    """Whether FID is below that of real images by more than both together vary by chance.

    Samples of a perfect model reach the floor; below it are those that have the moments of the
    training set itself. Known only of as many real images as samples, against the training set.
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
    """Whether a measure of memorisation is nearer to that of copies than to held-out images'.

    And further from these than chance takes it.
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
    """Half a 95 % interval of its difference from a mean of `draws` that vary as it does."""
    if figure.blocks:
        several = Blocks(figure.blocks)
        count = len(figure.blocks)
        factor = student_t_factor(CONFIDENCE, count - 1)
        return factor * several.standard_deviation * math.sqrt(1 / count + 1 / draws)
    if figure.error is None:
        return None
    return normal_factor() * figure.error * math.sqrt(1 + 1 / draws)
