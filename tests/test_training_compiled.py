"""A network that is compiled for its training."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from helpers import SmoothNetwork
from underone.data import load_dataset
from underone.training.begin import resume, start
from underone.training.compilation import Compiled
from underone.training.recipe import load_recipe

SLICE = Path(__file__).parent / "data" / "fashion-mnist"
CPU = torch.device("cpu")
STEPS = 6


def batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 1, 6, 6, generator=generator)
    return x, torch.rand(4, generator=generator) * 1000, torch.arange(4) % 3


@pytest.mark.slow
def test_its_outputs_and_gradients_are_those_of_the_plain_network() -> None:
    network = SmoothNetwork()
    output = network(*batch())
    output.square().sum().backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    network.zero_grad()
    compiled = Compiled(network)
    assert list(compiled.parameters()) == []  # they are the plain one's, which is trained
    found = compiled(*batch())
    torch.testing.assert_close(found, output, atol=1e-5, rtol=1e-5)
    found.square().sum().backward()
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_where_nothing_compiles_it_says_so() -> None:
    program = """
from helpers import SmoothNetwork
from test_training_compiled import batch
from underone.errors import UserError
from underone.training.compilation import Compiled

try:
    Compiled(SmoothNetwork())(*batch())
except UserError as error:
    print(error)
"""
    faults = {"CXX": "absent-compiler", "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent,
        env=os.environ | faults,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("the network cannot be compiled here (")
    assert "--set compile=false" in done.stdout
    assert done.stdout.count("\n") == 1


@pytest.mark.endurance
def test_a_training_resumes_bitwise_with_it(tmp_path: Path) -> None:
    images = replace(load_dataset("fashion-mnist", "test", SLICE), split="train")
    recipe = load_recipe("tiny", ["batch_size=16", "log_every=1", "compile=true"])
    whole = start(tmp_path / "whole", "tiny", recipe, images, CPU, steps=STEPS)
    parted = start(tmp_path / "parted", "tiny", recipe, images, CPU, steps=STEPS)
    for now in parted.advance(lambda: False):
        if now.update.step == STEPS // 2:
            break
    parted.save()
    for run in (whole, resume(tmp_path / "parted", recipe, images, CPU)):
        list(run.advance(lambda: False))
        run.save()
    first, second = (load_file(tmp_path / name / "raw.safetensors") for name in ("whole", "parted"))
    assert all(torch.equal(first[name], second[name]) for name in first)
