"""tar and zip archives, unpacked so that nothing is written outside one folder."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any

_UNIX_TYPE, _UNIX_LINK, _UNIX_FILE, _UNIX_FOLDER = 0o170000, 0o120000, 0o100000, 0o040000
# what is unpacked is at most so many times as large as the archive (text is 4 to 10 times, pictures once) ...
_LARGEST_SHARE, _ALWAYS, _OF_A_MEMBER = (
    25,
    50_000_000,
    1000,
)  # ... and 50 MB; a member counts 1000 bytes itself
Advance = Callable[[int, int], None]  # (bytes written, bytes in all)
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError)


@dataclass(frozen=True)
class _Member:
    name: str
    kind: str  # "file", "folder", or what else it is
    size: int
    open: Callable[[], IO[bytes] | None]


def unpack(
    archive: Path,
    folder: Path,
    *,
    top: str = "",
    only: tuple[str, ...] = (),
    advance: Advance = lambda *_: None,
) -> int:
    """Writes the files under ``top`` of a tar (plain or compressed) or zip archive into ``folder``, and tells
    how many.

    Args:
        top: a folder inside the archive, left out of the written paths; a part ``*`` of it matches any name.
        only: folders under ``top``; empty = all.
        advance: called with the bytes written and the bytes in all.

    Raises:
        ValueError: a member is absolute or has ``..``, or one to be written is a link or a device, or all of them
            are far larger than the archive (nothing is written then); the archive is damaged or of another
            kind; nothing lies under ``top``.
        OSError: there is not enough room on the disk.
    """
    with _members(archive) as members:
        chosen = []
        for member in members:
            parts = _safe_parts(archive, member)
            inner = _under(parts, PurePosixPath(top).parts)
            if not inner or (only and inner[0] not in only):
                continue
            if member.kind not in ("file", "folder"):
                raise ValueError(
                    f"{archive}: the member '{member.name}' is a {member.kind}; refused, nothing was unpacked"
                )
            if member.kind == "file":
                chosen.append((member, Path(*inner)))
        if not chosen:
            raise ValueError(
                f"{archive}: no file lies under '{top or '.'}' in it; is this the right archive?"
            )
        total = sum(member.size for member, _ in chosen)
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if total > free:
            raise OSError(
                f"{archive}: needs {total / 1e9:.1f} GB unpacked, but {folder} has only {free / 1e9:.1f} GB free"
            )
        _write(archive, folder, chosen, total, advance)
    return len(chosen)


def _write(
    archive: Path, folder: Path, chosen: list[tuple[_Member, Path]], total: int, advance: Advance
) -> None:
    written = 0
    for member, path in chosen:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            source = member.open()
            if source is None:
                raise ValueError(f"{archive}: the member '{member.name}' has no content")
            with source, target.open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
        except (*_DAMAGE, RuntimeError) as error:  # RuntimeError: encrypted, or an unknown compression
            raise ValueError(
                f"{archive}: damaged at '{member.name}': {error}; remove it and run again"
            ) from error
        written += member.size
        advance(written, total)


def _safe_parts(archive: Path, member: _Member) -> tuple[str, ...]:
    name = member.name.replace("\\", "/")
    parts = PurePosixPath(name).parts
    if name.startswith("/") or PureWindowsPath(name).drive or ".." in parts or "\0" in name:
        raise ValueError(
            f"{archive}: the member '{member.name}' leaves the data folder; refused, nothing was unpacked"
        )
    return parts


def _under(parts: tuple[str, ...], top: tuple[str, ...]) -> tuple[str, ...]:
    if len(parts) <= len(top) or not all(fnmatchcase(part, pattern) for part, pattern in zip(parts, top)):
        return ()
    return parts[len(top) :]


@contextmanager
def _members(archive: Path) -> Iterator[list[_Member]]:
    try:
        opened: Any = zipfile.ZipFile(archive) if zipfile.is_zipfile(archive) else tarfile.open(archive)  # noqa: SIM115
    except _DAMAGE as error:
        raise _damaged(archive, error) from error
    with opened:
        try:
            if isinstance(opened, zipfile.ZipFile):
                members = _bounded(archive, (_zip_member(opened, info) for info in opened.infolist()))
            else:  # one after the other: to see the last, all before it must be decompressed
                members = _bounded(archive, (_tar_member(opened, info) for info in opened))
        except _DAMAGE as error:
            raise _damaged(archive, error) from error
        yield members


def _bounded(archive: Path, members: Iterable[_Member]) -> list[_Member]:
    """The members, as long as they may be the content of an archive of this size."""
    limit = _LARGEST_SHARE * archive.stat().st_size + _ALWAYS
    found: list[_Member] = []
    total = 0
    for member in members:
        found.append(member)
        total += member.size + _OF_A_MEMBER
        if total > limit:
            raise ValueError(
                f"{archive}: its members are more than {limit / 1e6:,.0f} MB, over {_LARGEST_SHARE} times its own "
                "size; refused as made to fill the disk, nothing was unpacked"
            )
    return found


def _damaged(archive: Path, error: Exception) -> ValueError:
    reason = str(error).splitlines()[0]  # tarfile lists every compression it tried
    return ValueError(f"{archive}: not a whole tar or zip archive ({reason}); remove it and run again")


def _zip_member(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    mode = (info.external_attr >> 16) & _UNIX_TYPE
    kind = "folder" if info.is_dir() else "file"
    if mode not in (0, _UNIX_FILE, _UNIX_FOLDER):
        kind = "symbolic link" if mode == _UNIX_LINK else "special file"
    return _Member(info.filename, kind, info.file_size, lambda: opened.open(info))


def _tar_member(opened: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    kind = "special file"
    for test, word in (
        (info.issym, "symbolic link"),
        (info.islnk, "hard link"),
        (info.isdir, "folder"),
        (info.isreg, "file"),
    ):
        if test():
            kind = word
            break
    return _Member(info.name, kind, info.size, lambda: opened.extractfile(info))
