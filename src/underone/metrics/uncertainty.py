"""The uncertainty of a figure: spread over seed blocks, paired differences, Wilson's intervals.

Seed blocks show the spread of sampling alone. Training again with another seed gives a larger one,
about which no number of blocks says anything.
"""

import math
import statistics
from dataclasses import dataclass
from enum import StrEnum

# The default probability that an interval contains the true value.
CONFIDENCE = 0.95


@dataclass(frozen=True)
class ConfidenceInterval:
    """A confidence interval, `low` <= `high`."""

    low: float
    high: float


@dataclass(frozen=True)
class Blocks:
    """A metric's values over disjoint seed blocks of equal size; at least 2, finite.

    They are not resamples of one set: resampling with replacement repeats samples, which biases FID
    upwards once more.
    """

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.values) < 2:
            raise ValueError(f"a spread needs at least 2 blocks, got {len(self.values)}")
        if not all(math.isfinite(value) for value in self.values):
            raise ValueError(f"the values of blocks must be finite, got {self.values}")

    @property
    def mean(self) -> float:
        """The mean over the blocks: the figure to report."""
        return statistics.fmean(self.values)

    @property
    def standard_deviation(self) -> float:
        """The sample standard deviation of one block (n - 1), not of the mean."""
        return statistics.stdev(self.values)

    @property
    def minimum(self) -> float:
        """The best of the blocks, which some papers report (Karras et al. 2022: of three).

        It does not estimate the mean: for three normal values it lies 0.85 standard deviations
        below, for more blocks further. Compare it only with figures made the same way.
        """
        return min(self.values)

    def interval(self, confidence: float = CONFIDENCE) -> ConfidenceInterval:
        """mean +- t s / sqrt(B), t of Student's distribution with B - 1 degrees of freedom."""
        count = len(self.values)
        factor = student_t_factor(confidence, count - 1)
        half = factor * self.standard_deviation / math.sqrt(count)
        return ConfidenceInterval(self.mean - half, self.mean + half)

    def __str__(self) -> str:
        return (
            f"{self.mean:.4g} ± {self.standard_deviation:.2g} "
            f"(mean ± sd of {len(self.values)} blocks; minimum {self.minimum:.4g})"
        )


class Verdict(StrEnum):
    """Which of two settings has the lower metric, if the blocks separate them."""

    A_LOWER = "A lower"
    B_LOWER = "B lower"
    NOT_SEPARATED = "not separated"


@dataclass(frozen=True)
class Comparison:
    """Setting A against setting B: the mean of A - B over blocks, and its confidence interval."""

    difference: float
    interval: ConfidenceInterval
    confidence: float
    blocks: int

    @property
    def verdict(self) -> Verdict:
        """Which setting is lower, if the interval excludes 0."""
        if self.interval.high < 0:
            return Verdict.A_LOWER
        if self.interval.low > 0:
            return Verdict.B_LOWER
        return Verdict.NOT_SEPARATED

    @property
    def separates(self) -> bool:
        """Whether the interval excludes 0."""
        return self.verdict is not Verdict.NOT_SEPARATED


def compare(a: Blocks, b: Blocks, confidence: float = CONFIDENCE) -> Comparison:
    """Compare two settings whose i-th blocks were drawn with the same seeds.

    The interval is that of Student's t (1908) for the differences d_i = a_i - b_i,

        mean(d) +- t s(d) / sqrt(B),    t with B - 1 degrees of freedom,

    4.303 / sqrt(3) standard deviations for 3 blocks and 95 %. The effect of shared noise on both
    settings cancels in d_i. One comparison in twenty of equal settings is separated at 95 %:
    with many settings, expect some. Unequal numbers of blocks raise `ValueError`.
    """
    if len(a.values) != len(b.values):
        raise ValueError(
            f"paired settings must have as many blocks: got {len(a.values)} and {len(b.values)}"
        )
    differences = Blocks(tuple(x - y for x, y in zip(a.values, b.values, strict=True)))
    return Comparison(differences.mean, differences.interval(confidence), confidence, len(a.values))


def normal_factor(confidence: float = CONFIDENCE) -> float:
    """The z with P(|Z| <= z) = confidence for a standard normal Z."""
    return statistics.NormalDist().inv_cdf((1 + confidence) / 2)


def student_t_factor(confidence: float, degrees: int) -> float:
    """The t with P(|T| <= t) = confidence, 0 < confidence < 1, by bisection in atan(t / sqrt(nu)).

    The angle is bounded, so no bracket has to be found; bisection ends at neighbouring floats.
    """
    _check_confidence(confidence)
    low, high = 0.0, math.pi / 2
    while low < (middle := (low + high) / 2) < high:
        if _central_probability(middle, degrees) < confidence:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan(high)


def _central_probability(angle: float, degrees: int) -> float:
    """P(|T| <= sqrt(nu) tan(angle)) for nu degrees of freedom, as a finite sum.

    Abramowitz and Stegun (1964), 26.7.3 and 26.7.4, with c and s the angle's cosine and sine:

        nu odd    2 / pi (angle + s (c + 2/3 c^3 + ... + (2 4 ... nu-3) / (3 5 ... nu-2) c^(nu-2)))
        nu even   s (1 + 1/2 c^2 + ... + (1 3 ... nu-3) / (2 4 ... nu-2) c^(nu-2))
    """
    if degrees < 1:
        raise ValueError(f"Student's t needs at least 1 degree of freedom, got {degrees}")
    cosine, odd = math.cos(angle), degrees % 2
    term, terms = (cosine if odd else 1.0), []
    for power in range(odd, degrees - 1, 2):
        terms.append(term)
        term *= (power + 1) / (power + 2) * cosine**2
    series = math.sin(angle) * math.fsum(terms)
    return 2 / math.pi * (angle + series) if odd else series


def wilson(successes: int, count: int, confidence: float = CONFIDENCE) -> ConfidenceInterval:
    """The score interval of a proportion p = successes / count (Wilson 1927).

        (p + z^2/2n +- z sqrt(p (1 - p) / n + z^2/4n^2)) / (1 + z^2/n)

    Within [0, 1], and of positive width also at p = 0 and p = 1, unlike p +- z sqrt(p (1 - p) / n).
    Counts that are not 0 <= successes <= count, count >= 1, raise `ValueError`.
    """
    if count < 1 or not 0 <= successes <= count:
        raise ValueError(f"a proportion needs 0 <= successes <= count, got {successes} of {count}")
    _check_confidence(confidence)
    p, z = successes / count, normal_factor(confidence)
    shrunk = p + z**2 / (2 * count)
    half = z * math.sqrt(p * (1 - p) / count + (z / (2 * count)) ** 2)
    scale = 1 + z**2 / count
    return ConfidenceInterval(max(0.0, (shrunk - half) / scale), min(1.0, (shrunk + half) / scale))


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
