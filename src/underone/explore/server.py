"""The web server of the page."""

import logging
from collections.abc import Sequence
from types import FrameType

import uvicorn

from underone.explore.application import application
from underone.explore.lines import Desk
from underone.explore.offer import Offer

# Seconds that the step in hand may take when the end has come.
_GRACE = 10


def server(offer: Offer, hosts: Sequence[str]) -> uvicorn.Server:
    """The page's server, to be run with the sockets it is to answer; see `application`."""
    desk = Desk()
    config = uvicorn.Config(
        application(offer, desk, hosts),
        log_level=logging.WARNING,
        timeout_graceful_shutdown=_GRACE,
    )
    return _Server(config, desk)


class _Server(uvicorn.Server):
    """A server whose jobs end with it."""

    def __init__(self, config: uvicorn.Config, desk: Desk) -> None:
        super().__init__(config)
        self._desk = desk

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._desk.closed.set()
        super().handle_exit(sig, frame)
