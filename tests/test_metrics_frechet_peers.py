"""FID beside the packages that others measure it with: equal, or right where they are wrong."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

import extended_precision as precise
from peer_frechet import Peer, clean_fid, pytorch_fid, torch_fidelity, torchmetrics
from underone.metrics import Gaussian, Moments, frechet_distance
from underone.metrics.frechet import root_error


def ours(x: Tensor, y: Tensor) -> float:
    return frechet_distance(Gaussian.of(Moments.of(x)), Gaussian.of(Moments.of(y)))


def ours_of_features(x: Tensor, y: Tensor) -> float:
    return frechet_distance(Gaussian.of_features(x), Gaussian.of_features(y))


def sqrtm(x: Tensor, y: Tensor) -> float:
    a, b = x.T.cov().numpy(), y.T.cov().numpy()
    apart = (x.mean(0) - y.mean(0)).square().sum().item()
    return float(apart + np.trace(a) + np.trace(b) - 2 * np.trace(scipy.linalg.sqrtm(a @ b)).real)


PEERS = [torch_fidelity, torchmetrics, clean_fid, pytorch_fid, sqrtm]
every_peer = pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.__name__)


def features(count: int, size: int, decades: float, seed: int, offset: float = 1) -> Tensor:
    """Correlated features whose covariance's eigenvalues fall over that many decades."""
    generator = torch.Generator().manual_seed(seed)
    spectrum = torch.logspace(0, -decades, size, dtype=torch.float64)
    values = torch.randn(count, size, generator=generator, dtype=torch.float64) * spectrum.sqrt()
    # One rotation for all seeds: the two sides' spectra lie along the same directions.
    shared = torch.Generator().manual_seed(1234)
    rotation = torch.linalg.qr(torch.randn(size, size, generator=shared, dtype=torch.float64))[0]
    means = offset * torch.rand(size, generator=generator, dtype=torch.float64)
    return values @ rotation + means


def reference_distance(x: Tensor, y: Tensor) -> float:
    """FID of samples, more than dimensions, in extended precision."""
    moments = (moment for features in (x, y) for moment in precise.moments(features.numpy()))
    return precise.frechet_distance(*moments)


@every_peer
@pytest.mark.parametrize(
    ("counts", "size", "decades"),
    [((500, 400), 2, 1), ((600, 700), 33, 0), ((300, 400), 64, 4), ((600, 500), 200, 4)],
)
def test_it_equals_the_peers(
    peer: Peer, counts: tuple[int, int], size: int, decades: float
) -> None:
    x, y = (features(count, size, decades, seed) for seed, count in enumerate(counts))
    assert ours(x, y) == pytest.approx(peer(x, y), rel=1e-10)
    assert ours_of_features(x, y) == ours(x, y)


@every_peer
def test_with_fewer_features_than_dimensions_it_equals_the_peers_as_far_as_they_go(
    peer: Peer,
) -> None:
    x, y = features(40, 96, 4, 0), features(50, 96, 4, 1)
    traces = float(x.var(0).sum() + y.var(0).sum())
    assert ours(x, y) == pytest.approx(peer(x, y), abs=1e-6 * traces)
    assert ours_of_features(x, y) == pytest.approx(ours(x, y), rel=1e-9)


@pytest.mark.parametrize("decades", [0, 2, 4, 6, 8])
def test_it_is_at_least_as_accurate_as_any_peer(decades: float) -> None:
    x, y = features(400, 48, decades, 0), features(300, 48, decades, 1)
    truth = reference_distance(x, y)
    traces = float(x.var(0).sum() + y.var(0).sum())
    error = abs(ours(x, y) - truth)
    assert error < 1e-14 * traces
    # Differences of rounding in the last place are no merit: 2e-15 is where they begin.
    assert error <= min(abs(peer(x, y) - truth) for peer in PEERS) + 2e-15 * traces


def test_of_singular_covariances_the_peers_lose_half_the_digits() -> None:
    # The same 100 samples on both sides, in another order: the distance is 0.
    x = features(60, 128, 8, 0)
    traces = 2 * float(x.var(0).sum())
    assert ours_of_features(x, x.flip(0)) < 1e-14 * traces
    assert ours(x, x.flip(0)) < 1e-10 * traces
    assert abs(torch_fidelity(x, x.flip(0))) > 1e-10 * traces


@pytest.mark.parametrize("decades", [0, 3, 6])
@pytest.mark.parametrize("size", [32, 150])
def test_the_bound_of_the_quick_way_holds(size: int, decades: float) -> None:
    x = features(4 * size, size, decades, 0).T.cov()
    lower = torch.linalg.cholesky(features(5 * size, size, decades, 1).T.cov())
    values = torch.linalg.eigvalsh(lower.T @ x @ lower)
    exact = torch.linalg.svdvals(torch.linalg.cholesky(x).T @ lower).sum()
    error = float((values.sqrt().sum() - exact).abs())
    assert error <= root_error(values) + 1e-15 * float(exact)
    # A bound that is always fulfilled would prove nothing: it grows with the condition alone.
    assert root_error(values) < 1e-14 * 10 ** (1.5 * decades) * float(exact)


@pytest.mark.parametrize(
    ("size", "decades", "quick"), [(32, 2, True), (201, 4, True), (32, 9, False)]
)
def test_where_the_quick_way_proves_too_little_singular_values_are_used(
    size: int, decades: float, quick: bool
) -> None:
    x, y = (features(600, size, decades, seed, offset=0) for seed in (0, 1))
    near, far = Gaussian.of(Moments.of(x)), Gaussian.of(Moments.of(y))
    assert frechet_distance(near, far) == pytest.approx(reference_distance(x, y), rel=1e-12)
    # Singular values need both factors, and only they do.
    assert ("factor" not in vars(near)) == quick


# The peers' faults, each as it is today: were one cured, its test would say so.


def test_a_large_offset_destroys_torchmetrics_covariance() -> None:
    x, y = features(200, 8, 4, 0), features(200, 8, 4, 1)
    assert ours(x + 1e8, y + 1e8) == pytest.approx(ours(x, y), abs=1e-6)
    assert abs(torchmetrics(x + 1e8, y + 1e8) - ours(x, y)) > 1


def test_a_float32_mean_over_many_samples_drifts_in_torch_fidelity() -> None:
    constant = torch.full((500_000, 2), 0.1)
    origin = torch.zeros(2, 2)
    truth = 2 * 0.1**2
    assert ours(constant, origin) == pytest.approx(truth, rel=1e-6)
    assert torch_fidelity(constant, origin) > 1.005 * truth


@pytest.mark.parametrize(("peer", "error"), [(torch_fidelity, AssertionError), (clean_fid, None)])
def test_one_dimension_works_here_alone(peer: Peer, error: type[Exception] | None) -> None:
    x, y = torch.tensor([[0.0], [1.0]]).double(), torch.tensor([[0.0], [3.0]]).double()
    assert ours(x, y) == pytest.approx(3, rel=1e-15)
    with pytest.raises(error or Exception):
        peer(x, y)
