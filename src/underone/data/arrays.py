"""Named arrays in an .npz, atomic and without pickles."""

import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from underone.errors import UserError
from underone.files import write_atomically

Arrays = dict[str, NDArray[Any]]


def read_arrays(
    path: Path, wanted: Callable[[set[str]], Collection[str]], what: str, expected: str
) -> Arrays:
    """The arrays that `wanted` chooses among the names in the file; the others are not read.

    A file that is missing, damaged or pickled is a `UserError`, in which `what` is the kind of file
    and `expected` what it should hold.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: np.asarray(archive[name]) for name in wanted(set(archive.files))}
    except FileNotFoundError:
        raise UserError(f"no such {what}: {path}") from None
    except (MemoryError, PermissionError):
        raise
    except Exception:  # on hostile bytes zipfile and numpy raise a dozen unrelated types
        raise UserError(
            f"{path} is not an .npz, or is damaged, truncated or pickled: expected {expected}"
        ) from None


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an .npz; the same arrays always give the same bytes."""

    def write(temporary: Path) -> None:
        # Not numpy.savez, which takes the names as keywords and adds .npz to a path without it.
        with zipfile.ZipFile(temporary, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)

    write_atomically(path, write)
