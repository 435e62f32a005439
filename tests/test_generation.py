"""Sample sets: keyed by seed and index, labelled as asked, recorded as made."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import ModelFolder
from underone.checkpoint import DiffusionModel, load_checkpoint
from underone.data import read_samples
from underone.errors import UserError
from underone.generation import Draw, Setting, generate, sample_command

FAST = Setting("ddpm-small", 3)


def test_a_sample_depends_on_its_key_alone(small_model: DiffusionModel) -> None:
    whole = generate(small_model, FAST, Draw(23), precision="float32")
    for batch_size in (1, 7):
        again = generate(small_model, FAST, Draw(23), batch_size=batch_size, precision="float32")
        difference = (whole.images.int() - again.images.int()).abs()
        assert difference.max() <= 1
        assert (difference == 0).float().mean() > 0.999
    tail = generate(small_model, FAST, Draw(5, first=18), precision="float32")
    assert tail.labels is not None
    assert whole.labels is not None
    assert torch.equal(tail.labels, whole.labels[18:])
    assert (tail.images.int() - whole.images[18:].int()).abs().max() <= 1
    other = generate(small_model, FAST, Draw(5, seed=1, first=18), precision="float32")
    assert (tail.images.int() - other.images.int()).abs().float().mean() > 1


def test_the_command_of_a_draw_says_all_that_is_not_usual() -> None:
    assert sample_command("m", FAST, Draw(5)) == (
        "underone sample m --sampler ddpm-small --steps 3 --count 5 --out samples.png"
    )
    given = sample_command("m", FAST, Draw(5, seed=3, first=18, labels="0,3"), "float32")
    assert "--precision float32 --seed 3 --first 18 --labels 0,3 --count 5" in given


def test_label_policies() -> None:
    assert Draw(12).class_labels(10).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert Draw(3, first=8).class_labels(10).tolist() == [8, 9, 0]
    assert Draw(5, labels="3,3,5").class_labels(10).tolist() == [3, 3, 5, 3, 3]
    drawn = Draw(2000, labels="random").class_labels(10)
    counts = drawn.bincount(minlength=10)
    assert counts.min() > 140
    assert counts.max() < 260
    # As the noise, a random label belongs to its seed and index.
    assert torch.equal(Draw(7, labels="random", first=100).class_labels(10), drawn[100:107])
    assert not torch.equal(Draw(2000, labels="random", seed=1).class_labels(10), drawn)


@given(
    st.lists(st.integers(0, 5000), min_size=1, max_size=20).filter(any),
    st.integers(0, 2**62),
    st.integers(1, 3000),
)
def test_proportional_labels_are_so_over_any_range(
    images: list[int], first: int, count: int
) -> None:
    draw = Draw(count, first=first, labels="proportional")
    labels = draw.class_labels(len(images), images)
    found = labels.bincount(minlength=len(images))
    expected = count * torch.tensor(images, dtype=torch.float64) / sum(images)
    # The discrepancy of multiples of the golden ratio grows with the logarithm of their number.
    assert (found - expected).abs().max() <= 3 + math.log2(count)
    assert all(found[label] == 0 for label, each in enumerate(images) if each == 0)
    middle = count // 2
    tail = Draw(count - middle, first=first + middle, labels="proportional")
    assert torch.equal(tail.class_labels(len(images), images), labels[middle:])


def test_proportional_labels_are_those_of_the_training_data(small_model: DiffusionModel) -> None:
    draw = Draw(50, labels="proportional")
    with pytest.raises(UserError, match=r"does not say how often each class .*: choose labels"):
        generate(small_model, FAST, draw)
    images = (5, 0, 0, 0, 0, 20, 0, 0, 0, 0)
    data = small_model.config.data.model_copy(update={"class_images": images})
    config = small_model.config.model_copy(update={"data": data})
    labels = generate(replace(small_model, config=config), FAST, draw).labels
    assert labels is not None
    assert torch.equal(labels, draw.class_labels(10, images))
    assert labels.unique().tolist() == [0, 5]


def test_evaluations_are_those_declared(small_model: DiffusionModel) -> None:
    for weight, expected in ((-1.0, 3), (0.0, 3), (0.5, 6)):
        setting = Setting("ddim", 3, guidance=weight)
        protocol = generate(small_model, setting, Draw(10)).protocol
        assert protocol["evaluations"] == {"model": expected}
        assert setting.evaluations(small_model) == expected
        assert protocol["guidance_scale"] == 1 + weight


def test_what_was_drawn_is_recorded_and_survives_the_disk(
    small_model: DiffusionModel, tmp_path: Path
) -> None:
    samples = generate(small_model, FAST, Draw(4, seed=3))
    samples.save_npz(tmp_path / "samples.npz")
    again = read_samples(tmp_path / "samples.npz")
    assert torch.equal(again.images, samples.images)
    assert again.protocol == samples.protocol
    assert again.protocol["model"]["sha256"] == small_model.sha256
    assert (again.protocol["sampler"], again.protocol["steps"]) == ("ddpm-small", 3)
    assert again.seeds is not None
    assert again.seeds.tolist() == [[3, 0], [3, 1], [3, 2], [3, 3]]


def test_a_model_without_label_dropout_cannot_be_guided(model_folder: ModelFolder) -> None:
    model = load_checkpoint(model_folder("undropped", label_dropout=0.0))
    assert isinstance(model, DiffusionModel)
    generate(model, FAST, Draw(2))
    with pytest.raises(UserError, match="without label dropout"):
        generate(model, Setting("ddim", 3, guidance=1.0), Draw(2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Setting("dimm"), "did you mean 'ddim'"),
        (lambda: Setting(grid="trailin"), "did you mean 'trailing'"),
        (lambda: Draw(0), "at least 1"),
        (lambda: Draw(1, seed=-1), "seeds and indices"),
        (lambda: Draw(3, labels="10").class_labels(10), r"label 10 .* 0\.\.9"),
        (lambda: Draw(3, labels="0,-1").class_labels(10), "label -1"),
        (lambda: Draw(3, labels="balancd").class_labels(10), "balanced, random"),
    ],
)
def test_mistakes_are_told(make: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_step_counts_are_told(small_model: DiffusionModel, steps: int) -> None:
    with pytest.raises(UserError, match=r"1\.\.1000"):
        generate(small_model, Setting("ddim", steps), Draw(1))
