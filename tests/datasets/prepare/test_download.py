"""Downloads from a local server: resumed, restarted, checked, and what the errors say."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.datasets.prepare.file_server import FileServer, serving
from vistasks.datasets.prepare.download import download

CONTENT = np.random.default_rng(0).bytes(1_000_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving({"set.tar": CONTENT}) as running:
        yield running


def test_whole_file_with_progress(server: FileServer, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    target = tmp_path / "deep" / "set.tar"
    download(f"{server.url}/set.tar", target, md5=MD5, advance=lambda done, total: seen.append((done, total)))
    assert target.read_bytes() == CONTENT
    assert seen[0] == (0, len(CONTENT)) and seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert list(target.parent.iterdir()) == [target]


def test_a_broken_connection_is_resumed_within_one_call(server: FileServer, tmp_path: Path) -> None:
    server.cut, server.cuts = 300_000, 2
    download(f"{server.url}/set.tar", tmp_path / "set.tar", md5=MD5, wait=0)
    assert [wanted for _, wanted in server.requests] == [None, "bytes=300000-", "bytes=600000-"]
    assert (tmp_path / "set.tar").read_bytes() == CONTENT


def test_a_later_call_goes_on_from_the_part_file(server: FileServer, tmp_path: Path) -> None:
    server.cut, server.cuts = 400_000, 1
    with pytest.raises(
        ConnectionError, match=r"400,000 of 1,000,000 bytes.*the same command continues there"
    ):
        download(f"{server.url}/set.tar", tmp_path / "set.tar", md5=MD5, attempts=1)
    assert not (tmp_path / "set.tar").exists()
    assert (tmp_path / "set.tar.part").stat().st_size == 400_000
    download(f"{server.url}/set.tar", tmp_path / "set.tar", md5=MD5, attempts=1)
    assert server.requests[-1] == ("set.tar", "bytes=400000-")
    assert (tmp_path / "set.tar").read_bytes() == CONTENT


def test_a_server_without_range_sends_all_again(server: FileServer, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "set.tar.part").write_bytes(b"half of something else")
    download(f"{server.url}/set.tar", tmp_path / "set.tar", md5=MD5)
    assert (tmp_path / "set.tar").read_bytes() == CONTENT


def test_a_whole_part_file_is_taken(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "set.tar.part").write_bytes(CONTENT)
    download(f"{server.url}/set.tar", tmp_path / "set.tar", md5=MD5)
    assert (tmp_path / "set.tar").read_bytes() == CONTENT


def test_a_part_file_that_is_too_long_is_thrown_away(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "set.tar.part").write_bytes(CONTENT + b"more")
    download(f"{server.url}/set.tar", tmp_path / "set.tar", md5=MD5, wait=0)
    assert (tmp_path / "set.tar").read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(server: FileServer, tmp_path: Path) -> None:
    server.failures = 2
    download(f"{server.url}/set.tar", tmp_path / "set.tar", md5=MD5, wait=0)
    assert len(server.requests) == 3


def test_wrong_sum(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=f"MD5 is {MD5}, but {'0' * 32} is published.*set.tar.bad.*run the command again"
    ):
        download(f"{server.url}/set.tar", tmp_path / "set.tar", md5="0" * 32)
    assert [path.name for path in tmp_path.iterdir()] == ["set.tar.bad"]


def test_attempts_are_counted_from_the_last_progress(server: FileServer, tmp_path: Path) -> None:
    server.cut, server.cuts = 100_000, 8
    download(f"{server.url}/set.tar", tmp_path / "set.tar", md5=MD5, attempts=2, wait=0)
    assert len(server.requests) == 9
    server.failures = 2
    with pytest.raises(ConnectionError, match="503"):
        download(f"{server.url}/set.tar", tmp_path / "other", md5=MD5, attempts=2, wait=0)


def test_an_unknown_host_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []

    def unknown(*arguments: object, **_: object) -> None:
        calls.append(arguments)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ConnectionError, match="Name or service not known"):
        download("http://nowhere.invalid/set.tar", tmp_path / "set.tar")
    assert len(calls) == 1


def test_missing_file_is_not_asked_for_again(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match=r"other.tar could not be downloaded: HTTP Error 404"):
        download(f"{server.url}/other.tar", tmp_path / "other.tar")
    assert len(server.requests) == 1


def test_no_connection_says_how_to_place_the_file_by_hand(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/set.tar"
    with pytest.raises(
        ConnectionError, match=f"{url} could not be downloaded.*put it at {tmp_path / 'set.tar'}"
    ):
        download(url, tmp_path / "set.tar", attempts=2, wait=0)


def test_only_http(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="begins with http"):
        download("file:///etc/hostname", tmp_path / "x")
