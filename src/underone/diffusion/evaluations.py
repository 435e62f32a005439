"""Counting network evaluations where they happen: at the network itself.

One evaluation is one pass of one network over one image. Guidance, a second network and a
solver's inner calls are thereby counted for what they are, under the name of each network.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_counters: ContextVar[tuple[Counter[str], ...]] = ContextVar("counters", default=())


@contextmanager
def count_evaluations() -> Iterator[Counter[str]]:
    """Count the evaluations made inside the block, by network name. Blocks may be nested."""
    counter: Counter[str] = Counter()
    token = _counters.set((*_counters.get(), counter))
    try:
        yield counter
    finally:
        _counters.reset(token)


def record_evaluations(network: str, images: int) -> None:
    """Tell every open count that `network` has just seen `images` images."""
    for counter in _counters.get():
        counter[network] += images
