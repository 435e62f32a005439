"""Sample sets on disk: an .npz or a folder of PNGs, bit for bit what was in memory."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from underone.data.arrays import read_arrays, write_arrays
from underone.data.image_files import is_hidden, is_image_file, read_images
from underone.data.images import check_images
from underone.data.picture import to_picture
from underone.errors import UserError
from underone.files import read_json, to_json, write_folder, write_json

LABELLED_NAME = re.compile(r"\d+_class(\d+)\.png", re.IGNORECASE)
RECORD_NAME = "samples.json"
_LABELS = 10**6
# What torch and json raise on values out of range, ragged, of a wrong type or nested too deep.
MALFORMED = (OverflowError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True, eq=False)
class SampleSet:
    """Generated images and what is recorded of them; malformed values raise `ValueError`.

    `images` is uint8 (N, C, H, W); `labels` int64 (N,), below a million; `seeds` int64 (N, 2), each
    row the seed and index that key a sample's noise; `protocol` a JSON object, null in place of
    infinity.
    """

    images: Tensor
    labels: Tensor | None = None
    seeds: Tensor | None = None
    protocol: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_images(self.images)
        count = len(self.images)
        if count == 0:
            raise ValueError("a sample set needs at least one image")
        _check_integers("labels", self.labels, (count,))
        _check_integers("seeds", self.seeds, (count, 2))
        if self.labels is not None and not 0 <= self.labels.min() <= self.labels.max() < _LABELS:
            raise ValueError(
                f"labels must lie in 0..{_LABELS - 1}, got {self.labels.min()} to "
                f"{self.labels.max()}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def label_policy_over(self, classes: int) -> str:
        """The label policy, as far as labels show it: "balanced" if counts differ by at most 1.

        Counts are of `classes` classes, or of as many as the labels name, if more. Without labels
        it is "unrecorded", with other ones "given". `protocol` may record more.
        """
        if self.labels is None:
            return "unrecorded"
        counts = self.labels.bincount(minlength=classes)
        return "balanced" if counts.max() - counts.min() <= 1 else "given"

    @property
    def label_policy(self) -> str:
        """`label_policy_over` as many classes as the labels name."""
        return self.label_policy_over(0)

    def save_npz(self, path: Path) -> None:
        """Write `images`, `labels`, `seeds` and `protocol` (JSON) atomically; no pickles."""
        tensors = {"images": self.images, "labels": self.labels, "seeds": self.seeds}
        arrays = {
            name: values.cpu().numpy() for name, values in tensors.items() if values is not None
        }
        arrays["protocol"] = np.array(to_json(self.protocol))
        write_arrays(path, arrays)

    def save_png_folder(self, folder: Path) -> None:
        """Write `NNNNN_classL.png` (or `NNNNN.png`) files and `samples.json` to a new folder.

        The folder appears when all is written. One that holds anything already is a `UserError`,
        since old and new samples in one folder would be measured as one set.
        """
        write_folder(folder, self._write_pngs)

    def _write_pngs(self, folder: Path) -> None:
        for image, name in zip(self.images, _png_names(self), strict=True):
            to_picture(image).save(folder / name)
        seeds = None if self.seeds is None else self.seeds.tolist()
        write_json(folder / RECORD_NAME, {"seeds": seeds, "protocol": self.protocol})


def read_samples(path: Path) -> SampleSet:
    """Read what `SampleSet` wrote, ADM's .npz (`arr_0` NHWC, `arr_1` labels), or a folder of PNGs.

    PNGs are ordered by name; they have labels if all are named as `save_png_folder` names them.
    A file that is damaged, pickled or of another form is a `UserError`.
    """
    if path.is_dir():
        return _read_png_folder(path)
    expected = "images as uint8 NCHW, or arr_0 as uint8 NHWC"
    arrays = read_arrays(path, _wanted, "sample set", expected)
    try:
        return _from_arrays(arrays)
    except MALFORMED as error:
        raise UserError(f"{path} is not a sample set: {error}") from None


def _check_integers(name: str, values: Tensor | None, shape: tuple[int, ...]) -> None:
    if values is not None and (values.dtype != torch.int64 or values.shape != shape):
        raise ValueError(
            f"{name} must be int64 of shape {shape}, not {values.dtype} {tuple(values.shape)}"
        )


def _png_names(samples: SampleSet) -> list[str]:
    count = len(samples)
    digits = max(5, len(str(count - 1)))
    if samples.labels is None:
        return [f"{index:0{digits}}.png" for index in range(count)]
    return [
        f"{index:0{digits}}_class{label}.png" for index, label in enumerate(samples.labels.tolist())
    ]


def _wanted(names: set[str]) -> set[str]:
    return names if "images" in names else names & {"arr_0", "arr_1"}


def _from_arrays(arrays: Mapping[str, NDArray[Any]]) -> SampleSet:
    if "images" in arrays:
        _check_names(arrays)
        return SampleSet(
            images=_images(arrays["images"]),
            labels=_integers(arrays.get("labels")),
            seeds=_integers(arrays.get("seeds")),
            protocol=_protocol(json.loads(str(arrays.get("protocol", "{}")))),
        )
    if "arr_0" not in arrays:
        raise ValueError("it holds neither images (uint8 NCHW) nor arr_0 (uint8 NHWC)")
    if arrays["arr_0"].ndim != 4:
        raise ValueError(f"arr_0 must be NHWC, not of shape {arrays['arr_0'].shape}")
    return SampleSet(
        images=_images(arrays["arr_0"].transpose(0, 3, 1, 2)),
        labels=_integers(arrays.get("arr_1")),
    )


def _check_names(arrays: Mapping[str, NDArray[Any]]) -> None:
    # Ignoring a misspelt `label` would silently lose the labels.
    strangers = sorted(arrays.keys() - {"images", "labels", "seeds", "protocol"})
    if strangers:
        raise ValueError(
            f"beside images it may hold labels, seeds and protocol, not {', '.join(strangers)}"
        )


def _images(array: NDArray[Any]) -> Tensor:
    if array.dtype != np.uint8:
        raise ValueError(f"images must be uint8 in 0..255, not {array.dtype}")
    return torch.from_numpy(np.ascontiguousarray(array))


def _integers(array: NDArray[Any] | None) -> Tensor | None:
    if array is None:
        return None
    if array.dtype.kind not in "iu":
        raise ValueError(f"labels and seeds must be integers, not {array.dtype}")
    return torch.from_numpy(array.astype(np.int64))


def _protocol(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("protocol must be a JSON object")
    return value


def _read_png_folder(folder: Path) -> SampleSet:
    paths = sorted(
        (path for path in folder.iterdir() if is_image_file(path)), key=lambda path: path.name
    )
    inside = (path.relative_to(folder) for path in folder.glob("*/**/*") if is_image_file(path))
    deeper = next((path for path in inside if not is_hidden(path)), None)
    if deeper is not None:
        raise UserError(
            f"{folder} holds images in sub-folders as well ({deeper}): put all "
            "samples into one folder, or measure each folder by itself"
        )
    if not paths:
        raise UserError(f"{folder} holds no PNG images")
    for path in paths:
        if path.suffix.lower() != ".png":
            raise UserError(
                f"{path} is not a PNG: other formats may lose detail, which changes every metric"
            )
    record = _read_record(folder / RECORD_NAME)
    try:
        return SampleSet(
            images=read_images(paths),
            labels=_labels_of_names([path.name for path in paths]),
            seeds=None if record.get("seeds") is None else torch.tensor(record["seeds"]),
            protocol=_protocol(record.get("protocol", {})),
        )
    except MALFORMED as error:
        raise UserError(f"{folder} is not a sample set: {error}") from None


def _read_record(path: Path) -> dict[str, Any]:
    record = read_json(path) if path.exists() else {}
    if not isinstance(record, dict):
        raise UserError(f"{path} must hold a JSON object: restore or delete it")
    return record


def _labels_of_names(names: list[str]) -> Tensor | None:
    matches = [LABELLED_NAME.fullmatch(name) for name in names]
    labels = [int(match[1]) for match in matches if match is not None]
    return torch.tensor(labels) if len(labels) == len(names) else None
