"""Download a file of known content: resumed after a break, verified before it is used."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pooch
import requests
from filelock import FileLock
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from urllib3.exceptions import HTTPError

from underone.errors import UserError
from underone.files import sha256_of_file

SECONDS_TO_CONNECT, SECONDS_OF_SILENCE = 10, 30
CHUNK = 1 << 16


@dataclass(frozen=True)
class RemoteFile:
    """A file of known size (in bytes) and SHA-256, so that any mirror may serve it."""

    name: str
    size: int
    sha256: str
    mirrors: tuple[str, ...]


def download(file: RemoteFile, folder: Path, by_hand: str) -> Path:
    """The path of the verified file in `folder`; what is there already is not downloaded again.

    Mirrors are tried in order. An interrupted download stays as `NAME.part` and is resumed by the
    next attempt; bytes with the wrong checksum are deleted. Of several processes one downloads, and
    the others wait. If every mirror fails, a `UserError` says why, and `by_hand` how to get the
    file without this download.
    """
    if (present := downloaded(file, folder)) is not None:
        return present
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{file.name}.lock"):
        return _download(file, folder, by_hand)


def downloaded(file: RemoteFile, folder: Path) -> Path | None:
    """The path of the verified file in `folder`; None if it is not there."""
    path = folder / file.name
    return path if path.is_file() and sha256_of_file(path) == file.sha256 else None


def _download(file: RemoteFile, folder: Path, by_hand: str) -> Path:
    part = folder / f"{file.name}.part"

    def resume(url: str, output: str, _: Any) -> None:
        _resume(url, part, file.size)
        part.replace(output)

    failures = []
    for url in file.mirrors:
        try:
            return Path(
                pooch.retrieve(url, f"sha256:{file.sha256}", file.name, folder, downloader=resume)
            )
        except (OSError, HTTPError) as error:
            failures.append(f"{url}: {_reason(error)}")
        except ValueError:  # as pooch reports a wrong checksum
            failures.append(f"{url}: wrong checksum, so the download was deleted")
    kept = f" (a rerun resumes at byte {part.stat().st_size:,})" if part.exists() else ""
    raise UserError(f"cannot download {file.name}{kept}: {'; '.join(failures)}; {by_hand}")


def _resume(url: str, part: Path, size: int) -> None:
    """Bring `part` to at least `size` bytes, or raise `OSError` or `HTTPError`."""
    present = part.stat().st_size if part.exists() else 0
    if present >= size:
        return
    # The bytes must come as stored: a server may declare a .gz file to be encoded content.
    headers = {"Accept-Encoding": "identity", "Range": f"bytes={present}-"}
    timeout = (SECONDS_TO_CONNECT, SECONDS_OF_SILENCE)
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
        response.raise_for_status()
        start = _first_byte(response)
        length = int(response.headers.get("Content-Length", size - start))
        if start > present or start + length != size:
            raise OSError(f"sent bytes {start} to {start + length}, expected {present} to {size}")
        with part.open("ab") as output, _progress() as progress:
            output.truncate(start)
            task = progress.add_task(part.stem, total=size, completed=start)
            for chunk in response.raw.stream(CHUNK, decode_content=False):
                output.write(chunk)
                progress.advance(task, len(chunk))
                if output.tell() >= size:
                    break
    if part.stat().st_size < size:
        raise OSError("the connection closed early")


def _first_byte(response: requests.Response) -> int:
    """Where the response's body starts in the file: a server may ignore the range asked for."""
    if response.status_code != requests.codes.partial_content:
        return 0
    content_range = response.headers.get("Content-Range", "")
    match = re.match(r"bytes (\d+)-", content_range)
    if match is None:
        raise OSError(f"sent a part without saying which (Content-Range: {content_range!r})")
    return int(match[1])


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def _reason(error: Exception) -> str:
    match error:
        case requests.HTTPError(response=requests.Response() as response):
            return f"HTTP {response.status_code} {response.reason}"
        case requests.Timeout():
            return "timed out"
        case requests.ConnectionError():
            return "no connection"
        case HTTPError():
            return "the connection broke"
        case _:
            return str(error)
