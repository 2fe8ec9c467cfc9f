"""Folders, list files and names from annotations -> paths that exist and lie inside the data root."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from vistasks.datasets.images import IMAGE_SUFFIXES
from vistasks.registry import nearest

_MOST_WAYS = 16  # in which links may lead to one folder
# the sets that `vistasks data prepare` knows
PREPARED = ("bccd", "camvid", "coco2017", "voc2007", "voc2012")


def existing_root(root: str) -> Path:
    """``root`` as a path; a ``FileNotFoundError`` with the whole path and the command that fetches a set if
    missing.
    """
    path = Path(root)
    if not path.is_dir():
        name = path.name if path.name in PREPARED else f"NAME (one of {', '.join(PREPARED)})"
        raise FileNotFoundError(
            f"the data folder {path.absolute()} does not exist (relative paths start from the folder the command runs in). "
            f"Give data.root=FOLDER, or fetch a known set: vistasks data prepare {name}"
        )
    return path


def existing_folder(root: Path, name: str, option: str) -> Path:
    """``root/name``; a ``FileNotFoundError`` that names the option and the folders that are there."""
    path = root / name
    if not path.is_dir():
        there = sorted(child.name for child in root.iterdir() if child.is_dir())
        raise FileNotFoundError(
            f"{option}: there is no folder {path.absolute()}.{nearest(name, there)} "
            f"Folders in {root}: {', '.join(there) or 'none'}"
        )
    return path


def existing_file(root: Path, name: str, option: str) -> Path:
    """``root/name``; a ``FileNotFoundError`` that names the option and the files that are there."""
    path = root / name
    if not path.is_file():
        folder = path.parent if path.parent.is_dir() else root
        there = sorted(child.name for child in folder.iterdir() if child.is_file())
        shown = ", ".join(there[:10]) + (", ..." if len(there) > 10 else "")
        raise FileNotFoundError(
            f"{option}: there is no file {path.absolute()}.{nearest(path.name, there)} Files in {folder}: {shown or 'none'}"
        )
    return path


def fill_split(names: dict[str, str | None], split: str | None) -> dict[str, str | None]:
    """``{split}`` replaced in the values; a ``ValueError`` if only one side of the two, ``{split}`` and
    ``split``, is there.
    """
    used = [option for option, value in names.items() if value is not None and "{split}" in value]
    if used and split is None:
        raise ValueError(f"split is missing: {', '.join(used)} needs a value for {{split}}")
    if split is not None and not used:
        given = ", ".join(f"{option}: {value}" for option, value in names.items() if value is not None)
        raise ValueError(f"split: {split} has no effect, since {{split}} is in none of: {given}")
    return {
        option: None if value is None else value.replace("{split}", split or "")
        for option, value in names.items()
    }


def inside(root: Path, folder: Path, name: str, *, source: str) -> Path:
    """``folder/name`` for a ``name`` that a file gives; a ``ValueError`` if it points outside ``root``.

    Judged by the text alone (absolute paths of any system, drives, ``..``), so that links which the user put
    inside the root on purpose work. Backslashes count as separators."""
    plain = name.replace("\\", "/")
    base, target = (Path(os.path.normpath(path.absolute())) for path in (root, folder / plain))
    foreign = plain.startswith("/") or bool(PureWindowsPath(plain).drive) or "\0" in plain or not plain
    if foreign or not target.is_relative_to(base):
        raise ValueError(f"{source}: the file name {name!r} points outside the data folder {root}; refused")
    return folder / plain


class ImageIndex:
    """The image files under a folder by their path without suffix, read from the folder once."""

    def __init__(self, folder: Path, *, deep: bool = False, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> None:
        self.folder = folder
        allowed = frozenset(suffixes)
        self._by_stem: dict[str, list[Path]] = {}
        for path in sorted(_walk(folder, deep)):
            if path.suffix.lower() in allowed:
                self._by_stem.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_stem)

    def __len__(self) -> int:
        return len(self._by_stem)

    def find(self, name: str) -> Path | None:
        """The file called ``name``, with or without its suffix; None if there is none.

        Several files that differ in the suffix only are a ``ValueError`` unless ``name`` has one of theirs.
        """
        found = self._by_stem.get(name, [])
        stem = without_image_suffix(name)
        if not found and stem != name:
            found = self._by_stem.get(stem, [])
            exact = [path for path in found if path.name.endswith(name[len(stem) :])]
            found = exact or found
        if len(found) > 1:
            raise ValueError(
                f"{self.folder}: '{name}' may mean {' or '.join(path.name for path in found)}; remove all but one"
            )
        return found[0] if found else None


def _walk(folder: Path, deep: bool) -> Iterable[Path]:
    return files_below(folder) if deep else _entries(folder)[0]


def files_below(folder: Path) -> Iterator[Path]:
    """Every file in a folder and its subfolders, those behind links too.

    A link back to a folder that it lies in is passed over with a warning. Links that lead to one folder in many
    ways, which multiply from folder to folder, are a ``ValueError``.
    """
    ways: Counter[tuple[int, int]] = Counter()
    left: list[tuple[Path, frozenset[tuple[int, int]]]] = [(folder, frozenset())]
    while left:
        path, above = left.pop()
        status = path.stat()
        own = status.st_dev, status.st_ino
        if own in above:
            warnings.warn(f"{path}: a link back to a folder that it lies in; passed over", stacklevel=2)
            continue
        ways[own] += 1
        if ways[own] > _MOST_WAYS:
            raise ValueError(f"{path}: links lead to this folder in more than {_MOST_WAYS} ways; remove some")
        files, folders = _entries(path)
        yield from files
        left += [(inner, above | {own}) for inner in folders]


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files and the folders in a folder, not below."""
    files, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # a link that leads to itself
                if entry.is_dir():
                    folders.append(Path(entry.path))
                elif entry.is_file():
                    files.append(Path(entry.path))
    return files, folders


def without_image_suffix(name: str) -> str:
    """``name`` less its image suffix, if it has one: what list files write with or without."""
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in IMAGE_SUFFIXES else name


def read_list(path: Path) -> list[str]:
    """The lines of a list file, stripped, empty ones left out; an empty list or a name that comes twice is a
    ``ValueError``.
    """
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a UTF-8 text file ({error})") from error
    if not names:
        raise ValueError(f"{path}: the list is empty; expected one image name per line")
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(
            f"{path}: '{double}' is listed {names.count(double)} times; duplicate entries are not allowed"
        )
    return names
