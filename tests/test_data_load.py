import gzip
import shutil
import struct
from pathlib import Path

import pytest
import torch

from underone.data import balanced_indices, cache_folder, load_dataset
from underone.data.locate import FASHION_MNIST_OF_THE_SYSTEM, locate_cifar10, locate_fashion_mnist
from underone.errors import UserError
from underone.files import sha256_of_file

SLICE = Path(__file__).parent / "data" / "fashion-mnist"
installed = pytest.mark.skipif(
    not FASHION_MNIST_OF_THE_SYSTEM.is_dir(), reason="needs Debian's dataset-fashion-mnist"
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNDERONE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_cache_is_where_the_environment_says(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache_folder() == cache
    monkeypatch.delenv("UNDERONE_CACHE")
    assert cache_folder().name == "underone"


def test_the_slice_loads_by_root() -> None:
    dataset = load_dataset("fashion-mnist", "test", SLICE)
    assert (dataset.name, dataset.split, len(dataset)) == ("fashion-mnist", "test", 1000)
    subset = balanced_indices(dataset.labels, dataset.num_classes, 100, seed=0)
    assert dataset.labels[subset].bincount().tolist() == [10] * 10


def test_a_root_may_hold_plain_files_or_torchvisions_layout(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for path in SLICE.iterdir():
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    expected = load_dataset("fashion-mnist", "test", SLICE)
    assert load_dataset("fashion-mnist", "test", tmp_path).sha256 == expected.sha256


def test_a_root_without_the_files_is_refused_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no train-images-idx3-ubyte\.gz or train-images"):
        load_dataset("fashion-mnist", "train", SLICE)
    with pytest.raises(UserError, match=r"holds no cifar-10-binary\.tar\.gz or cifar-10-batches"):
        load_dataset("cifar10", "train", tmp_path)


def test_cifar10_is_found_in_every_form(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    (folder / "batches.meta.txt").write_text("")
    assert locate_cifar10(tmp_path) == folder
    assert locate_cifar10(folder) == folder
    archive = tmp_path / "cifar-10-binary.tar.gz"
    archive.write_bytes(b"")
    assert locate_cifar10(tmp_path) == archive
    assert locate_cifar10(archive) == archive


@installed
def test_the_systems_files_are_found() -> None:
    dataset = load_dataset("fashion-mnist", "test")
    assert dataset.labels.bincount().tolist() == [1000] * 10
    slice_ = load_dataset("fashion-mnist", "test", SLICE)
    assert torch.equal(dataset.images[:1000], slice_.images)
    assert torch.equal(dataset.labels[:1000], slice_.labels)


@installed
def test_the_cache_comes_before_the_system_if_it_is_whole(cache: Path) -> None:
    official = cache / "fashion-mnist" / "t10k-labels-idx1-ubyte.gz"
    official.parent.mkdir(parents=True)
    official.write_bytes(official_labels())
    assert sha256_of_file(official).startswith("67da17c76eaffca5")
    images, labels = locate_fashion_mnist("test")
    assert labels == official
    assert images.parent == FASHION_MNIST_OF_THE_SYSTEM
    shutil.copy(SLICE / official.name, official)
    assert locate_fashion_mnist("test")[1].parent == FASHION_MNIST_OF_THE_SYSTEM


def official_labels() -> bytes:
    """Debian's file with the name and time in its header that the official file has."""
    name = "t10k-labels-idx1-ubyte"
    header = struct.pack("<4BIBB", 0x1F, 0x8B, 8, 8, 1_504_176_627, 0, 3) + name.encode() + b"\0"
    return header + (FASHION_MNIST_OF_THE_SYSTEM / f"{name}.gz").read_bytes()[10:]


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UserError, match="unknown data set 'cifar-10': did you mean 'cifar10'"):
        load_dataset("cifar-10")
    with pytest.raises(UserError, match="unknown split 'tset': did you mean 'test'"):
        load_dataset("fashion-mnist", "tset", SLICE)
    with pytest.raises(UserError, match="no such folder of images: data/birds"):
        load_dataset("data/birds")
    with pytest.raises(UserError, match="root goes with the named data sets only"):
        load_dataset("birds", root=SLICE)
