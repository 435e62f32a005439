"""How well a classifier of noisy images tells them apart, noise level by noise level."""

from pathlib import Path

import torch

from underone.checkpoint import NoisyClassifier, load_checkpoint
from underone.data import Dataset
from underone.data.images import to_model_range
from underone.diffusion import NoiseStreams, node_at, noised
from underone.errors import UserError
from underone.files import write_text
from underone.networks.precision import fast_dtype
from underone.training.card import model_card

TIMES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)
_BATCH_SIZE = 250


def noisy_accuracy(
    folder: Path, test: Dataset, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """The accuracy on `test` at each of `TIMES`, written on the card of the classifier in `folder`.

    Image i is seen once at each time, with the noise of stream (0, i).
    """
    model = load_checkpoint(folder, device=device)
    if not isinstance(model, NoisyClassifier):
        raise UserError(f"{folder} holds no classifier of noisy images: measure it as what it is")
    shares = {time: accuracy_at(model, test, time) for time in TIMES}
    rows = {f"test accuracy at t = {time:g}": f"{share:.2%}" for time, share in shares.items()}
    write_text(folder / "README.md", model_card(folder, model.config, rows))
    return {f"test_accuracy_at_{time:g}": share for time, share in shares.items()}


@torch.no_grad()
def accuracy_at(model: NoisyClassifier, data: Dataset, time: float) -> float:
    """The share of images of `data` whose class is the likeliest once noised to time t = `time`."""
    device = model.device
    node = node_at(model.schedule, torch.tensor(time, dtype=torch.float64))
    right = 0
    for start in range(0, len(data), _BATCH_SIZE):
        x0 = to_model_range(data.images[start : start + _BATCH_SIZE]).to(device)
        keys = [(0, start + row) for row in range(len(x0))]
        noise = NoiseStreams(keys, model.shape, device)()
        guessed = model(noised(x0, node, noise), node, fast_dtype(device)).argmax(dim=1).cpu()
        right += int((guessed == data.labels[start : start + _BATCH_SIZE]).sum())
    return right / len(data)
