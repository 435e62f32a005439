"""An extractor by its name: shipped, a checkpoint folder, another package's, or any function."""

from collections.abc import Callable, Mapping
from pathlib import Path

from underone.adapters.function import function_extractor
from underone.adapters.inception import inception_extractor
from underone.adapters.pretrained import timm_extractor, transformers_extractor
from underone.errors import UserError
from underone.metrics import Extractor, Reference
from underone.modules import refuse_code
from underone.zoo import load_extractor

# The part before the colon, and what makes an extractor of the rest of the name.
ADAPTERS: Mapping[str, Callable[[str], Extractor]] = {
    "torch-fidelity": inception_extractor,
    "timm": timm_extractor,
    "transformers": transformers_extractor,
}


def find_extractor(name: str) -> Extractor:
    """The extractor that is called `name`; anything else is a `UserError`.

    - a shipped classifier or encoder, or a checkpoint folder
    - "torch-fidelity:FILE": its Inception, with the weights in FILE
    - "timm:MODEL" or "timm:MODEL:FILE": a timm backbone, with its own or FILE's weights
    - "transformers:FOLDER": a transformers vision backbone that save_pretrained has written
    - "module:function": a function of uint8 images (B, C, H, W) that returns features (B, D)
    """
    kind, colon, rest = name.partition(":")
    if not colon or Path(name).is_dir():
        return load_extractor(name)
    return ADAPTERS[kind](rest) if kind in ADAPTERS else function_extractor(kind, rest)


def extractor_of(reference: Reference) -> Extractor:
    """The extractor that a reference was made with; a `UserError` if it is not found any more.

    A function in a module is run only if the user has named it too (see `modules`).
    """
    name = reference.origin.extractor
    if name.partition(":")[0] not in ADAPTERS:
        refuse_code(name, f"reference {reference.name}")
    try:
        return find_extractor(name)
    except UserError as error:
        raise UserError(
            f"reference {reference.name} was made with the extractor {name}, which is not found "
            f"here ({error}): run where it is, or build the reference again"
        ) from None
