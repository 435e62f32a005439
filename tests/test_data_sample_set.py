import json
import pickle
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers import strict_json
from underone.data import SampleSet, load_dataset, read_samples, write_arrays
from underone.errors import UserError

SLICE = Path(__file__).parent / "data" / "fashion-mnist"
ONE_FILE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
IMAGES = np.zeros((2, 1, 4, 4), dtype=np.uint8)


def make_samples(count: int = 6, channels: int = 3) -> SampleSet:
    generator = torch.Generator().manual_seed(count)
    shape = (count, channels, 5, 4)
    return SampleSet(
        images=torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8),
        labels=torch.arange(count) % 10,
        seeds=torch.stack([torch.full((count,), 2**40), torch.arange(count)], dim=1),
        protocol={"labels": "balanced", "w": 0.5, "sampler": {"name": "ddim", "steps": 20}},
    )


def assert_equal(read: SampleSet, written: SampleSet) -> None:
    assert read.images.dtype == torch.uint8
    assert torch.equal(read.images, written.images)
    for name in ("labels", "seeds"):
        left, right = getattr(read, name), getattr(written, name)
        assert (left is None) == (right is None), name
        assert left is None or (left.dtype == torch.int64 and torch.equal(left, right)), name
    assert read.protocol == written.protocol


@pytest.mark.parametrize("channels", [1, 3])
def test_disk_is_memory_bit_for_bit(tmp_path: Path, channels: int) -> None:
    samples = make_samples(channels=channels)
    samples.save_npz(tmp_path / "samples.npz")
    samples.save_png_folder(tmp_path / "samples")
    assert_equal(read_samples(tmp_path / "samples.npz"), samples)
    assert_equal(read_samples(tmp_path / "samples"), samples)


def test_labels_seeds_and_protocol_may_be_unknown(tmp_path: Path) -> None:
    samples = SampleSet(make_samples().images)
    samples.save_npz(tmp_path / "samples.npz")
    samples.save_png_folder(tmp_path / "samples")
    assert_equal(read_samples(tmp_path / "samples.npz"), samples)
    assert_equal(read_samples(tmp_path / "samples"), samples)


def test_real_images_survive_both_formats(tmp_path: Path) -> None:
    dataset = load_dataset("fashion-mnist", "test", SLICE)
    samples = SampleSet(dataset.images[:50], dataset.labels[:50])
    samples.save_npz(tmp_path / "a.npz")
    samples.save_png_folder(tmp_path / "a")
    assert_equal(read_samples(tmp_path / "a.npz"), samples)
    assert_equal(read_samples(tmp_path / "a"), samples)


def test_the_npz_holds_what_the_documentation_says(tmp_path: Path) -> None:
    samples = make_samples()
    samples.save_npz(tmp_path / "samples.npz")
    with np.load(tmp_path / "samples.npz", allow_pickle=False) as arrays:
        assert sorted(arrays.files) == ["images", "labels", "protocol", "seeds"]
        assert json.loads(str(arrays["protocol"])) == samples.protocol
        assert arrays["images"].shape == (6, 3, 5, 4)


