"""The web server of the page."""

import logging
from collections.abc import Sequence
from types import FrameType

import uvicorn

from underone.explore.application import application
from underone.explore.lines import JobLock
from underone.explore.offer import Offer

# Seconds that the current step may still take once the server is stopped.
_GRACE = 10


def server(offer: Offer, hosts: Sequence[str]) -> uvicorn.Server:
    """The page's server, to be run with the sockets that it is to serve; see `application`."""
    lock = JobLock()
    config = uvicorn.Config(
        application(offer, lock, hosts),
        log_level=logging.WARNING,
        timeout_graceful_shutdown=_GRACE,
    )
    return _Server(config, lock)


class _Server(uvicorn.Server):
    """A server whose jobs end with it."""

    def __init__(self, config: uvicorn.Config, lock: JobLock) -> None:
        super().__init__(config)
        self._lock = lock

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._lock.closed.set()
        super().handle_exit(sig, frame)
