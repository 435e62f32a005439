"""Make any folder of images by class fit for training: one size, and a test split."""

import hashlib
from pathlib import Path

from PIL import Image, ImageOps

from underone.data.dataset import SPLITS
from underone.data.folder import files_by_class, folder_splits
from underone.data.hold_out import held_out
from underone.data.image_files import GREYSCALE, on_white, open_image
from underone.errors import UserError
from underone.files import check_new_folder, write_folder

HELD_OUT = 0.2


def prepare_folder(source: Path, out: Path, size: int, share: float = HELD_OUT) -> None:
    """Write the images of `source` as `out`/train/CLASS/*.png and `out`/test/CLASS/*.png.

    Each is turned upright by its EXIF orientation, laid on white where it is transparent, cropped
    to its central square, and resized to `size` x `size`, each new pixel the mean of the area that
    it covers; all are grey if all were, else RGB. `share` of each class is held out as "test", by
    the hash of its pixels: equal images, and those in one sub-folder of a class, stay in one split.
    A source that is divided already keeps its splits. `out` appears when all is written.
    """
    check_new_folder(out)
    splits = folder_splits(source)
    files = [(split, files_by_class(source, split)) for split in splits]
    every = [
        (split, folder, path)
        for split, members in files
        for folder, paths in members.items()
        for path in paths
    ]
    grey = all(_is_grey(path) for _, _, path in every)
    images = [_prepared(path, size, grey) for _, _, path in every]
    places = [split for split, _, _ in every]
    if splits != SPLITS:
        places = _divided([(folder, path) for _, folder, path in every], images, share)

    def write(whole: Path) -> None:
        for index, (image, place) in enumerate(zip(images, places, strict=True)):
            _, folder, path = every[index]
            target = whole / place / folder.name / f"{index:05}-{path.stem}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            image.save(target, format="PNG")

    write_folder(out, write)


def _divided(files: list[tuple[Path, Path]], images: list[Image.Image], share: float) -> list[str]:
    """The split of each image; a class without images on both sides is a `UserError`."""
    classes = [folder.name for folder, _ in files]
    ties = [_ties(*file, image) for file, image in zip(files, images, strict=True)]
    test = held_out(ties, classes, share)
    places = [SPLITS[index in test] for index in range(len(files))]
    found = set(zip(classes, places, strict=True))
    for name in dict.fromkeys(classes):
        if any((name, split) not in found for split in SPLITS):
            raise UserError(
                f"class {name} has too few images to hold out {share:.0%}: add images that are not "
                "equal and not in one sub-folder, or change --held-out"
            )
    return places


def _ties(class_folder: Path, path: Path, image: Image.Image) -> list[str]:
    ties = [f"pixels {hashlib.sha256(image.tobytes()).hexdigest()}"]
    group = path.relative_to(class_folder).parent
    if group.name:
        ties.append(f"folder {class_folder.name}/{group.as_posix()}")
    return ties


def _is_grey(path: Path) -> bool:
    with open_image(path) as image:
        return image.mode in GREYSCALE


def _prepared(path: Path, size: int, grey: bool) -> Image.Image:
    with open_image(path) as image:
        laid = on_white(ImageOps.exif_transpose(image), grey=grey)
    return ImageOps.fit(laid, (size, size), method=Image.Resampling.BOX)
