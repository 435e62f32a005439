"""Counting network evaluations where they happen: at the network itself.

One evaluation is one pass of one network over one image. Guidance, a second network and a
solver's inner calls are thereby counted for what they are, under the name of each network.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

# Called with a network's name and a number of images.
Listener = Callable[[str, int], object]
_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("listeners", default=())


@contextmanager
def listen_to_evaluations(listener: Listener) -> Iterator[None]:
    """Call `listener` at each evaluation in the block, with the network's name and its images.

    An exception that it raises ends the evaluation. Blocks may be nested.
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

    with listen_to_evaluations(count):
        yield counter


def per_image(counter: Mapping[str, int], images: int) -> dict[str, float]:
    """Evaluations per image, by network name, from the counts over `images` images."""
    return {network: total / images for network, total in counter.items()}


def record_evaluations(network: str, images: int) -> None:
    """Tell all listeners that `network` evaluates `images` images."""
    for listener in _listeners.get():
        listener(network, images)
