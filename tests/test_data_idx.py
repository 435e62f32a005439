import gzip
import struct
import tracemalloc
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from underone.data.compressed import read_at_most
from underone.data.fashion_mnist import read_fashion_mnist
from underone.data.idx import parse_idx, read_idx
from underone.errors import UserError

SLICE = Path(__file__).parent / "data" / "fashion-mnist"
IMAGES = SLICE / "t10k-images-idx3-ubyte.gz"
LABELS = SLICE / "t10k-labels-idx1-ubyte.gz"
SOURCE = Path("some-file")


def encode(values: torch.Tensor, kind: int = 0x08) -> bytes:
    header = struct.pack(f">HBB{values.ndim}I", 0, kind, values.ndim, *values.shape)
    return header + values.numpy().tobytes()


def test_the_real_slice_is_read() -> None:
    dataset = read_fashion_mnist(IMAGES, LABELS, "test")
    assert dataset.images.shape == (1000, 1, 28, 28)
    assert dataset.labels.bincount().tolist() == [107, 105, 111, 93, 115, 87, 97, 95, 95, 95]
    # The test set's famous first images: an ankle boot, a pullover, two pairs of trousers.
    names = [dataset.class_names[label] for label in dataset.labels[:4].tolist()]
    assert names == ["Ankle boot", "Pullover", "Trouser", "Trouser"]
    # Trousers are brighter down the legs than in the corners; a shifted or transposed read is not.
    trousers = dataset.images[dataset.labels == 1].float().mean(0)[0]
    assert trousers[4:24, 10:18].mean() > 100 > 20 > trousers[:, :4].mean()


def test_plain_and_gzipped_files_are_the_same(tmp_path: Path) -> None:
    plain = tmp_path / "labels"
    plain.write_bytes(gzip.decompress(LABELS.read_bytes()))
    assert torch.equal(read_idx(plain, rank=1), read_idx(LABELS, rank=1))


@settings(deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_what_is_encoded_is_parsed(shape: list[int]) -> None:
    values = torch.randint(0, 256, shape, dtype=torch.uint8)
    assert torch.equal(parse_idx(encode(values), len(shape), SOURCE), values)


@settings(deadline=None)
@given(st.binary(max_size=64), st.integers(1, 3))
def test_arbitrary_bytes_are_parsed_or_refused_in_one_line(data: bytes, rank: int) -> None:
    try:
        values = parse_idx(data, rank, SOURCE)
    except UserError as error:
        message = str(error)
    else:
        assert encode(values) == data
        return
    assert message.startswith("some-file ")
    assert "\n" not in message


@settings(deadline=None)
@given(st.binary(max_size=24), st.integers(1, 3))
def test_arbitrary_data_after_a_good_magic_is_parsed_or_refused(data: bytes, rank: int) -> None:
    whole = bytes([0, 0, 8, rank]) + data
    try:
        values = parse_idx(whole, rank, SOURCE)
    except UserError:
        return
    assert encode(values) == whole


@settings(deadline=None)
@given(st.data())
def test_a_plain_file_truncated_anywhere_is_refused(data: st.DataObject) -> None:
    whole = gzip.decompress(LABELS.read_bytes())
    end = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(UserError, match="truncated"):
        parse_idx(whole[:end], 1, SOURCE)


def test_a_gzipped_file_truncated_anywhere_is_refused(tmp_path: Path) -> None:
    whole = LABELS.read_bytes()
    path = tmp_path / LABELS.name
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(UserError, match="truncated"):
            read_idx(path, rank=1)


def test_a_damaged_gzipped_file_is_never_misread(tmp_path: Path) -> None:
    whole = LABELS.read_bytes()
    expected = read_idx(LABELS, rank=1)
    path = tmp_path / LABELS.name
    refused = 0
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        try:
            # What the gzip header says of time and origin is all that may differ unnoticed.
            assert torch.equal(read_idx(path, rank=1), expected)
        except UserError:
            refused += 1
    assert refused >= len(whole) - 10


def test_what_is_not_this_format_is_refused() -> None:
    good = encode(torch.zeros(2, 3, dtype=torch.uint8))
    assert parse_idx(good, 2, SOURCE).shape == (2, 3)
    with pytest.raises(UserError, match="too long: 7 bytes of data, expected 6"):
        parse_idx(good + b"\0", 2, SOURCE)
    with pytest.raises(UserError, match="not an IDX file of 1 dimensions"):
        parse_idx(good, 1, SOURCE)
    with pytest.raises(UserError, match="begins with 89504e47, expected 00000802"):
        parse_idx(b"\x89PNG\r\n\x1a\n0000", 2, SOURCE)
    with pytest.raises(UserError, match="begins with 01000802"):
        parse_idx(b"\1" + good[1:], 2, SOURCE)
    with pytest.raises(UserError, match="type 0x0d, expected unsigned bytes"):
        parse_idx(encode(torch.zeros(2, 3), kind=0x0D), 2, SOURCE)
    with pytest.raises(UserError, match="empty"):
        parse_idx(struct.pack(">HBBII", 0, 8, 2, 0, 2**31), 2, SOURCE)
    with pytest.raises(UserError, match="truncated"):
        parse_idx(struct.pack(">HBBIII", 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1), 3, SOURCE)


def test_a_decompression_bomb_is_not_unpacked(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.gz"
    bomb.write_bytes(gzip.compress(bytes(30_000_000), compresslevel=1))
    assert len(read_at_most(bomb, 30_000_000)) == 30_000_000
    tracemalloc.start()
    with pytest.raises(UserError, match="more than the 1,000,000 bytes"):
        read_at_most(bomb, 1_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_idx(tmp_path / "nothing", rank=1)
    with pytest.raises(UserError, match="directory"):
        read_idx(tmp_path, rank=1)


def test_files_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    labels.write_bytes(encode(torch.zeros(999, dtype=torch.uint8)))
    with pytest.raises(UserError, match=r"1000 images but .* 999 labels"):
        read_fashion_mnist(IMAGES, labels, "test")
    labels.write_bytes(encode(torch.full((1000,), 10, dtype=torch.uint8)))
    with pytest.raises(UserError, match=r"label 10, expected 0\.\.9"):
        read_fashion_mnist(IMAGES, labels, "test")
    images = tmp_path / "images"
    images.write_bytes(encode(torch.zeros(1000, 32, 32, dtype=torch.uint8)))
    with pytest.raises(UserError, match=r"\(32, 32\), not \(28, 28\)"):
        read_fashion_mnist(images, LABELS, "test")
    with pytest.raises(UserError, match="not an IDX file of 3 dimensions"):
        read_fashion_mnist(LABELS, IMAGES, "test")
