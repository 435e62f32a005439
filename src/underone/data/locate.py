"""Where the files of a named data set are: the given root, the cache, the system, the network."""

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NoReturn

import pooch

from underone.data import cifar
from underone.data.download import RemoteFile, download, downloaded
from underone.data.npm import NpmPackage, npm_pack
from underone.errors import UserError
from underone.files import sha256_of_file, write_atomically


def _fashion_mnist(name: str, size: int, sha256: str) -> RemoteFile:
    mirrors = (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    )
    return RemoteFile(name, size, sha256, tuple(mirror + name for mirror in mirrors))


FASHION_MNIST = {
    "train": (
        _fashion_mnist(
            "train-images-idx3-ubyte.gz",
            26_421_880,
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        ),
        _fashion_mnist(
            "train-labels-idx1-ubyte.gz",
            29_515,
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        ),
    ),
    "test": (
        _fashion_mnist(
            "t10k-images-idx3-ubyte.gz",
            4_422_102,
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        ),
        _fashion_mnist(
            "t10k-labels-idx1-ubyte.gz",
            5_148,
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    ),
}
FASHION_MNIST_OF_THE_SYSTEM = Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST_BY_HAND = (
    "or get it by hand: apt install dataset-fashion-mnist, "
    "or put the four .gz files in a folder and name it with --root"
)

CIFAR10 = RemoteFile(
    "cifar-10-binary.tar.gz",
    170_052_171,
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    (
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "https://cave.cs.toronto.edu/kriz/cifar-10-binary.tar.gz",
    ),
)
CIFAR10_BY_HAND = (
    "or get it by hand: put cifar-10-binary.tar.gz in a folder and name the folder with --root"
)

NOTO_EMOJI = NpmPackage(
    "emoji-datasource-google",
    "16.0.0",
    "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
)
NOTO_EMOJI_BY_HAND = (
    f"install npm (it comes with Node.js), or get {NOTO_EMOJI.name} by hand and run underone data "
    "noto-emoji --from FILE"
)

# The data sets that are a single file, of which `keep` takes a copy.
_ONE_FILE: Mapping[str, RemoteFile | NpmPackage] = {"cifar10": CIFAR10, "noto-emoji": NOTO_EMOJI}


def cache_folder() -> Path:
    """Where downloads are kept: `UNDERONE_CACHE` if set, else the user's cache folder."""
    return Path(os.environ.get("UNDERONE_CACHE") or pooch.os_cache("underone")).expanduser()


def locate_fashion_mnist(split: str, root: Path | None = None) -> tuple[Path, Path]:
    """The IDX files, gzipped or plain, of a split's images and labels.

    Given a `root`, they must be there (or in its `FashionMNIST/raw`), else it is a `UserError`.
    """
    images, labels = (_locate_idx(file, root) for file in FASHION_MNIST[split])
    return images, labels


def locate_cifar10(root: Path | None = None) -> Path:
    """The binary version's archive, or the folder it extracts to.

    Given a `root`, it must be there or be the root itself, else it is a `UserError`.
    """
    if root is None:
        return download(CIFAR10, cache_folder() / "cifar10", CIFAR10_BY_HAND)
    if root.is_file() or (root / cifar.CLASS_NAMES_FILE).is_file():
        return root
    candidates = (root / CIFAR10.name, root / cifar.FOLDER)
    return _first_existing(candidates) or _fail(root, f"{CIFAR10.name} or {cifar.FOLDER}/")


def locate_noto_emoji(root: Path | None = None) -> Path:
    """The tarball of the npm package with the pictures.

    Given a `root`, it must be there or be the root itself, else it is a `UserError`.
    """
    if root is None:
        return npm_pack(NOTO_EMOJI, cache_folder() / "noto-emoji", NOTO_EMOJI_BY_HAND)
    if root.is_file():
        return root
    return _first_existing([root / NOTO_EMOJI.name]) or _fail(root, NOTO_EMOJI.name)


def keep(name: str, file: Path) -> None:
    """Copy a data set's file to the cache, where commands find it, if its checksum is right."""
    known = _ONE_FILE.get(name)
    if known is None:
        raise UserError(f"--from goes with {' and '.join(_ONE_FILE)} only, which are a single file")
    if not file.is_file():
        raise UserError(f"no such file: {file}")
    found = sha256_of_file(file)
    if found != known.sha256:
        raise UserError(
            f"{file} has the wrong checksum for {known.name} (SHA-256 {found[:16]}..., expected "
            f"{known.sha256[:16]}...): get it again"
        )
    write_atomically(
        cache_folder() / name / known.name, lambda temporary: shutil.copyfile(file, temporary)
    )


def _locate_idx(file: RemoteFile, root: Path | None) -> Path:
    names = (file.name, file.name.removesuffix(".gz"))
    if root is not None:
        folders = (root, root / "FashionMNIST" / "raw")
        candidates = (folder / name for folder in folders for name in names)
        return _first_existing(candidates) or _fail(root, f"{names[0]} or {names[1]}")
    cache = cache_folder() / "fashion-mnist"
    installed = (FASHION_MNIST_OF_THE_SYSTEM / name for name in names)
    present = downloaded(file, cache) or _first_existing(installed)
    return present or download(file, cache, FASHION_MNIST_BY_HAND)


def _first_existing(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if path.exists()), None)


def _fail(root: Path, expected: str) -> NoReturn:
    raise UserError(f"{root} holds no {expected}: name the folder that does, or leave --root out")
