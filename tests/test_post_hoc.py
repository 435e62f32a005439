"""Averages of other widths made after training: the fit itself, and those of a real run."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from conftest import Run as Command
from helpers import float64
from underone.checkpoint import VAEModel, load_checkpoint, load_tensors
from underone.data import load_dataset
from underone.errors import UserError
from underone.training.average import profile_exponent
from underone.training.begin import resume, start
from underone.training.post_hoc import (
    FOLDER,
    Snapshot,
    averaged,
    fitted,
    overlap,
    save_snapshot,
    snapshots_in,
)
from underone.training.recipe import Recipe, load_recipe

pytestmark = pytest.mark.usefixtures("no_pictures")
SLICE = Path(__file__).parent / "data" / "fashion-mnist"
CPU = torch.device("cpu")


def snapshot(step: int, width: float) -> Snapshot:
    return Snapshot(step, width, Path("nowhere"))


def kept(count: int, horizon: int) -> list[Snapshot]:
    steps = [round(horizon * (i + 1) / count) for i in range(count)]
    return [snapshot(step, width) for step in steps for width in (0.05, 0.1)]


@pytest.mark.parametrize(("step", "exponent"), [(3.0, 6.94), (5.0, 16.97), (8.0, 2.0)])
def test_the_overlap_of_two_profiles_is_their_integral(step: float, exponent: float) -> None:
    other, others = 5.0, 6.94
    t = torch.linspace(0, min(step, other), 200_001, dtype=torch.float64)
    profiles = [(a + 1) * t**a / s ** (a + 1) for s, a in ((step, exponent), (other, others))]
    integral = torch.trapezoid(profiles[0] * profiles[1], t)
    found = overlap(*(float64(value) for value in (step, exponent, other, others)))
    torch.testing.assert_close(found, integral, rtol=1e-6, atol=0)


def test_a_width_that_was_kept_is_its_own_snapshot() -> None:
    fit = fitted(kept(8, 4000), 4000, 0.1)
    assert fit.misfit < 1e-6
    assert fit.weights[-1] == pytest.approx(1, abs=1e-6)
    assert max(map(abs, fit.weights[:-1])) < 1e-6


def test_widths_between_fit_nearly_exactly_and_better_with_more_snapshots() -> None:
    for width in (0.06, 0.075, 0.09):
        few, many = (fitted(kept(count, 4000), 4000, width).misfit for count in (4, 16))
        assert many < few < 0.04
        assert many < 0.02
    assert fitted(kept(8, 4000), 4000, 0.2).misfit > fitted(kept(8, 4000), 4000, 0.12).misfit


def test_a_mixed_average_is_the_one_that_would_have_been_kept() -> None:
    """For a random walk, at every width between those that were kept."""
    horizon, walk = 2000, torch.randn(2000, dtype=torch.float64).cumsum(0)

    def average(width: float, until: int) -> float:
        value, exponent = 0.0, profile_exponent(width)
        for n in range(1, until + 1):
            beta = (1 - 1 / n) ** (exponent + 1)
            value = beta * value + (1 - beta) * walk[n - 1].item()
        return value

    snapshots = kept(16, horizon)
    values = float64([average(each.width, each.step) for each in snapshots])
    for width in (0.06, 0.08):
        fit = fitted(snapshots, horizon, width)
        mixed = (float64(fit.weights) * values).sum().item()
        assert mixed == pytest.approx(average(width, horizon), abs=0.02 * walk.std().item())


def recipe(*changes: str) -> Recipe:
    return load_recipe("tiny", ["batch_size=8", "snapshots=4", *changes])


@pytest.mark.slow
def test_a_run_keeps_its_snapshots_through_a_stop_and_they_make_its_average(
    tmp_path: Path, run: Command
) -> None:
    data = replace(load_dataset("fashion-mnist", "test", SLICE), split="train")
    whole = start(tmp_path / "whole", "tiny", recipe(), data, CPU, steps=12)
    list(whole.advance(lambda: False))
    whole.save()
    found = snapshots_in(tmp_path / "whole")
    assert [(each.step, each.width) for each in found] == [
        (step, width) for step in (3, 6, 9, 12) for width in (0.05, 0.1)
    ]

    stopped = start(tmp_path / "stopped", "tiny", recipe(), data, CPU, steps=12)
    list(stopped.advance(lambda: stopped.state.step >= 7))
    stopped.save()
    gone_on = resume(tmp_path / "stopped", recipe(), data, CPU)
    list(gone_on.advance(lambda: False))
    gone_on.save()
    for one, other in zip(found, snapshots_in(tmp_path / "stopped"), strict=True):
        mine, theirs = load_tensors(one.path), load_tensors(other.path)
        assert all(torch.equal(mine[name], theirs[name]) for name in mine | theirs)

    out = tmp_path / "narrow"
    status, _, told = run("average", tmp_path / "whole", "--width", 0.1, "--out", out)
    assert status == 0
    assert "off by 0.0%" in told
    networks = (load_checkpoint(folder).network for folder in (out, tmp_path / "whole"))
    for a, b in zip(*(network.parameters() for network in networks), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-3, atol=1e-4)  # they are kept in float16
    status, _, told = run("average", tmp_path / "whole", "--width", 0.1, "--out", out)
    assert (status, "choose another name" in told) == (2, True)


def test_averages_of_a_vae_are_made_too(tmp_path: Path, run: Command) -> None:
    small = [
        "network.width=8",
        "network.latent=4",
        "network.heads=2",
        "batch_size=8",
        "snapshots=2",
    ]
    data = replace(load_dataset("fashion-mnist", "test", SLICE), split="train")
    vae = start(
        tmp_path / "vae", "vae", load_recipe("fashion-mnist-cvae", small), data, CPU, steps=2
    )
    list(vae.advance(lambda: False))
    vae.save()
    status, _, told = run("average", tmp_path / "vae", "--width", 0.1, "--out", tmp_path / "out")
    assert status == 0, told
    assert isinstance(load_checkpoint(tmp_path / "out"), VAEModel)


def test_narrower_averages_are_of_later_weights(tmp_path: Path) -> None:
    """For weights that grow with time, the narrower average is larger."""
    for step in (25, 50, 75, 100):
        for width in (0.05, 0.1):
            mean = step * (profile_exponent(width) + 1) / (profile_exponent(width) + 2)
            save_snapshot(tmp_path, step, width, {"w": torch.tensor([mean])})
    found = [averaged(tmp_path, width).tensors["w"].item() for width in (0.05, 0.06, 0.08, 0.1)]
    assert all(a > b for a, b in pairwise(found))


def test_what_cannot_be_averaged_is_refused(tmp_path: Path, run: Command) -> None:
    with pytest.raises(UserError, match="snapshots=8"):
        snapshots_in(tmp_path)
    save_snapshot(tmp_path, 10, 0.1, {"w": torch.ones(2)})
    with pytest.raises(UserError, match="width of an average"):
        averaged(tmp_path, 0.3)
    (path,) = (tmp_path / FOLDER).iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        averaged(tmp_path, 0.1)
    arguments = ("--width", 0.1, "--out", tmp_path / "out")
    status, _, told = run("average", "fashion-mnist-classifier", *arguments)
    assert (status, told.count("\n")) == (2, 1)
