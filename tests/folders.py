"""What tests of commands share: a folder of images by class and split."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_folder(folder: Path) -> None:
    """Three random images of each of ten classes, in each split."""
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in range(10):
            place = folder / split / f"class{label}"
            place.mkdir(parents=True)
            for index in range(3):
                pixels = generator.integers(0, 256, (28, 28), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{index}.png")
