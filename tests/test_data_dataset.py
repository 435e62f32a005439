import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from underone.data import Dataset, balanced_indices
from underone.errors import UserError


def make_dataset(labels: list[int], classes: int = 3) -> Dataset:
    images = torch.arange(len(labels), dtype=torch.uint8).reshape(-1, 1, 1, 1).repeat(1, 1, 2, 2)
    names = tuple(f"class {label}" for label in range(classes))
    return Dataset("toy", "train", images, torch.tensor(labels, dtype=torch.int64), names)


UNEVEN = make_dataset([2, 2, 2, 2, 2, 2, 0, 0, 0, 0, 1, 1, 1, 1, 1])


def test_mirror_images_follow_the_images_with_their_labels() -> None:
    images = torch.arange(2 * 3 * 2 * 4, dtype=torch.uint8).reshape(2, 3, 2, 4)
    both = Dataset("some", "train", images, torch.tensor([1, 0]), ("a", "b")).with_mirrored()
    assert both.labels.tolist() == [1, 0, 1, 0]
    assert torch.equal(both.images[:2], images)
    assert both.images[3, 2, 1].tolist() == images[1, 2, 1].tolist()[::-1]


def test_length_and_number_of_classes() -> None:
    assert len(UNEVEN) == 15
    assert UNEVEN.num_classes == 3


def test_the_hash_sees_every_pixel_label_and_shape() -> None:
    images, labels = UNEVEN.images, UNEVEN.labels
    other_pixel = images.clone()
    other_pixel[7, 0, 1, 1] += 1
    other_label = labels.clone()
    other_label[7] = 1
    variants = [
        UNEVEN,
        dataclasses.replace(UNEVEN, images=other_pixel),
        dataclasses.replace(UNEVEN, labels=other_label),
        dataclasses.replace(UNEVEN, images=images.reshape(15, 1, 1, 4)),
    ]
    assert len({variant.sha256 for variant in variants}) == len(variants)


def test_the_hash_is_of_content_not_of_memory_layout() -> None:
    turned = UNEVEN.images.transpose(2, 3).contiguous().transpose(2, 3)
    assert not turned.is_contiguous()
    assert dataclasses.replace(UNEVEN, images=turned).sha256 == UNEVEN.sha256


def test_a_dataset_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="one an image"):
        dataclasses.replace(UNEVEN, labels=UNEVEN.labels[:-1])
    with pytest.raises(ValueError, match="int64"):
        dataclasses.replace(UNEVEN, labels=UNEVEN.labels.to(torch.int32))
    with pytest.raises(ValueError, match=r"0\.\.2"):
        make_dataset([0, 1, 3])
    with pytest.raises(ValueError, match=r"0\.\.2"):
        make_dataset([0, 1, -1])
    with pytest.raises(ValueError, match="uint8"):
        dataclasses.replace(UNEVEN, images=UNEVEN.images.float())
    with pytest.raises(UserError, match="did you mean 'train'"):
        dataclasses.replace(UNEVEN, split="trian")


@settings(deadline=None)
@given(count=st.integers(1, 12), seed=st.integers(0, 2**63))
def test_a_balanced_subset_is_distinct_and_interleaved(count: int, seed: int) -> None:
    subset = balanced_indices(UNEVEN.labels, 3, count, seed)
    assert subset.dtype == torch.int64
    assert len(set(subset.tolist())) == count
    assert UNEVEN.labels[subset].tolist() == [index % 3 for index in range(count)]


def test_a_smaller_balanced_subset_begins_a_larger_one() -> None:
    assert balanced_indices(UNEVEN.labels, 3, 12, seed=5)[:7].tolist() == (
        balanced_indices(UNEVEN.labels, 3, 7, seed=5).tolist()
    )


def test_the_seed_decides_a_balanced_subset_and_reaches_every_member() -> None:
    drawn = [balanced_indices(UNEVEN.labels, 3, 3, seed).tolist() for seed in range(100)]
    assert drawn[0] == balanced_indices(UNEVEN.labels, 3, 3, seed=0).tolist()
    assert {index for subset in drawn for index in subset} == set(range(15))


def test_a_class_with_too_few_images_is_named() -> None:
    # The first class, 0, has four images: 12 is the most it can carry, and 13 asks it for five.
    assert len(balanced_indices(UNEVEN.labels, 3, 12, seed=0)) == 12
    with pytest.raises(UserError, match=r"class 0 has 4 images, .* 13 needs 5"):
        balanced_indices(UNEVEN.labels, 3, 13, seed=0)
    with pytest.raises(UserError, match="at least one"):
        balanced_indices(UNEVEN.labels, 3, 0, seed=0)
