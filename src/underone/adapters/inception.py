"""The Inception network that FID was defined with, from torch-fidelity."""

import pickle
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from underone.adapters.identity import sha256_of
from underone.adapters.images import in_parts
from underone.errors import UserError, first_line
from underone.interop.packages import imported
from underone.metrics import Features

# What torch's loader and torch-fidelity raise on files of another kind.
_LOAD_ERRORS = (
    pickle.UnpicklingError,
    struct.error,
    RuntimeError,
    ValueError,
    EOFError,
    AttributeError,
    LookupError,
    TypeError,
)
_LAYERS = ("2048", "logits_unbiased")


@dataclass(frozen=True, eq=False)
class InceptionExtractor:
    """Features (B, 2048) and unbiased logits (B, 1008) of torch-fidelity's InceptionV3.

    Images of any size; it enlarges them itself, as TensorFlow 1 did. Grey ones are made RGB.
    """

    sha256: str
    network: nn.Module
    name: str = "inception"
    revision: int | None = None

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Features:
        """The features and logits of uint8 images."""
        values, logits = in_parts(images, self.network)
        return Features(values.flatten(1), logits)


def inception_extractor(weights: str) -> InceptionExtractor:
    """torch-fidelity's Inception with the weights in a file.

    torch-fidelity unpickles its file, which may run any code in it. So it is given a copy of what
    torch's weights-only loader has read.
    """
    path = Path(weights).expanduser()
    if not path.is_file():
        raise UserError(
            f"no Inception weights at {path}: they are weights-inception-2015-12-05-6726825d.pth "
            "of torch-fidelity's release v0.2.0"
        )
    package = imported("torch_fidelity.feature_extractor_inceptionv3", "torch-fidelity")
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "weights.pth"
            torch.save(tensors, copy)
            network = package.FeatureExtractorInceptionV3(
                "inception", list(_LAYERS), feature_extractor_weights_path=str(copy)
            )
    except _LOAD_ERRORS as error:
        reason = first_line(error)
        raise UserError(f"{path}: no weights of torch-fidelity's Inception: {reason}") from None
    network.eval()  # which not every version does itself
    return InceptionExtractor(sha256_of(network, {"layers": _LAYERS, "resize": "tf1"}), network)