def test_the_same_samples_make_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_samples().save_npz(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with zipfile.ZipFile(tmp_path / "a") as archive:
        assert {member.date_time[0] for member in archive.infolist()} == {1980}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_adms_arrays_are_turned_from_nhwc(tmp_path: Path) -> None:
    samples = make_samples()
    path = tmp_path / "adm.npz"
    images = samples.images.permute(0, 2, 3, 1).numpy()
    np.savez(path, images)
    assert_equal(read_samples(path), SampleSet(samples.images))
    assert samples.labels is not None
    np.savez(path, images, samples.labels.numpy().astype(np.int32))
    assert_equal(read_samples(path), SampleSet(samples.images, samples.labels))


def test_a_folder_of_anyones_pngs_is_read_by_name(tmp_path: Path) -> None:
    for name, level in [("b.PNG", 20), ("a.png", 10), ("c.Png", 30)]:
        Image.new("L", (4, 5), level).save(tmp_path / name, format="PNG")
    (tmp_path / "notes.txt").write_text("hello")
    samples = read_samples(tmp_path)
    assert samples.images[:, 0, 0, 0].tolist() == [10, 20, 30]
    assert samples.labels is None
    assert samples.protocol == {}


def test_labels_are_read_from_names_only_if_all_have_them(tmp_path: Path) -> None:
    for name in ("00000_class7.png", "00001_class3.PNG"):
        Image.new("L", (4, 4)).save(tmp_path / name, format="PNG")
    labels = read_samples(tmp_path).labels
    assert labels is not None
    assert labels.tolist() == [7, 3]
    Image.new("L", (4, 4)).save(tmp_path / "other.png")
    assert read_samples(tmp_path).labels is None


def test_more_than_a_hundred_thousand_names_would_still_sort() -> None:
    from underone.data.sample_set import _png_names

    names = _png_names(SampleSet(torch.zeros(100_001, 1, 1, 1, dtype=torch.uint8)))
    assert names == sorted(names)
    assert names[0] == "000000.png"


def test_samples_are_never_mixed_into_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    folder.mkdir()
    make_samples(6).save_png_folder(folder)
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(UserError, match="not an empty folder"):
        make_samples(3).save_png_folder(folder)
    assert sorted(path.name for path in folder.iterdir()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["samples"]


def test_jpegs_are_refused_as_lossy(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "b.JPG", format="JPEG")
    with pytest.raises(UserError, match=r"b\.JPG is not a PNG: .* changes every metric"):
        read_samples(tmp_path)


@ONE_FILE
@given(st.data())
def test_an_npz_truncated_anywhere_is_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "samples.npz"
    make_samples().save_npz(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(UserError, match=r"samples\.npz is not an \.npz, or is damaged, truncated"):
        read_samples(path)


@ONE_FILE
@given(st.data())
def test_a_flipped_bit_changes_no_pixel_or_is_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "samples.npz"
    samples = make_samples()
    samples.save_npz(path)
    whole = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(whole) - 1))
    whole[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(whole)
    try:
        read = read_samples(path)
    except UserError:
        return
    assert torch.equal(read.images, samples.images)


def test_pixels_changed_inside_the_file_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    samples = make_samples()
    samples.save_npz(path)
    whole = path.read_bytes()
    pixels = samples.images.numpy().tobytes()
    assert whole.count(pixels) == 1
    path.write_bytes(whole.replace(pixels, bytes(len(pixels))))
    with pytest.raises(UserError, match="damaged"):
        read_samples(path)


@ONE_FILE
@given(content=st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(tmp_path: Path, content: bytes) -> None:
    for prefix in (b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00"):
        path = tmp_path / "samples.npz"
        path.write_bytes(prefix + content)
        with pytest.raises(UserError, match="expected images"):
            read_samples(path)


class Mine:
    """What a pickle can do: unpickling it creates a file."""

    def __init__(self, crater: Path) -> None:
        self.crater = crater

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.crater,)


@pytest.mark.parametrize("name", ["images", "labels", "protocol", "arr_0", "arr_1"])
def test_pickles_are_never_loaded(tmp_path: Path, name: str) -> None:
    path, crater = tmp_path / "mined.npz", tmp_path / "crater"
    arrays: dict[str, Any] = {"images" if name in ("labels", "protocol") else "arr_0": IMAGES}
    arrays[name] = np.array([Mine(crater)], dtype=object)
    with path.open("wb") as file:
        np.savez(file, **arrays)
    with pytest.raises(UserError, match="or pickled: expected images"):
        read_samples(path)
    assert not crater.exists()


def test_a_bare_pickle_is_never_loaded(tmp_path: Path) -> None:
    path, crater = tmp_path / "mined.npz", tmp_path / "crater"
    path.write_bytes(pickle.dumps(Mine(crater)))
    with pytest.raises(UserError, match="or pickled: expected images"):
        read_samples(path)
    assert not crater.exists()
    pickle.loads(path.read_bytes())  # noqa: S301 - shows that the mine is live
    assert crater.exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": IMAGES.astype(np.float32)}, "images must be uint8"),
        ({"images": IMAGES[0]}, "N, C, H, W"),
        ({"images": IMAGES.transpose(0, 2, 3, 1)}, "N, C, H, W"),
        ({"images": IMAGES[:0]}, "at least one image"),
        ({"images": IMAGES, "labels": np.zeros(3, dtype=np.int64)}, r"labels .* \(2,\)"),
        ({"images": IMAGES, "labels": np.zeros(2)}, "must be integers"),
        ({"images": IMAGES, "labels": np.array([0, -1])}, "labels must lie in 0"),
        ({"images": IMAGES, "labels": np.array([0, 2**40])}, "got 0 to 1099511627776"),
        ({"images": IMAGES, "seeds": np.zeros(2, dtype=np.int64)}, r"seeds .* \(2, 2\)"),
        ({"images": IMAGES, "label": np.zeros(2, dtype=np.int64)}, "may hold .* not label"),
        ({"images": IMAGES, "protocol": np.array("[1]")}, "JSON object"),
        ({"images": IMAGES, "protocol": np.array("{")}, "not a sample set"),
        ({"images": IMAGES, "protocol": np.array("[" * 100_000)}, "not a sample set"),
        ({"arr_0": IMAGES}, "C = 1 or 3"),
        ({"arr_0": IMAGES[0]}, "NHWC"),
        ({"mu": np.zeros(3)}, "neither images .* nor arr_0"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    path = tmp_path / "wrong.npz"
    with path.open("wb") as file:
        np.savez(file, **arrays)
    with pytest.raises(UserError, match=rf"wrong\.npz .*{message}"):
        read_samples(path)


def test_a_zip_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images", "hello")
    with pytest.raises(UserError, match=r"other\.npz is not a sample set: images must be uint8"):
        read_samples(path)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("[]", "JSON object"),
        ("{", "not valid JSON"),
        ('{"protocol": 3}', "JSON object"),
        ('{"seeds": [[0, 1]]}', r"seeds .* \(2, 2\)"),
        ('{"seeds": [[0, 1], [0]]}', "not a sample set"),
        ('{"seeds": [[0, 1], [0, 1e3]]}', "int64"),
        ('{"seeds": [[0, 1], [0, 99999999999999999999]]}', "not a sample set"),
        ('{"seeds": "zero"}', "not a sample set"),
    ],
)
def test_a_wrong_record_beside_pngs_is_refused(tmp_path: Path, record: str, message: str) -> None:
    SampleSet(torch.from_numpy(IMAGES)).save_png_folder(tmp_path / "a")
    (tmp_path / "a" / "samples.json").write_text(record)
    with pytest.raises(UserError, match=message):
        read_samples(tmp_path / "a")


def test_an_infinite_number_is_null_on_disk_and_older_files_are_read(tmp_path: Path) -> None:
    samples = replace(make_samples(), protocol={"interval": (0.2, float("inf"))})
    samples.save_npz(tmp_path / "a.npz")
    samples.save_png_folder(tmp_path / "a")
    strict_json((tmp_path / "a" / "samples.json").read_text())
    for path in (tmp_path / "a.npz", tmp_path / "a"):
        assert read_samples(path).protocol == {"interval": [0.2, None]}
    older = {"images": samples.images.numpy(), "protocol": np.array('{"end": Infinity}')}
    write_arrays(tmp_path / "older.npz", older)
    read_samples(tmp_path / "older.npz").save_npz(tmp_path / "newer.npz")
    assert read_samples(tmp_path / "newer.npz").protocol == {"end": None}


def test_what_programs_keep_in_hidden_folders_is_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / ".cache" / "samples"  # the user's own, wherever it is
    make_samples().save_png_folder(folder)
    for hidden in (".thumbs", ".thumbs/large", "shown/.thumbs"):
        (folder / hidden).mkdir(parents=True)
        shutil.copy(folder / "00000_class0.png", folder / hidden / "a.png")
    assert len(read_samples(folder)) == 6


def test_missing_and_empty_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such sample set"):
        read_samples(tmp_path / "absent.npz")
    with pytest.raises(UserError, match="holds no PNG"):
        read_samples(tmp_path)
    (tmp_path / "a" / "b").mkdir(parents=True)
    Image.new("L", (4, 4)).save(tmp_path / "a" / "b" / "deep.PNG")
    with pytest.raises(UserError, match=r"sub-folders as well \(a/b/deep\.PNG\)"):
        read_samples(tmp_path)
    shutil.rmtree(tmp_path / "a")
    Image.new("L", (4, 4)).save(tmp_path / "0_class99999999999999999999.png")
    with pytest.raises(UserError, match="not a sample set"):
        read_samples(tmp_path)


def test_a_sample_set_that_contradicts_itself_is_refused() -> None:
    images = torch.from_numpy(IMAGES)
    with pytest.raises(ValueError, match="uint8"):
        SampleSet(images.float())
    with pytest.raises(ValueError, match="labels must be int64"):
        SampleSet(images, labels=torch.zeros(2))
    with pytest.raises(ValueError, match="seeds must be int64"):
        SampleSet(images, seeds=torch.zeros(2, dtype=torch.int64))
