import hashlib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from underone.data.download import RemoteFile, download
from underone.errors import UserError

CONTENT = np.random.default_rng(0).bytes(300_000)
BREAK = 120_000
BY_HAND = "or get it by hand"


@dataclass
class Behaviour:
    """How one path of the server answers, what it sent, and the `Range` headers it got."""

    content: bytes = CONTENT
    honours_range: bool = True
    breaks_after: int | None = None
    encoding: str | None = None
    declares_length: bool = True
    shift: int = 0
    sent: int = 0
    ranges: list[str | None] = field(default_factory=list)


def batched(data: bytes) -> Iterator[bytes]:
    return (data[start : start + 65_536] for start in range(0, len(data), 65_536))


class Handler(BaseHTTPRequestHandler):
    behaviours: dict[str, Behaviour]

    def do_GET(self) -> None:
        behaviour = self.behaviours.get(self.path)
        if behaviour is None:
            self.send_error(404)
            return
        asked = self.headers["Range"]
        behaviour.ranges.append(asked)
        start = 0
        if asked is not None and behaviour.honours_range:
            start = int(asked.removeprefix("bytes=").split("-")[0]) + behaviour.shift
            if start >= len(behaviour.content):
                self.send_error(416)
                return
            self.send_response(206)
            end = len(behaviour.content) - 1
            self.send_header("Content-Range", f"bytes {start}-{end}/{end + 1}")
        else:
            self.send_response(200)
        body = behaviour.content[start:]
        if behaviour.declares_length:
            self.send_header("Content-Length", str(len(body)))
        if behaviour.encoding is not None:
            self.send_header("Content-Encoding", behaviour.encoding)
        self.end_headers()
        self.close_connection = True
        for chunk in batched(body[: behaviour.breaks_after]):
            try:
                self.wfile.write(chunk)
            except ConnectionError:
                return
            behaviour.sent += len(chunk)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@dataclass
class Server:
    address: str
    behaviours: dict[str, Behaviour]

    def serve(self, behaviour: Behaviour) -> str:
        """The URL that behaves so."""
        path = f"/{len(self.behaviours)}/file.bin"
        self.behaviours[path] = behaviour
        return self.address + path


@pytest.fixture
def server() -> Iterator[Server]:
    behaviours: dict[str, Behaviour] = {}
    handler = type("BoundHandler", (Handler,), {"behaviours": behaviours})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield Server(f"http://127.0.0.1:{http.server_port}", behaviours)
        http.shutdown()
        thread.join()


def remote(*mirrors: str) -> RemoteFile:
    return RemoteFile("file.bin", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), mirrors)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("[!.]*"))  # the lock may stay


def test_what_is_there_is_read_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file.bin").write_bytes(CONTENT)

    def no_lock(path: Path) -> None:
        raise PermissionError(path)

    monkeypatch.setattr("underone.data.download.FileLock", no_lock)
    assert download(remote("http://127.0.0.1:9/"), tmp_path, BY_HAND) == tmp_path / "file.bin"


def test_of_two_at_once_one_downloads_and_the_other_waits(server: Server, tmp_path: Path) -> None:
    behaviour = Behaviour()
    file = remote(server.serve(behaviour))
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: download(file, tmp_path / "new", BY_HAND), range(4)))
    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert behaviour.sent == len(CONTENT)


def test_a_file_is_downloaded_once(server: Server, tmp_path: Path) -> None:
    behaviour = Behaviour()
    file = remote(server.serve(behaviour))
    for _ in range(2):
        assert download(file, tmp_path / "cache", BY_HAND).read_bytes() == CONTENT
    assert len(behaviour.ranges) == 1
    assert names(tmp_path / "cache") == ["file.bin"]


def test_a_broken_download_goes_on_where_it_broke(server: Server, tmp_path: Path) -> None:
    behaviour = Behaviour(breaks_after=BREAK)
    file = remote(server.serve(behaviour))
    with pytest.raises(UserError, match=r"a rerun resumes at byte 120,000.*by hand"):
        download(file, tmp_path, BY_HAND)
    assert names(tmp_path) == ["file.bin.part"]
    behaviour.breaks_after = None
    assert download(file, tmp_path, BY_HAND).read_bytes() == CONTENT
    assert behaviour.ranges == ["bytes=0-", "bytes=120000-"]
    assert names(tmp_path) == ["file.bin"]


