"""What each sample of a cell adds to its FIDs, in a file beside it: what pairs of cells need."""

import io
import zipfile
from pathlib import Path

import numpy as np

from underone.errors import UserError
from underone.study.cell import CellResult


def influences_file(result: CellResult) -> bytes:
    """A .npz file of float32 arrays (N,), by the index of the yardstick; empty where none has."""
    found = {
        str(index): np.frombuffer(influences, dtype=np.float32)
        for index, each in enumerate(result.measurements)
        if "fid" in each.figures and (influences := each.figures["fid"].influences) is not None
    }
    if not found:
        return b""
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **found)
    return file.getvalue()


def with_influences(result: CellResult, path: Path) -> CellResult:
    """A cell with what is in that file, if it is there; a damaged one is a `UserError`."""
    if not path.exists():
        return result
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {int(name): file[name].astype(np.float32).tobytes() for name in file.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile):
        raise UserError(f"{path} is damaged: remove it, and its cell to draw it again") from None
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
