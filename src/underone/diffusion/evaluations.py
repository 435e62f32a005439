"""Counting network evaluations where they happen: at the network itself.

One evaluation is one pass of one network over one image. Guidance, a second network and a
solver's inner calls are thereby counted for what they are, under the name of each network.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

# Told a network's name, and of how many images.
Listener = Callable[[str, int], object]
_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("listeners", default=())


@contextmanager
def heard_evaluations(listener: Listener) -> Iterator[None]:
    """Tell `listener` the network's name and the number of images at each evaluation inside.

    What it raises ends the evaluation. Blocks may be nested.
    """
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)


@contextmanager
def count_evaluations() -> Iterator[Counter[str]]:
    """Count the evaluations made inside the block, by network name."""
    counter: Counter[str] = Counter()

    def count(network: str, images: int) -> None:
        counter[network] += images

    with heard_evaluations(count):
        yield counter


def per_image(counter: Mapping[str, int], images: int) -> dict[str, float]:
    """The evaluations an image, by network name, of what was counted over so many images."""
    return {network: total / images for network, total in counter.items()}


def record_evaluations(network: str, images: int) -> None:
    """Say that `network` is shown `images` images, to all who listen."""
    for listener in _listeners.get():
        listener(network, images)