def test_a_server_that_ignores_ranges_corrupts_nothing(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:BREAK])
    behaviour = Behaviour(honours_range=False)
    path = download(remote(server.serve(behaviour)), tmp_path, BY_HAND)
    assert path.read_bytes() == CONTENT
    assert behaviour.ranges == ["bytes=120000-"]


def test_a_server_that_begins_earlier_than_asked_corrupts_nothing(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:BREAK])
    path = download(remote(server.serve(Behaviour(shift=-1000))), tmp_path, BY_HAND)
    assert path.read_bytes() == CONTENT


def test_a_server_that_leaves_a_gap_is_passed_over(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:BREAK])
    other = Behaviour()
    file = remote(server.serve(Behaviour(shift=1000)), server.serve(other))
    assert download(file, tmp_path, BY_HAND).read_bytes() == CONTENT
    assert other.ranges == ["bytes=120000-"]


def test_the_next_mirror_goes_on_where_one_broke(server: Server, tmp_path: Path) -> None:
    first, second = Behaviour(breaks_after=BREAK), Behaviour()
    file = remote(f"{server.address}/absent", server.serve(first), server.serve(second))
    assert download(file, tmp_path, BY_HAND).read_bytes() == CONTENT
    assert second.ranges == ["bytes=120000-"]


def test_a_wrong_checksum_deletes_the_part_and_says_so(server: Server, tmp_path: Path) -> None:
    url = server.serve(Behaviour(content=bytes(len(CONTENT))))
    with pytest.raises(UserError, match=f"{url}: wrong checksum, so the download was deleted"):
        download(remote(url), tmp_path, BY_HAND)
    assert names(tmp_path) == []


def test_a_spoilt_part_is_deleted_and_the_next_mirror_starts_over(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "file.bin.part").write_bytes(bytes(BREAK))
    first, second = Behaviour(), Behaviour()
    file = remote(server.serve(first), server.serve(second))
    assert download(file, tmp_path, BY_HAND).read_bytes() == CONTENT
    assert second.ranges == ["bytes=0-"]


@pytest.mark.parametrize("content", [b"<html>log in first</html>", CONTENT + b"more"])
def test_a_file_of_another_size_is_refused_unread(
    server: Server, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:BREAK])
    url = server.serve(Behaviour(content=content, honours_range=False))
    with pytest.raises(UserError, match=f"sent bytes 0 to {len(content)}, expected .* to 300000"):
        download(remote(url), tmp_path, BY_HAND)
    assert (tmp_path / "file.bin.part").read_bytes() == CONTENT[:BREAK]


def test_a_server_that_declares_no_length_is_read_no_further_than_the_size(
    server: Server, tmp_path: Path
) -> None:
    endless = Behaviour(content=CONTENT + bytes(50_000_000), declares_length=False)
    with pytest.raises(UserError, match="wrong checksum"):
        download(remote(server.serve(endless)), tmp_path, BY_HAND)
    assert endless.sent < 50_000_000
    short = Behaviour(content=CONTENT[:BREAK], declares_length=False)
    with pytest.raises(UserError, match="closed early"):
        download(remote(server.serve(short)), tmp_path, BY_HAND)


def test_bytes_come_as_stored_whatever_encoding_the_server_claims(
    server: Server, tmp_path: Path
) -> None:
    path = download(remote(server.serve(Behaviour(encoding="gzip"))), tmp_path, BY_HAND)
    assert path.read_bytes() == CONTENT


def test_a_damaged_file_in_the_cache_is_downloaded_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(CONTENT[:-1])
    path = download(remote(server.serve(Behaviour())), tmp_path, BY_HAND)
    assert path.read_bytes() == CONTENT


def test_without_a_network_one_line_says_how_to_go_on(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/file.bin"
        with pytest.raises(UserError) as caught:
            download(remote(url), tmp_path, BY_HAND)
    assert str(caught.value) == (
        f"cannot download file.bin: {url}: no connection; or get it by hand"
    )


def test_every_mirror_that_failed_is_named(server: Server, tmp_path: Path) -> None:
    urls = [f"{server.address}/a", f"{server.address}/b"]
    with pytest.raises(UserError, match=r"/a: HTTP 404 Not Found; .*/b: HTTP 404 Not Found"):
        download(remote(*urls), tmp_path, BY_HAND)
