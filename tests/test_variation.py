"""A path that begins on its way, at an image noised so far."""

import pytest
import torch

from helpers import each_grid, each_schedule, normal
from underone.diffusion import Grid, LinearBeta, Node, Schedule, Trailing, nodes, noised, path_from
from underone.errors import UserError


@each_schedule
@each_grid
def test_the_path_begins_at_the_node_nearest_to_the_strength(
    grid: Grid, schedule: Schedule
) -> None:
    path = nodes(grid, schedule, 20)
    for strength in (1e-6, 0.03, 0.5, 0.77, 1.0):
        rest = path_from(path, strength)
        assert list(rest) == path[len(path) - len(rest) :]
        assert len(rest) >= 2
        nearest = min(abs(node.t.item() - strength) for node in path[:-1])
        assert abs(rest[0].t.item() - strength) == nearest


def test_the_whole_path_and_shares_of_it() -> None:
    path = nodes(Trailing(), LinearBeta(), 20)
    assert path_from(path, 1.0) == path
    assert len(path_from(path, 0.5)) == 11
    assert len(path_from(path, 0.001)) == 2
    assert path_from(path, 0.025)[0].t == 0.05  # both 0.05 and the clean end are as near


@pytest.mark.parametrize("strength", [0.0, -0.1, 1.01, float("nan"), float("inf")])
def test_a_strength_out_of_range_is_told(strength: float) -> None:
    with pytest.raises(UserError, match=r"must lie in \(0, 1\]"):
        path_from(nodes(Trailing(), LinearBeta(), 20), strength)


def test_noised_images_have_the_mean_and_variance_of_their_node() -> None:
    x0 = torch.full((4, 50_000), 0.7, dtype=torch.float64)
    path = nodes(Trailing(), LinearBeta(), 4)
    every = Node(*(torch.stack(values) for values in zip(*map(_values, path[:-1]), strict=True)))
    x = noised(x0, every, normal(4, 50_000))
    assert torch.allclose(x.mean(1), every.alpha * 0.7, atol=0.02)
    assert torch.allclose(x.std(1), every.sigma, atol=0.02)
    assert torch.equal(noised(x0, path[-1], normal(4, 50_000)), x0)


def _values(node: Node) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return node.t, node.alpha, node.sigma
