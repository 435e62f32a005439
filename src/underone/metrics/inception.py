"""The Inception Score (Salimans et al. 2016), of any classifier's logits."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class InceptionScore:
    """The mean over `splits` equal parts of the samples, and the deviation between them (ddof 0).

    `standard_error` is IS sd_x(KL(p(y|x) || q)) / sqrt(N), of one split of all: the delta method,
    in which q's own error cancels to first order.

    A part of n samples scores less than the law they come from, by about
    IS sum_c Var(p_c) / (2 n q_c): compare only at equal sizes and splits.
    """

    mean: float
    std: float
    splits: int
    standard_error: float


def inception_score(logits: Tensor, *, splits: int = 10) -> InceptionScore:
    """exp(mean_x KL(p(y|x) || q)), q the mean of p(y|x) over a split; logits (N, C), N >= splits.

    Between 1, when every sample has the same p(y|x), and C, when all classes are equally frequent
    and each sample's is certain. Split i is the rows from i N // splits to (i + 1) N // splits, so
    shuffle samples that are sorted by class.
    """
    if logits.ndim != 2 or logits.shape[1] < 1:
        raise ValueError(f"logits must be (N, C) with C >= 1, got {tuple(logits.shape)}")
    if not logits.isfinite().all():
        raise ValueError("logits hold NaN or infinite values")
    count = len(logits)
    if not 1 <= splits <= count:
        raise ValueError(f"{splits} splits of {count} samples: take 1 to {count}")
    bounds = [i * count // splits for i in range(splits + 1)]
    log_p = logits.to(torch.float64).log_softmax(dim=1)
    scores = torch.stack([_score(log_p[bounds[i] : bounds[i + 1]]) for i in range(splits)])
    return InceptionScore(
        float(scores.mean()), float(scores.std(correction=0)), splits, _standard_error(log_p)
    )


def _score(log_p: Tensor) -> Tensor:
    """The score of one split, from log p(y|x) (n, C), as a float64 scalar."""
    # The bounds are exact; only rounding goes past them.
    return _divergences(log_p).mean().exp().clamp(1, log_p.shape[1])


def _standard_error(log_p: Tensor) -> float:
    divergences = _divergences(log_p)
    if len(divergences) < 2:
        return math.nan
    return float(divergences.mean().exp() * divergences.std() / math.sqrt(len(divergences)))


def _divergences(log_p: Tensor) -> Tensor:
    """KL(p(y|x) || q) of each x, from log p(y|x) (n, C), (n,).

    All in logarithms: a class that no sample has any share of would give 0 log(0 / 0), which is NaN
    where p and q have underflown to 0, but 0 where their logarithms are still there.
    """
    log_q = log_p.logsumexp(dim=0) - math.log(len(log_p))
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)
