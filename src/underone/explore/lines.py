"""A job in a thread of its own, as a stream of lines that ends when its reader leaves."""

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
# Seconds between checks that the reader is still there.
_BETWEEN_CHECKS = 0.5
_log = logging.getLogger(__name__)


class _ReaderLeftError(Exception):
    """Nobody reads the messages of a job any more."""


@dataclass(frozen=True, eq=False)
class JobLock:
    """Lets one job run at a time, and ends them all once it is `closed`."""

    closed: Event = field(default_factory=Event)
    _turn: Lock = field(default_factory=Lock)

    @contextmanager
    def held(self, check: Callable[[], object]) -> Iterator[None]:
        """Hold the lock; the wait for it ends where `check` raises."""
        while not self._turn.acquire(timeout=_BETWEEN_CHECKS):
            check()
        try:
            yield
        finally:
            self._turn.release()


def lines(job: Callable[[Tell], object], lock: JobLock) -> Generator[str]:
    """The messages of `job` once it has its turn, a line of JSON each; an "error" is the last.

    Empty lines come between them: writing one fails where the reader has left. Once the generator
    or the lock is closed, the job ends at its next message or evaluation of a network.
    """
    messages: SimpleQueue[Message | None] = SimpleQueue()
    left = Event()

    def check(*_: object) -> None:
        if left.is_set() or lock.closed.is_set():
            raise _ReaderLeftError

    def tell(message: Message) -> None:
        check()
        messages.put(message)

    def run() -> None:
        try:
            with lock.held(check), listen_to_evaluations(check):
                tell({"begun": True})
                job(tell)
        except _ReaderLeftError:
            pass
        except UserError as error:
            messages.put({"error": str(error)})
        except Exception as error:  # a job that fails must not end the page
            _log.exception("a job of the page has failed")
            messages.put({"error": f"this has failed: {kind_and_line(error)}"})
        finally:
            messages.put(None)

    Thread(target=run).start()  # not a daemon: torch aborts if the process ends while it runs
    try:
        while True:
            try:
                message = messages.get(timeout=_BETWEEN_CHECKS)
            except Empty:
                yield "\n"
                continue
            if message is None:
                return
            yield to_json(message) + "\n"
    finally:
        left.set()
