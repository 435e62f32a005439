"""The Inception Score (Salimans et al. 2016), of any classifier's logits."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class InceptionScore:
    """The score of all samples at once.

    `standard_error` is IS sd_x(KL(p(y|x) || q)) / sqrt(N): the delta method, in which q's own error
    cancels to first order.

    N samples score lower than their distribution, by about IS sum_c Var(p_c) / (2 N q_c):
    compare only at equal N, and not with the mean over parts of N / 10 that others report.
    """

    value: float
    standard_error: float


def inception_score(logits: Tensor) -> InceptionScore:
    """exp(mean_x KL(p(y|x) || q)), q the mean of p(y|x) over all samples x; logits (N, C).

    It lies between 1, where every sample has the same p(y|x), and C, where all classes are equally
    frequent and each sample's is certain.
    """
    if logits.ndim != 2 or 0 in logits.shape:
        raise ValueError(f"logits must be (N, C) with N, C >= 1, got {tuple(logits.shape)}")
    if not logits.isfinite().all():
        raise ValueError("logits hold NaN or infinite values")
    kl = _kl_from_marginal(logits.to(torch.float64).log_softmax(dim=1))
    score = kl.mean().exp()
    # The bounds are exact; only rounding goes past them.
    return InceptionScore(float(score.clamp(1, logits.shape[1])), _standard_error(kl, float(score)))


def _standard_error(kl: Tensor, score: float) -> float:
    count = len(kl)
    return math.nan if count < 2 else score * float(kl.std()) / math.sqrt(count)


def _kl_from_marginal(log_p: Tensor) -> Tensor:
    """KL(p(y|x) || q) of each x, from log p(y|x) (n, C), (n,).

    Computed from logarithms: a class of negligible probability in all samples would give
    0 log(0 / 0) = NaN where p and q underflow to 0, but gives 0 while their logarithms are finite.
    """
    log_q = log_p.logsumexp(dim=0) - math.log(len(log_p))
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)
