"""References on disk: an .npz with pytorch-fid's `mu` and `sigma`, and the rest beside them."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from underone.data import read_arrays, write_arrays
from underone.errors import UserError
from underone.metrics.extractor import Features
from underone.metrics.reference import ClassMoments, Origin, Reference

FORMAT = 2
UNRECORDED = "unrecorded"
_TEXTS = tuple(field.name for field in fields(Origin))
_CLASSES = ("class_n", "class_mu", "class_sigma")
_FEATURES = tuple(
    f"{part}{suffix}" for part in ("features", "held_out") for suffix in ("", "_logits", "_labels")
)
_KNOWN = {"format", "mu", "sigma", "n", *_TEXTS, *_CLASSES, *_FEATURES}
Arrays = Mapping[str, NDArray[Any]]


def save_reference(reference: Reference, path: Path) -> None:
    """Write all of a reference; pytorch-fid, clean-fid and EDM read `mu` and `sigma` of it."""
    arrays = {name: tensor.numpy() for name, tensor in reference.tensors().items()}
    for name, array in arrays.items():
        if name.endswith("_labels"):
            arrays[name] = array.astype(np.min_scalar_type(int(array.max(initial=0))))
    if "class_sigma" in arrays:
        arrays["class_sigma"] = _packed(arrays["class_sigma"])
    texts = {name: np.array(getattr(reference.origin, name)) for name in _TEXTS}
    header = {"format": np.array(FORMAT), "n": np.array(reference.count)}
    write_arrays(path, header | texts | arrays)


def load_reference(path: Path) -> Reference:
    """Read what `save_reference` wrote, or the `mu` and `sigma` of another program.

    Files of pytorch-fid, clean-fid, EDM and ADM do not record the number of images, the data and
    the extractor: these are then "unrecorded", and the count 0. Anything else is a `UserError`.
    """
    arrays = read_arrays(path, _KNOWN.intersection, "reference", "reference statistics")
    missing = {"mu", "sigma"} - arrays.keys()
    if "format" in arrays:
        missing |= {"n", *_TEXTS} - arrays.keys()
    if missing:
        raise UserError(f"{path} is not a reference: it lacks {', '.join(sorted(missing))}")
    if str(arrays.get("format", FORMAT)) != str(FORMAT):
        raise UserError(f"{path} has format {arrays['format']}, this version reads {FORMAT}")
    try:
        reference = _reference(arrays, path)
        _check(reference)
    except (TypeError, ValueError, RuntimeError, KeyError, IndexError) as error:
        raise UserError(f"{path} is not a reference: {error}") from None
    return reference


def _reference(arrays: Arrays, path: Path) -> Reference:
    texts = {name: str(arrays.get(name, UNRECORDED)) for name in _TEXTS}
    if "name" not in arrays:
        texts["name"] = path.stem
    classes = None
    if "class_n" in arrays:
        means = _tensor(arrays["class_mu"], torch.float64)
        classes = ClassMoments(
            _tensor(arrays["class_n"], torch.int64),
            means,
            torch.from_numpy(_unpacked(arrays["class_sigma"], means.shape[1])).double(),
        )
    return Reference(
        Origin(**texts),
        count=int(arrays.get("n", 0)),
        mean=_tensor(arrays["mu"], torch.float64),
        covariance=_tensor(arrays["sigma"], torch.float64),
        classes=classes,
        kept=_features(arrays, "features"),
        kept_held_out=_features(arrays, "held_out"),
    )


def _features(arrays: Arrays, name: str) -> Features | None:
    if name not in arrays:
        return None
    logits = arrays.get(f"{name}_logits")
    return Features(
        _tensor(arrays[name], torch.float16),
        None if logits is None else _tensor(logits, torch.float16),
        _tensor(arrays[f"{name}_labels"], torch.int64),
    )


def _tensor(array: NDArray[Any], dtype: torch.dtype) -> Tensor:
    if array.dtype.kind not in "fiu":
        raise ValueError(f"it holds {array.dtype}, where numbers are expected")
    return torch.from_numpy(np.asarray(array)).to(dtype)


def _packed(covariances: NDArray[Any]) -> NDArray[Any]:
    """The lower triangles (C, D (D + 1) / 2), float32."""
    rows, columns = np.tril_indices(covariances.shape[-1])
    return covariances[:, rows, columns].astype(np.float32)


def _unpacked(triangles: NDArray[Any], size: int) -> NDArray[Any]:
    rows, columns = np.tril_indices(size)
    covariances = np.zeros((len(triangles), size, size), dtype=np.float32)
    covariances[:, rows, columns] = triangles
    covariances[:, columns, rows] = triangles
    return covariances


def _check(reference: Reference) -> None:
    """A `ValueError` unless all parts are finite and of one size, and every class has images."""
    size = reference.mean.numel()
    classes = None if reference.classes is None else len(reference.classes.counts)
    shapes: dict[str, tuple[int, ...]] = {"mu": (size,), "sigma": (size, size)}
    if classes is not None:
        shapes |= {
            "class_n": (classes,),
            "class_mu": (classes, size),
            "class_sigma": (classes, size, size),
        }
    for name, features in (("features", reference.kept), ("held_out", reference.kept_held_out)):
        if features is not None:
            count = len(features)
            shapes |= {name: (count, size), f"{name}_labels": (count,)}
            if features.logits is not None:
                shapes[f"{name}_logits"] = (count, features.logits.shape[-1])
    for name, tensor in reference.tensors().items():
        if tuple(tensor.shape) != shapes[name] or tensor.numel() == 0:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {shapes[name]}")
        if not tensor.isfinite().all():
            raise ValueError(f"{name} holds NaN or infinite values")
    _check_covariance(reference.covariance)
    for features in (reference.kept, reference.kept_held_out):
        labels = None if features is None else features.labels
        if labels is not None and labels.bincount().min() == 0:
            raise ValueError("a class has no images")


def _check_covariance(covariance: Tensor) -> None:
    if not torch.allclose(covariance, covariance.T, rtol=1e-8, atol=1e-12):
        raise ValueError("sigma is not symmetric")
    if torch.linalg.eigvalsh(covariance)[0] < -1e-8 * covariance.trace().abs():
        raise ValueError("sigma has negative eigenvalues: it is not a covariance")
