"""Muon against torch's own, and which weights it moves."""

import pytest
import torch
from torch import nn

from helpers import normal, small_unet
from underone.training.muon import Muon, orthogonalised
from underone.training.optimizers import hidden_weights, optimizers_for
from underone.training.recipe import Optimisation


@pytest.mark.parametrize("shape", [(16, 16), (8, 40), (40, 8)])
def test_singular_values_are_brought_near_to_1_and_the_directions_kept(
    shape: tuple[int, int],
) -> None:
    matrix = normal(*shape)
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    assert values.max() / values.min() > 2
    found = u.T @ orthogonalised(matrix) @ v.T
    assert ((found.diagonal() > 0.6) & (found.diagonal() < 1.25)).all()
    assert (found - found.diagonal().diag()).abs().max() < 1e-6
    # The length of what is given does not matter, and nothing stays nothing.
    torch.testing.assert_close(orthogonalised(1000 * matrix), orthogonalised(matrix))
    assert (orthogonalised(torch.zeros(shape)) == 0).all()


def test_it_takes_the_steps_of_torchs_own() -> None:
    theirs = getattr(torch.optim, "Muon", None)
    if theirs is None:
        pytest.skip("this torch has no Muon")
    mine, other = (nn.Parameter(normal(12, 30).float()) for _ in range(2))
    ours = Muon([mine], lr=0.05, momentum=0.9)
    peer = theirs([other], lr=0.05, momentum=0.9, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    began = mine.detach().clone()
    for number in range(5):
        gradient = normal(12, 30, seed=number + 1).float()
        mine.grad, other.grad = gradient.clone(), gradient.clone()
        ours.step()
        peer.step()
    moved = (mine - began).norm()
    assert moved > 0.5
    # Theirs makes matrices orthogonal in bfloat16.
    assert (mine - other).norm() < 0.01 * moved


def test_a_kernel_moves_as_the_matrix_it_is() -> None:
    kernel = nn.Parameter(normal(6, 4, 3, 3).float())
    matrix = nn.Parameter(kernel.detach().flatten(1).clone())
    gradient = normal(6, 4, 3, 3, seed=1).float()
    kernel.grad, matrix.grad = gradient, gradient.flatten(1)
    for parameter in (kernel, matrix):
        Muon([parameter], lr=0.1).step()
    torch.testing.assert_close(kernel.flatten(1), matrix)


def test_every_parameter_has_one_optimiser_and_the_ends_have_adamw() -> None:
    network = small_unet()
    muon, adamw = optimizers_for(network, Optimisation(optimiser="muon"))
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    by_muon, by_adamw = (
        [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
        for optimizer in (muon, adamw)
    )
    assert sorted(by_muon + by_adamw) == sorted(names.values())
    assert {"stem.weight", "out.weight", "label.weight"} <= set(by_adamw)
    assert "middle.0.block.conv.weight" in by_muon
    assert all(weight.ndim >= 2 for weight in hidden_weights(network))
    (alone,) = optimizers_for(network, Optimisation())
    assert sum(len(group["params"]) for group in alone.param_groups) == len(names)
