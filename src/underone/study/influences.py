"""What each sample of a cell adds to its FIDs, kept in a file to compare cells in pairs."""

from pathlib import Path

import numpy as np

from underone.data import read_arrays, write_arrays
from underone.errors import UserError
from underone.study.cell import CellResult


def keep_influences(result: CellResult, path: Path) -> None:
    """Write float32 arrays (N,) by yardstick index to an .npz file, if there are any."""
    found = {
        str(index): np.frombuffer(influences, dtype=np.float32)
        for index, each in enumerate(result.measurements)
        if "fid" in each.figures and (influences := each.figures["fid"].influences) is not None
    }
    if found:
        write_arrays(path, found)


def with_influences(result: CellResult, path: Path) -> CellResult:
    """A result with the influences in that file, if it exists; a `UserError` if damaged."""
    if not path.exists():
        return result
    indices = {str(index): index for index, _ in enumerate(result.measurements)}
    try:
        stored = read_arrays(path, indices.keys().__and__, "influences", "influences")
    except UserError:
        raise UserError(f"{path} is damaged: remove it, and its cell to draw that again") from None
    found = {indices[name]: values.astype(np.float32).tobytes() for name, values in stored.items()}
    measurements = tuple(
        each.model_copy(
            update={
                "figures": each.figures
                | {"fid": each.figures["fid"].model_copy(update={"influences": found[index]})}
            }
        )
        if index in found and "fid" in each.figures
        else each
        for index, each in enumerate(result.measurements)
    )
    return result.model_copy(update={"measurements": measurements})
