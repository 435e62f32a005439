import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from underone.data.cifar import read_cifar10
from underone.errors import UserError

FOLDER = "cifar-10-batches-bin"
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
RECORDS = 4
Members = dict[str, bytes]


def records(seed: int) -> NDArray[np.uint8]:
    """True CIFAR records: a label, then 1,024 red, 1,024 green and 1,024 blue bytes."""
    generator = np.random.default_rng(seed)
    values = generator.integers(0, 256, (RECORDS, 3073), dtype=np.uint8)
    values[:, 0] = generator.integers(0, 10, RECORDS)
    return values


def make_members() -> Members:
    batches = {f"data_batch_{number}.bin": records(number).tobytes() for number in range(1, 6)}
    return {
        "batches.meta.txt": ("\n".join(NAMES) + "\n\n").encode(),
        **batches,
        "readme.html": b'<meta HTTP-EQUIV="REFRESH" content="0; url=x">',
        "test_batch.bin": records(6).tobytes(),
    }


def write_archive(path: Path, members: Members, folder: str = FOLDER) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "cifar-10-binary.tar.gz", make_members())


def test_the_five_training_batches_are_read_in_order(archive: Path) -> None:
    dataset = read_cifar10(archive, "train")
    expected = np.concatenate([records(number) for number in range(1, 6)])
    assert dataset.labels.tolist() == expected[:, 0].tolist()
    assert dataset.images.shape == (5 * RECORDS, 3, 32, 32)
    assert dataset.class_names == tuple(NAMES)


def test_a_record_is_a_label_then_three_planes_row_by_row(archive: Path) -> None:
    image = read_cifar10(archive, "test").images[2]
    record = records(6)[2]
    for channel, row, column in [(0, 0, 0), (0, 0, 31), (0, 1, 0), (1, 0, 0), (2, 31, 31)]:
        byte = record[1 + 1024 * channel + 32 * row + column]
        assert image[channel, row, column].item() == byte


def test_the_extracted_folder_equals_the_archive(archive: Path, tmp_path: Path) -> None:
    for name, data in make_members().items():
        (tmp_path / name).write_bytes(data)
    for split in ("train", "test"):
        assert read_cifar10(tmp_path, split).sha256 == read_cifar10(archive, split).sha256


def test_nothing_is_extracted_and_names_are_not_trusted(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    members = {"../../escaped.bin": b"x", **make_members()}
    archive = write_archive(inner / "hostile.tar.gz", members)
    read_cifar10(archive, "test")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["hostile.tar.gz", "inner"]


def test_an_archive_truncated_anywhere_is_refused(archive: Path, tmp_path: Path) -> None:
    whole = archive.read_bytes()
    cut = tmp_path / "cut.tar.gz"
    for end in (0, 1, 9, 100, *range(1000, len(whole), 1009), len(whole) - 1):
        cut.write_bytes(whole[:end])
        with pytest.raises(UserError, match=r"cut\.tar\.gz"):
            read_cifar10(cut, "test")


def test_a_tar_truncated_inside_a_whole_gzip_is_refused(archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive) as tar:
        member = tar.getmember(f"{FOLDER}/test_batch.bin")
        middle = member.offset_data + 100
    cut = tmp_path / "cut.tar"
    cut.write_bytes(_unzipped(archive)[:middle])
    with pytest.raises(UserError, match="whole tar archive"):
        read_cifar10(cut, "test")


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(position=st.integers(0, 5 * 512), byte=st.integers(0, 255))
def test_hostile_tar_headers_are_read_or_refused(
    archive: Path, tmp_path: Path, position: int, byte: int
) -> None:
    data = bytearray(_unzipped(archive))
    data[position] = byte
    path = tmp_path / "hostile.tar"
    path.write_bytes(data)
    try:
        dataset = read_cifar10(path, "test")
    except UserError:
        return
    assert len(dataset) == RECORDS


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("test_batch.bin", bytes(3073 * 2 - 1), "not a whole number of 3073-byte records"),
        ("test_batch.bin", b"", "not a whole number"),
        ("test_batch.bin", bytes([10]) + bytes(3072), r"label 10, expected 0\.\.9"),
        ("test_batch.bin", None, "holds no cifar-10-batches-bin/test_batch.bin"),
        ("batches.meta.txt", None, "holds no cifar-10-batches-bin/batches.meta.txt"),
        ("batches.meta.txt", b"cat\ndog\n", "must name ten classes, not 2"),
    ],
)
def test_wrong_members_are_refused(
    tmp_path: Path, name: str, data: bytes | None, message: str
) -> None:
    members = make_members()
    if data is None:
        del members[name]
    else:
        members[name] = data
    archive = write_archive(tmp_path / "wrong.tar.gz", members)
    with pytest.raises(UserError, match=message):
        read_cifar10(archive, "test")


def test_the_python_version_and_other_files_are_refused(tmp_path: Path) -> None:
    python = write_archive(
        tmp_path / "python.tar.gz", {"data_batch_1": b"x"}, "cifar-10-batches-py"
    )
    with pytest.raises(UserError, match="binary version"):
        read_cifar10(python, "train")
    text = tmp_path / "page.tar.gz"
    text.write_text("<html>503</html>")
    with pytest.raises(UserError, match="not a whole tar archive"):
        read_cifar10(text, "train")
    with pytest.raises(UserError, match=r"no such file: .*absent"):
        read_cifar10(tmp_path / "absent.tar.gz", "train")


def test_a_link_or_an_absurd_sparse_member_is_refused(tmp_path: Path) -> None:
    members = make_members()
    del members["test_batch.bin"]
    archive = write_archive(tmp_path / "plain.tar.gz", members)
    linked = tmp_path / "linked.tar"
    linked.write_bytes(_unzipped(archive))
    with tarfile.open(linked, "a") as tar:
        link = tarfile.TarInfo(f"{FOLDER}/test_batch.bin")
        link.type = tarfile.SYMTYPE
        link.linkname = "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(UserError, match="is not a file of at most"):
        read_cifar10(linked, "test")

    sparse = tmp_path / "sparse.tar"
    with tarfile.open(sparse, "w", format=tarfile.PAX_FORMAT) as tar:
        meta = tarfile.TarInfo(f"{FOLDER}/batches.meta.txt")
        meta.size = len(members["batches.meta.txt"])
        tar.addfile(meta, io.BytesIO(members["batches.meta.txt"]))
        member = tarfile.TarInfo(f"{FOLDER}/test_batch.bin")
        member.pax_headers = {"GNU.sparse.size": str(10**12), "GNU.sparse.map": "0,0"}
        tar.addfile(member)
    with pytest.raises(UserError, match="is not a file of at most"):
        read_cifar10(sparse, "test")


def test_a_header_that_claims_an_impossible_size_is_refused(archive: Path, tmp_path: Path) -> None:
    data = bytearray(_unzipped(archive))
    data[124:136] = b"\x80" + (2**80).to_bytes(11, "big")  # the size, in tar's binary notation
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path = tmp_path / "hostile.tar"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"hostile\.tar is not a whole tar archive"):
        read_cifar10(path, "test")


def test_labels_are_int64(archive: Path) -> None:
    assert read_cifar10(archive, "test").labels.dtype == torch.int64


def _unzipped(archive: Path) -> bytes:
    return gzip.decompress(archive.read_bytes())
