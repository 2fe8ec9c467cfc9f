"""``vistasks data prepare``: a public data set from its official address into a folder that the readers take
as it is.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from vistasks.datasets.prepare.download import check_sum, download
from vistasks.datasets.prepare.unpack import unpack
from vistasks.datasets.sources import SOURCES, Archive, Source
from vistasks.registry import nearest
from vistasks.system.locks import owned
from vistasks.system.terminal import PlainConsole

MARKER = ".prepared.json"
DOWNLOADS = "downloads"  # inside the data folder; archives that a person fetched elsewhere are put here
_STAGING = ".unpacking"


def prepare(name: str, root: str | Path, *, source_url: str | None = None, progress: bool = True) -> Path:
    """Downloads, checks and unpacks a known data set into ``root``.

    An interrupted call is continued by the next; a finished one is not repeated. The data appear under their
    final names only when everything is unpacked. Archives that this call downloaded are removed at the end.

    Args:
        name: voc2007, voc2012, coco2017, camvid or bccd.
        source_url: a mirror: the archives are fetched from ``source_url/FILE`` instead of the official
            address, and checked against the same sums.
        progress: show bars and say what happens.

    Raises:
        ValueError: unknown name, wrong sum, an archive that would write outside ``root``, or ``root`` holds
            other things under the names of the data.
        ConnectionError: a download failed; says how to put the file there by hand.
    """
    if name not in SOURCES:
        raise ValueError(
            f"unknown data set '{name}'.{nearest(name, list(SOURCES))} Known: {', '.join(SOURCES)}"
        )
    with owned(Path(root)):
        return prepare_source(name, SOURCES[name], Path(root), source_url=source_url, progress=progress)


def prepare_source(
    name: str,
    source: Source,
    root: Path,
    *,
    source_url: str | None = None,
    progress: bool = True,
    wait: float = 2.0,
) -> Path:
    """`prepare` for any `Source`; ``wait`` as in `download`."""
    console = PlainConsole(quiet=not progress)
    say: Callable[[str], None] = lambda text: console.print(text, highlight=False, soft_wrap=True)  # noqa: E731
    if _is_prepared(name, root):
        say(f"{name} is already in {root}; nothing to do (remove {root / MARKER} to prepare it again)")
        return root
    _check_free(root, [Path(path).parts[0] for path in source.expected])
    say(f"{name}: {source.page}; licence: {source.licence}")
    staging = root / _STAGING
    if staging.exists():  # left by a call that was interrupted while unpacking
        shutil.rmtree(staging)
    fetched, checked = [], {}
    try:
        for archive in source.archives:
            path = root / DOWNLOADS / archive.file
            fetched += [path] if _fetch(archive, path, source_url, say, console, wait) else []
            checked[archive.file] = "md5 " + archive.md5 if archive.md5 else "not checked"
    except ConnectionError:
        _remove_if_empty(root / DOWNLOADS, root)  # an empty data folder would look like data
        raise
    for archive in source.archives:
        with _bar(console, f"unpacking {archive.file}") as advance:
            unpack(
                root / DOWNLOADS / archive.file, staging, top=archive.top, only=archive.only, advance=advance
            )
    missing = [path for path in source.expected if not (staging / path).exists()]
    if missing:
        raise ValueError(
            f"{name}: the archives lack {', '.join(missing)}; has the source changed its layout?"
        )
    _move_in(staging, root)
    _write_marker(root, {"name": name, "page": source.page, "licence": source.licence, "archives": checked})
    for path in fetched:
        path.unlink()
    _remove_if_empty(root / DOWNLOADS)
    say(f"{name} is ready in {root}")
    return root


def _fetch(
    archive: Archive,
    path: Path,
    mirror: str | None,
    say: Callable[[str], None],
    console: Console,
    wait: float,
) -> bool:
    """The archive is at ``path``; True if it was downloaded now."""
    url = f"{mirror.rstrip('/')}/{archive.file}" if mirror else archive.url
    if archive.md5 is None:
        say(
            f"not checked: {archive.file} is packed anew for each download, so there is no published sum to compare it with"
        )
    if path.exists():
        say(f"{path} is there already")
        check_sum(path, archive.md5, url=str(path), name=path)
        return False
    with _bar(console, archive.file, total=archive.size) as advance:
        download(url, path, md5=archive.md5, advance=advance, wait=wait)
    return True


@contextmanager
def _bar(
    console: Console, text: str, total: int | None = None
) -> Iterator[Callable[[int, int | None], None]]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(text, total=total)
        yield lambda done, all_: bar.update(task, completed=done, total=all_ or total)


def _is_prepared(name: str, root: Path) -> bool:
    marker = root / MARKER
    if not marker.exists():
        return False
    try:
        there = json.loads(marker.read_text(encoding="utf-8"))["name"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{marker} is not readable ({error}); remove it to prepare {name} again") from error
    if there != name:
        raise ValueError(
            f"{root} holds the data set '{there}', not '{name}'; give another folder with --root"
        )
    return True


def _move_in(staging: Path, root: Path) -> None:
    """The unpacked entries get their final names."""
    entries = sorted(staging.iterdir())
    _check_free(root, [entry.name for entry in entries])
    for entry in entries:
        entry.replace(root / entry.name)
    staging.rmdir()


def _check_free(root: Path, names: Sequence[str]) -> None:
    taken = sorted({name for name in names if (root / name).exists()})
    if taken:
        raise ValueError(
            f"{root} already has {', '.join(taken)}, which did not come from a finished `vistasks data prepare`; nothing was "
            "overwritten. Remove them, or give another folder with --root"
        )


def _remove_if_empty(*folders: Path) -> None:
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _write_marker(root: Path, content: dict[str, object]) -> None:
    temporary = root / (MARKER + ".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    temporary.replace(root / MARKER)
