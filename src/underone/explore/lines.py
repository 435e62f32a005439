"""A job in a thread of its own, as a stream of lines that ends where its reader leaves."""

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import Any

from underone.diffusion import listen_to_evaluations
from underone.errors import UserError, kind_and_line
from underone.files import to_json

Message = dict[str, Any]
Tell = Callable[[Message], object]
# Seconds after which one looks up whether anybody is still there.
_GLANCE = 0.5
_log = logging.getLogger(__name__)


class _NobodyReadsError(Exception):
    """Nobody reads what a job tells any more."""


@dataclass(frozen=True, eq=False)
class Desk:
    """Where one job at a time is done, until it is `closed`."""

    closed: Event = field(default_factory=Event)
    _turn: Lock = field(default_factory=Lock)

    @contextmanager
    def turn_unless(self, heed: Callable[[], object]) -> Iterator[None]:
        """Alone at the desk. Who waits heeds whether it is still worth waiting."""
        while not self._turn.acquire(timeout=_GLANCE):
            heed()
        try:
            yield
        finally:
            self._turn.release()


def lines(job: Callable[[Tell], object], desk: Desk) -> Generator[str]:
    """What `job` tells once it has its turn, a line of JSON each; an "error" is the last.

    Empty lines come between, by which a reader that has left is noticed. Where the generator or
    the desk is closed, the job ends: at its next word, or the next evaluation of a network.
    """
    messages: SimpleQueue[Message | None] = SimpleQueue()
    left = Event()

    def heed(*_: object) -> None:
        if left.is_set() or desk.closed.is_set():
            raise _NobodyReadsError

    def tell(message: Message) -> None:
        heed()
        messages.put(message)

    def run() -> None:
        try:
            with desk.turn_unless(heed), listen_to_evaluations(heed):
                tell({"begun": True})
                job(tell)
        except _NobodyReadsError:
            pass
        except UserError as error:
            messages.put({"error": str(error)})
        except Exception as error:  # the page goes on, whatever has happened to one of its jobs
            _log.exception("a job of the page has failed")
            messages.put({"error": f"this has failed: {kind_and_line(error)}"})
        finally:
            messages.put(None)

    Thread(target=run).start()  # no daemon: torch aborts where a process ends under it
    try:
        while True:
            try:
                message = messages.get(timeout=_GLANCE)
            except Empty:
                yield "\n"
                continue
            if message is None:
                return
            yield to_json(message) + "\n"
    finally:
        left.set()
