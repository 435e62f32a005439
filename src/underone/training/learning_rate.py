"""The learning rate, a function of the step alone."""

import math


def learning_rate(step: int, peak: float, warmup: int, horizon: int) -> float:
    """Linear warm-up to `peak` over `warmup` steps, then a cosine down to 0 at `horizon`.

    `step` counts from 0; the rate is the one of the update that follows it.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, horizon - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
