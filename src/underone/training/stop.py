"""Stopping on request: Ctrl-C and SIGTERM end the run after the update in hand."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any


@dataclass
class StopRequest:
    """The signal that asked to stop, or None."""

    signal: int | None = None


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM into a request; a second one ends the process at once."""
    request = StopRequest()
    previous: dict[signal.Signals, Any] = {}

    def ask(number: int, frame: FrameType | None) -> None:
        request.signal = number
        for which, handler in previous.items():
            signal.signal(which, handler)

    for which in (signal.SIGINT, signal.SIGTERM):
        previous[which] = signal.signal(which, ask)
    try:
        yield request
    finally:
        for which, handler in previous.items():
            signal.signal(which, handler)
