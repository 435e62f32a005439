"""Noto emoji: the format, the split that keeps near duplicates together, npm, and every mistake."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from emoji import IMAGES, SLICE, TARBALL, Members, members, write_tarball
from underone.data import Dataset, load_dataset, locate
from underone.data.hold_out import held_out
from underone.data.locate import NOTO_EMOJI, NOTO_EMOJI_BY_HAND, keep, locate_noto_emoji
from underone.data.noto_emoji import family, halved_on_white, read_noto_emoji
from underone.data.npm import NpmPackage, npm_pack
from underone.errors import UserError
from underone.metrics.memorisation import memorisation

HAND, TONES = "1f44b", ("1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff")
NORWAYS = ("1f1f3-1f1f4", "1f1f8-1f1ef", "1f1e7-1f1fb")


@pytest.fixture(autouse=True)
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNDERONE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@cache
def both() -> tuple[Dataset, Dataset]:
    return load_dataset("noto-emoji", "train", SLICE), load_dataset("noto-emoji", "test", SLICE)


def small(name: str) -> torch.Tensor:
    """A picture of the slice as Pillow lays it on white and halves it."""
    path = Path(os.environ["UNDERONE_CACHE"]).parent / "one.png"
    path.write_bytes(members()[f"{IMAGES}{name}.png"])
    rgba = Image.open(path).convert("RGBA")
    laid = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return torch.from_numpy(np.array(laid.reduce(2)).astype(np.int16)).permute(2, 0, 1)


def side(name: str) -> str:
    """The split that holds the nearest picture, which differs by rounding alone."""
    wanted = small(name)
    found = [
        dataset.split
        for dataset in both()
        if ((dataset.images.to(torch.int16) - wanted).abs().amax(dim=(1, 2, 3)) <= 2).any()
    ]
    assert len(found) == 1, name
    return found[0]


def test_classes_are_the_categories_and_the_bare_skin_tones_are_none() -> None:
    train, test = both()
    names = ("Animals & Nature", "Flags", "Food & Drink", "People & Body")
    assert train.class_names == test.class_names == names
    counts = train.labels.bincount() + test.labels.bincount()
    assert counts.tolist() == [24, 24, 24, 36]
    assert train.images.shape[1:] == (3, 32, 32)


def test_a_fifth_of_each_class_is_held_out_whatever_the_order_of_the_table(tmp_path: Path) -> None:
    train, test = both()
    assert test.labels.bincount().tolist() == [5, 5, 5, 6]
    files = members()
    table = json.loads(files["package/emoji.json"])
    files["package/emoji.json"] = json.dumps(table[::-1]).encode()
    again = write_tarball(tmp_path / "again.tgz", dict(reversed(files.items())))
    assert read_noto_emoji(again, "train").sha256 == train.sha256
    assert read_noto_emoji(again, "test").sha256 == test.sha256


def test_pictures_are_laid_on_white_and_halved_by_the_mean() -> None:
    rgba = np.zeros((2, 4, 4), np.uint8)
    rgba[:, :2] = (200, 100, 0, 255)
    rgba[0, 0] = (9, 9, 9, 0)  # transparent: white, whatever lies below
    rgba[:, 2:] = (0, 0, 0, 51)  # a fifth of black
    expected = [[[(600 + 255 + 2) // 4, (300 + 255 + 2) // 4, (255 + 2) // 4], [204] * 3]]
    assert halved_on_white(rgba).tolist() == expected
    # Against Pillow, which rounds twice.
    assert side(HAND) in ("train", "test")


@pytest.mark.parametrize(
    ("unified", "others"),
    [
        ("1F44B", [f"1F44B-{tone.upper()}" for tone in TONES]),
        ("1F9D1-200D-1F4BB", ["1F468-1F3FE-200D-1F4BB", "1F469-200D-1F4BB"]),
        ("1F3C3", ["1F3C3-1F3FD-200D-2640-FE0F-200D-27A1-FE0F", "1F3C3-200D-2642-FE0F"]),
    ],
)
def test_a_family_is_an_emoji_with_its_variants(unified: str, others: list[str]) -> None:
    assert {family(other) for other in others} == {family(unified)}


def test_signs_that_stand_alone_are_no_variants() -> None:
    assert len({family(code) for code in ("2640-FE0F", "2642-FE0F", "27A1-FE0F", "1F3C3")}) == 4


def test_an_emoji_and_its_near_duplicates_are_on_one_side() -> None:
    assert len({side(name) for name in (HAND, *(f"{HAND}-{tone}" for tone in TONES))}) == 1
    people = ("1f468-200d-1f4bb", "1f469-1f3ff-200d-1f4bb", "1f9d1-1f3fb-200d-1f4bb")
    assert len({side(name) for name in people}) == 1
    train, test = both()
    flat = [dataset.images.flatten(1) for dataset in (train, test)]
    assert not any((image == flat[0]).all(1).any() for image in flat[1])


def test_equal_pictures_are_on_one_side_by_a_chain_of_ties() -> None:
    ties = [["a", "x"], ["b", "x"], ["b", "y"], ["c", "y"], *([str(i)] for i in range(16))]
    for share in (0.1, 0.2, 0.5, 0.9):
        chosen = held_out(ties, ["only"] * 20, share)
        assert len(chosen & {0, 1, 2, 3}) in (0, 4)
        assert len(chosen) == round(20 * share)
    assert held_out([["a"], ["a"]], ["only"] * 2, 0.5) == set()
    trio = {(IMAGES + name + ".png") for name in NORWAYS}
    assert len({hashlib.sha256(members()[name]).digest() for name in trio}) == 1
    assert len({side(name) for name in NORWAYS}) == 1


Change = Callable[[Members], object]


def _table(change: Callable[[list[dict[str, object]]], object]) -> Change:
    def apply(files: Members) -> None:
        table = json.loads(files["package/emoji.json"])
        change(table)
        files["package/emoji.json"] = json.dumps(table).encode()

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda files: files.pop("package/emoji.json"),
            "holds no package/emoji.json: it is not the npm",
        ),
        (lambda files: files.pop(f"{IMAGES}{HAND}.png"), f"holds no {IMAGES}{HAND}.png"),
        (lambda files: files.update({"../../escaped": b"x"}), r"hostile: .* \.\./\.\./escaped"),
        (lambda files: files.update({"/etc/escaped": b"x"}), "hostile: its member /etc/escaped"),
        (lambda files: files.update({"a\\..\\..\\b": b"x"}), "hostile"),
        (lambda files: files.update({"package/emoji.json": b"{"}), "is not the table of emoji"),
        (lambda files: files.update({"package/emoji.json": b"[]"}), "is not the table of emoji"),
        (lambda files: files.update({"package/emoji.json": b"[" * 9999}), "not the table of emoji"),
        (_table(lambda table: table[0].pop("category")), "is not the table of emoji"),
        (_table(lambda table: table[0].update(image=3)), "is not the table of emoji"),
        (_table(lambda table: table[0].update(image="../../../x")), "holds no"),
        (lambda files: files.update({f"{IMAGES}{HAND}.png": b"GIF89a"}), "not a readable PNG"),
        (
            lambda files: files.update({f"{IMAGES}{HAND}.png": files[f"{IMAGES}{HAND}.png"][:400]}),
            f"{HAND}.png in .* is not a readable PNG",
        ),
        (lambda files: files.update({f"{IMAGES}{HAND}.png": bytes(300_000)}), "at most 200,000"),
    ],
)
def test_a_wrong_tarball_is_one_line(tmp_path: Path, change: Change, message: str) -> None:
    files = members()
    change(files)
    path = write_tarball(tmp_path / "wrong.tgz", files)
    with pytest.raises(UserError, match=message) as caught:
        read_noto_emoji(path, "train")
    assert "wrong.tgz" in str(caught.value)
    assert not (tmp_path.parent / "escaped").exists()


def test_a_truncated_tarball_is_one_line(tmp_path: Path) -> None:
    whole, cut = TARBALL.read_bytes(), tmp_path / "cut.tgz"
    for end in (0, 100, len(whole) // 2, len(whole) - 1):
        cut.write_bytes(whole[:end])
        with pytest.raises(UserError, match=r"cut\.tgz"):
            read_noto_emoji(cut, "train")
    cut.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=r"cut\.tgz has the wrong checksum"):
        keep("noto-emoji", cut)


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a program called npm, which says and does what the script does, alone on the PATH."""

    def put(script: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        path = folder / "npm"
        path.write_text(f"#!{shutil.which('sh')}\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))

    return put


def test_without_npm_the_way_by_hand_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"npm is not installed; install npm.* --from FILE"):
        load_dataset("noto-emoji")


def test_npm_that_fails_is_told_with_its_reason(cached: Path, npm: Callable[[str], None]) -> None:
    npm("echo npm error code ENOTFOUND >&2; echo npm error network request failed >&2; exit 1")
    with pytest.raises(UserError, match=r"failed \(code ENOTFOUND; network request failed\)"):
        load_dataset("noto-emoji")
    assert list((cached / "noto-emoji").iterdir()) == []


def test_npm_that_brings_nothing_is_told(npm: Callable[[str], None]) -> None:
    npm("true")
    with pytest.raises(UserError, match=r"failed \(it wrote no tarball\)"):
        load_dataset("noto-emoji")


def test_what_npm_brings_is_verified_and_kept(
    cached: Path, npm: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    npm(f"echo $@ >> {cached}/asked; {shutil.which('cp')} {TARBALL} .")
    cached.mkdir()
    with pytest.raises(UserError, match=r"npm fetched .* with the wrong checksum"):
        load_dataset("noto-emoji")
    assert list((cached / "noto-emoji").iterdir()) == []
    right = NpmPackage(
        NOTO_EMOJI.package, "16.0.0", hashlib.sha256(TARBALL.read_bytes()).hexdigest()
    )
    monkeypatch.setattr(locate, "NOTO_EMOJI", right)
    for _ in range(2):
        assert load_dataset("noto-emoji").sha256 == both()[0].sha256
    asked = (cached / "asked").read_text().splitlines()
    assert len(asked) == 2  # once with the wrong checksum, once with the right one, then kept
    assert asked[0].startswith("pack emoji-datasource-google@16.0.0 --ignore-scripts")
    damaged = cached / "noto-emoji" / NOTO_EMOJI.name
    damaged.write_bytes(b"x")
    load_dataset("noto-emoji")
    assert len((cached / "asked").read_text().splitlines()) == 3


def test_a_tarball_of_ones_own_is_kept_if_its_bytes_are_right(
    cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="wrong checksum for emoji-datasource-google-16"):
        keep("noto-emoji", TARBALL)
    with pytest.raises(UserError, match=r"no such file: .*absent"):
        keep("noto-emoji", tmp_path / "absent.tgz")
    with pytest.raises(UserError, match="--from goes with cifar10 and noto-emoji"):
        keep("fashion-mnist", TARBALL)
    assert not cached.exists()
    right = NpmPackage(
        NOTO_EMOJI.package, "16.0.0", hashlib.sha256(TARBALL.read_bytes()).hexdigest()
    )
    monkeypatch.setattr(locate, "NOTO_EMOJI", right)
    monkeypatch.setattr(locate, "_ONE_FILE", {"noto-emoji": right})
    keep("noto-emoji", TARBALL)
    monkeypatch.setenv("PATH", "")
    assert locate_noto_emoji() == cached / "noto-emoji" / NOTO_EMOJI.name


def test_a_root_without_the_tarball_is_refused(tmp_path: Path) -> None:
    assert locate_noto_emoji(TARBALL) == TARBALL
    with pytest.raises(UserError, match=r"holds no emoji-datasource-google-16\.0\.0\.tgz"):
        load_dataset("noto-emoji", "train", tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Dataset]:
    """The whole package, if npm can fetch it."""
    if shutil.which("npm") is None:
        pytest.skip("needs npm")
    try:
        path = npm_pack(NOTO_EMOJI, tmp_path_factory.mktemp("npm"), NOTO_EMOJI_BY_HAND)
    except UserError as error:
        if "wrong checksum" in str(error):
            raise
        pytest.skip(f"npm cannot fetch it here: {error}")
    return read_noto_emoji(path, "train"), read_noto_emoji(path, "test")


@pytest.mark.endurance
def test_copies_of_emoji_show_as_the_page_says(whole: tuple[Dataset, Dataset]) -> None:
    def features(images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(images.float(), 4).flatten(1)

    train, test = (features(dataset.images) for dataset in whole)
    images = whole[0].images
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:757]
    moved = features(images[chosen].roll(1, 3))
    found = memorisation(train=train, test=test, generated=moved)
    page = (Path(__file__).parent.parent / "docs" / "metrics.md").read_text("utf-8")
    share, authentic, copying = (
        found.memorised_share,
        found.authentic_percent,
        found.data_copying,
    )
    told = (
        f"a memorised share of {share.generated:.2f}, AuthPct {authentic.generated:.0f} "
        f"(held-out ones {authentic.held_out:.0f}) and C_T {copying.generated:.1f} "
        f"({copying.held_out:.1f})"
    )
    assert told in " ".join(page.split())
    mirrored = features(images.flip(3))
    without, with_flips = (
        memorisation(train=train, test=test, generated=mirrored[chosen], mirrored=views)
        for views in (None, mirrored)
    )
    told = (
        f"a memorised share of {without.memorised_share.generated:.2f} without it and "
        f"{with_flips.memorised_share.generated:.2f} with it"
    )
    assert told in " ".join(page.split())


@pytest.mark.endurance
def test_the_whole_package_from_npm(whole: tuple[Dataset, Dataset]) -> None:
    train, test = whole
    assert (len(train), len(test)) == (3024, 757)
    assert train.sha256[:16] == "dbf6f403dd1aec20"
    assert test.sha256[:16] == "0bfbab496fae51bd"
    assert len(train.class_names) == 9
    counts = train.labels.bincount() + test.labels.bincount()
    shares = test.labels.bincount() / counts
    assert shares.min() > 0.19
    assert shares.max() < 0.21
