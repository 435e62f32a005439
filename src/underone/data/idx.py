"""The IDX format of MNIST and the like: big-endian magic and dimensions, then unsigned bytes."""

import struct
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from underone.data.compressed import read_at_most
from underone.errors import UserError

UNSIGNED_BYTE = 0x08
LARGEST = 16 + 60_000 * 28 * 28


def read_idx(path: Path, rank: int) -> Tensor:
    """The uint8 tensor of `rank` dimensions in an IDX file, plain or gzipped.

    Any other file is a `UserError`.
    """
    return parse_idx(read_at_most(path, LARGEST), rank, path)


def parse_idx(data: bytes, rank: int, source: Path) -> Tensor:
    """The uint8 tensor that the bytes of `source` encode; a `UserError` names `source`."""
    start = 4 + 4 * rank
    if len(data) < start:
        raise UserError(f"{source} is truncated: {len(data)} bytes, an IDX header has {start}")
    zero, kind, dimensions = struct.unpack_from(">HBB", data)
    if zero != 0 or dimensions != rank:
        raise UserError(
            f"{source} is not an IDX file of {rank} dimensions: it begins with {data[:4].hex()}, "
            f"expected {bytes([0, 0, UNSIGNED_BYTE, rank]).hex()}"
        )
    if kind != UNSIGNED_BYTE:
        raise UserError(f"{source} holds IDX type 0x{kind:02x}, expected unsigned bytes (0x08)")
    shape = struct.unpack_from(f">{rank}I", data, 4)
    if prod(shape) == 0:
        raise UserError(f"{source} is empty: its dimensions are {shape}")
    if len(data) - start != prod(shape):
        fault = "truncated" if len(data) - start < prod(shape) else "too long"
        raise UserError(
            f"{source} is {fault}: {len(data) - start} bytes of data, expected {prod(shape)} "
            f"for dimensions {shape}"
        )
    values = np.frombuffer(data, np.uint8, offset=start).reshape(shape)
    return torch.from_numpy(values.copy())
