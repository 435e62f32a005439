"""The learning rate, a function of the step alone."""

import math
from collections.abc import Callable

DECAYS: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "linear": lambda progress: 1 - progress,
}


def learning_rate(
    step: int, peak: float, warmup: int, horizon: int, *, flat: float = 0.0, decay: str = "cosine"
) -> float:
    """Linear warm-up to `peak` over `warmup` steps, level, then down to 0 at `horizon`.

        peak (step + 1) / warmup             while step < warmup
        peak                                 until start = max(warmup, flat * horizon)
        peak (1 + cos(pi p)) / 2             "cosine", p = (step - start) / (horizon - start)
        peak (1 - p)                         "linear"

    The warm-up takes half of the horizon at most: a short run would end in it. The rate is level
    until the share `flat` of the horizon has passed, and `decay`, a name of `DECAYS`, is the shape
    of the way down. `step` counts from 0; the rate is the one of the update that follows it.
    """
    warmup = min(warmup, horizon // 2)
    if step < warmup:
        return peak * (step + 1) / warmup
    start = max(warmup, flat * horizon)
    progress = (step - start) / max(1, horizon - start)
    return peak * DECAYS[decay](min(1.0, max(0.0, progress)))
