"""The Frechet distance of two sets of features (N, D) and (M, D), as other packages compute it."""

from collections.abc import Callable

import numpy as np
from torch import Tensor, nn

import peers

Peer = Callable[[Tensor, Tensor], float]


class Identity(nn.Module):
    """A feature extractor for torchmetrics that is given features already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def torch_fidelity(x: Tensor, y: Tensor) -> float:
    fid = peers.import_torch_fidelity().metric_fid
    statistics = [fid.fid_features_to_statistics(features) for features in (x, y)]
    result = fid.fid_statistics_to_metric(*statistics, False)
    return float(result["frechet_inception_distance"])


def torchmetrics(x: Tensor, y: Tensor) -> float:
    package = peers.import_torchmetrics()
    metric = package.image.fid.FrechetInceptionDistance(feature=Identity(x.shape[1]))
    metric.update(y, real=True)
    metric.update(x, real=False)
    return float(metric.compute())


def clean_fid(x: Tensor, y: Tensor) -> float:
    return float(peers.import_cleanfid().fid.fid_from_feats(x.numpy(), y.numpy()))


def pytorch_fid(x: Tensor, y: Tensor) -> float:
    fid = peers.import_pytorch_fid().fid_score
    moments = (
        moment
        for features in (x.numpy(), y.numpy())
        for moment in (features.mean(axis=0), np.cov(features, rowvar=False))
    )
    return float(fid.calculate_frechet_distance(*moments))
