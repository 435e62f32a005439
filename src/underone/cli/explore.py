"""`underone explore`."""

import socket
import webbrowser
from ipaddress import ip_address
from pathlib import Path

import click
import torch

from underone.cli.console import note
from underone.cli.options import device_option, precision_option
from underone.cli.preflight import announce_revision
from underone.errors import UserError
from underone.generation import Precision

_LOCAL = "localhost"


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--sampler", "samplers", multiple=True, help="A sampler of your own to offer too.")
@click.option("--grid", "grids", multiple=True, help="A grid of your own to offer too.")
@click.option("--reference", help="What to measure against. [default: the model's data set]")
@click.option(
    "--study",
    "studies",
    multiple=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder of a study, whose figures are shown beside their settings.",
)
@precision_option
@device_option
@click.option("--host", default="127.0.0.1", help="The address to listen at; 0.0.0.0 for all.")
@click.option("--port", default=7860, type=click.IntRange(0, 65535), help="0: any free one.")
@click.option("--open", "opens", is_flag=True, help="Open the page in a browser.")
def explore(
    models: tuple[str, ...],
    samplers: tuple[str, ...],
    grids: tuple[str, ...],
    reference: str | None,
    studies: tuple[Path, ...],
    precision: Precision,
    device: torch.device,
    host: str,
    port: int,
    opens: bool,
) -> None:
    """Try settings of MODELs live on a web page, two side by side, from the same noise.

    Without MODEL, all shipped models are offered. Ctrl-C ends it.
    """
    # The other commands need not wait for a web server.
    from underone.explore.offer import Offer
    from underone.explore.server import server

    offer = Offer.of(models, samplers, grids, reference, precision, studies, device)
    for model in offer.models.values():
        announce_revision(model)
    serving = server(offer, _names(host))
    listening = _listening(host, port)
    address = f"http://{_shown(host)}:{listening.getsockname()[1]}"
    note(f"{address}: open it in a browser. Ctrl-C ends it.")
    if opens:
        webbrowser.open(address)
    serving.run(sockets=[listening])


def _names(host: str) -> tuple[str, ...]:
    """The names that the page's host may have: if it is local, this machine's; else any."""
    try:
        alone = ip_address(host).is_loopback
    except ValueError:
        alone = host.lower() == _LOCAL
    return (_LOCAL, "127.0.0.1", "[::1]", _shown(host).lower()) if alone else ("*",)


def _listening(host: str, port: int) -> socket.socket:
    """A socket bound to that address; a `UserError` where that is not possible."""
    try:
        if not host:
            raise OSError(0, "no address")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, TypeError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise UserError(
            f"nothing can listen at {host!r}, port {port}: {reason}: choose another --port, or "
            "--host"
        ) from None


def _shown(host: str) -> str:
    if host == "0.0.0.0":  # noqa: S104
        return _LOCAL
    return f"[{host}]" if ":" in host else host
