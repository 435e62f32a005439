"""How score-based models choose noise levels and Langevin steps (Song and Ermon 2020).

"Improved techniques for training score-based generative models", arXiv 2006.09011: the largest
level reaches from any image to any other (technique 1), neighbouring levels overlap (technique 2),
and the Langevin steps at each level bring the variance of the one before to its own (technique 4).
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

from underone.diffusion.schedule import Geometric
from underone.errors import UserError

# Their sigma_min of 0.01 is for images in [0, 1]; in [-1, 1] all distances are twice as large.
SIGMA_MIN = 0.02
_OVERLAP = 0.5
_ROWS = 2048
_HALVINGS = 200
_GOLDEN = (math.sqrt(5) - 1) / 2


def score_levels(images: Tensor, sigma_min: float = SIGMA_MIN) -> Geometric:
    """The schedule of techniques 1 and 2 for images (N, ...), in the models' range [-1, 1].

    As many levels as it takes for each to overlap its neighbours.
    """
    sigma_max = largest_distance(images)
    ratio = widest_ratio(images[0].numel())
    if not 0 < sigma_min < sigma_max:
        raise UserError(
            f"sigma_min must lie between 0 and the largest distance of two images, {sigma_max:g}, "
            f"got {sigma_min:g}"
        )
    steps = 1 + math.ceil(math.log(sigma_max / sigma_min) / math.log(ratio))
    return Geometric(sigma_min=sigma_min, sigma_max=sigma_max, steps=steps)


def largest_distance(images: Tensor) -> float:
    """The largest Euclidean distance of any two of `images` (N, ...): sigma_max of technique 1.

    Pairs that cannot be the farthest are passed over: no two are farther apart than their
    distances from the mean together.
    """
    points = images.flatten(1).float()
    points = points - points.mean(0)
    norms = points.norm(dim=1)
    order = norms.argsort(descending=True)
    points, norms = points[order], norms[order]
    largest = torch.zeros(())
    for start in range(0, len(points), _ROWS):
        near, own = points[start : start + _ROWS], norms[start : start + _ROWS]
        within = int((norms + own[0] > largest).sum())
        if within <= start:
            break
        for other in range(start, within, _ROWS):
            far, theirs = points[other : other + _ROWS], norms[other : other + _ROWS]
            squares = (own**2)[:, None] + theirs**2 - 2 * near @ far.T
            largest = torch.maximum(largest, squares.max().clamp(min=0).sqrt())
    return largest.item()


def overlap(ratio: float, elements: int) -> float:
    """The mass of one level within 3 deviations of the radius of the level `ratio` times as large.

    Of noise sigma z in D = `elements` dimensions the norm is close to N(sigma sqrt(D), sigma^2 / 2)
    (proposition 2), which gives Phi(sqrt(2 D) (ratio - 1) + 3 ratio)
    - Phi(sqrt(2 D) (ratio - 1) - 3 ratio), Phi being the standard normal distribution function.
    """
    offset = math.sqrt(2 * elements) * (ratio - 1)
    return _phi(offset + 3 * ratio) - _phi(offset - 3 * ratio)


@lru_cache
def widest_ratio(elements: int) -> float:
    """The ratio of neighbouring levels whose `overlap` is 1/2: technique 2.

    Close to sqrt(2 D) / (sqrt(2 D) - 3). Fewer than 5 elements are a `UserError`: there any two
    levels overlap.
    """
    if elements < 5:
        raise UserError(
            f"noise of {elements} elements overlaps at any ratio of levels: choose their number "
            "yourself"
        )
    low, high = 1.0, 100.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if overlap(middle, elements) > _OVERLAP else (low, middle)
    return low


def settled_variance(rate: float, ratio: float, inner: int) -> float:
    """The variance of x in units of sigma^2 after `inner` Langevin steps at `rate` of sigma^2.

    Of one image, from a level `ratio` times as large, with the papers' noise sigma sqrt(2 rate) z:
    (1 - rate)^(2 T) (ratio^2 - a) + a with a = 1 / (1 - rate / 2), where T is `inner` (eq. 5; rate
    is their epsilon / sigma_L^2).
    """
    kept = (1 - rate) ** (2 * inner)
    settled = 1 / (1 - rate / 2)
    return kept * (ratio**2 - settled) + settled


@lru_cache(maxsize=4096)
def langevin_rate(ratio: float, inner: int) -> float:
    """The rate in (0, 1) that brings `settled_variance` closest to 1: technique 4.

    It never falls below 1 and has one minimum, which is found by golden sections. `ratio` >= 1.
    """
    low, high = 0.0, 1.0
    while high - low > 1e-9:
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if settled_variance(left, ratio, inner) < settled_variance(right, ratio, inner):
            high = right
        else:
            low = left
    return (low + high) / 2


def _phi(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))
