"""One file over HTTP: streamed to ``NAME.part``, resumed where it stopped, renamed when whole and checked."""

from __future__ import annotations

import hashlib
import http.client
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHUNK = 1 << 18  # bytes
Advance = Callable[[int, "int | None"], None]  # (bytes there, bytes in all or None)
_AGENT = {"User-Agent": "vistasks"}  # some servers turn Python's own name away


class Interrupted(ConnectionError):
    """The connection ended before the file did."""


def download(
    url: str,
    target: Path,
    *,
    md5: str | None = None,
    attempts: int = 5,
    wait: float = 2.0,
    advance: Advance = lambda *_: None,
) -> None:
    """Fetches ``url`` into ``target``.

    What an earlier call left in ``target.part`` is continued with an HTTP Range request; a server that does
    not know Range sends the whole file again. A connection that breaks is tried again until ``attempts`` in a
    row have brought nothing new, after ``wait`` seconds, twice as long each time. An unknown host or an
    answer such as 404 ends it at once.

    Args:
        md5: the published sum (hexadecimal), or None where there is none.
        advance: called with the bytes that are there and the bytes in all.

    Raises:
        ConnectionError: no connection, or an answer such as 404; the message names the address and where to
            put the file by hand.
        ValueError: the sum differs; the file is kept as ``target.bad``.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url}: expected an address that begins with http:// or https://")
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    attempt = 0
    while True:
        before = _size(part)
        try:
            _continue(url, part, advance)
            break
        except (OSError, http.client.HTTPException) as error:
            attempt = 1 if _size(part) > before else attempt + 1
            if _is_final(error) or attempt >= attempts:
                raise ConnectionError(_by_hand(url, target, part, error)) from error
            time.sleep(wait * 2 ** (attempt - 1))
    check_sum(part, md5, url=url, name=target)
    part.replace(target)


def check_sum(path: Path, md5: str | None, *, url: str, name: Path) -> None:
    """A ``ValueError`` if the file's MD5 is not ``md5``; the file is then renamed to ``name.bad``."""
    if md5 is None:
        return
    found = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            found.update(chunk)
    if found.hexdigest() != md5:
        bad = name.with_name(name.name + ".bad")
        path.replace(bad)
        raise ValueError(
            f"{url}: the file's MD5 is {found.hexdigest()}, but {md5} is published. It is kept as {bad} for a look and not used; "
            "run the command again to download it anew"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _is_final(error: Exception) -> bool:
    if isinstance(error, urllib.error.HTTPError):
        return error.code < 500
    return isinstance(error, urllib.error.URLError) and isinstance(error.reason, socket.gaierror)


def _continue(url: str, part: Path, advance: Advance) -> None:
    there = _size(part)
    request = urllib.request.Request(
        url, headers={**_AGENT, **({"Range": f"bytes={there}-"} if there else {})}
    )
    try:
        response = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not there:  # 416: nothing after byte `there`
            raise
        error.close()
        if error.headers.get("Content-Range", "").endswith(f"/{there}"):
            return  # it was whole already
        part.unlink()
        raise Interrupted(f"{part} was longer than the file; starting again") from error
    with response:
        resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(
            f"bytes {there}-"
        )
        if not resumed:
            there = 0
        length = response.headers.get("Content-Length")
        total = there + int(length) if length is not None else None
        with part.open("ab" if resumed else "wb") as file:
            _copy(response, file, there, total, advance)


def _copy(response: Any, file: Any, there: int, total: int | None, advance: Advance) -> None:
    advance(there, total)
    while chunk := response.read(CHUNK):
        file.write(chunk)
        there += len(chunk)
        advance(there, total)
    if total is not None and there < total:  # http.client says nothing about a connection that ends early
        raise Interrupted(f"the connection ended after {there:,} of {total:,} bytes")


def _by_hand(url: str, target: Path, part: Path, error: Exception) -> str:
    kept = f" What has come is kept in {part}; the same command continues there." if part.exists() else ""
    return (
        f"{url} could not be downloaded: {error}.{kept} Without a connection: fetch the file elsewhere, "
        f"put it at {target.absolute()} and run the same command again"
    )
