"""Files below a folder, through links that are good and links that are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from vistasks.datasets.files import ImageIndex, files_below


def tree(root: Path) -> Path:
    for name in ("a.png", "one/b.png", "one/two/c.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in files_below(root))


def test_links_to_folders_elsewhere_are_followed(tmp_path: Path) -> None:
    root, other = tree(tmp_path / "root"), tree(tmp_path / "other")
    (root / "link").symlink_to(other, target_is_directory=True)
    (root / "again").symlink_to(root / "one" / "two", target_is_directory=True)
    linked = ["link/a.png", "link/one/b.png", "link/one/two/c.png"]
    assert names(root) == sorted(["a.png", "again/c.png", *linked, "one/b.png", "one/two/c.png"])
    assert len(ImageIndex(root, deep=True)) == 7 and len(ImageIndex(root)) == 1


def test_links_that_loop_are_told_and_passed_over(tmp_path: Path) -> None:
    root = tree(tmp_path)
    for name in ("up", "up_too"):
        (root / "one" / name).symlink_to(root, target_is_directory=True)
    (root / "self").symlink_to(root / "self")
    with pytest.warns(UserWarning, match="a link back to a folder that it lies in") as told:
        assert names(root) == ["a.png", "one/b.png", "one/two/c.png"]
    assert len(told) == 2


def test_links_that_multiply_are_refused(tmp_path: Path) -> None:
    """Each folder has two links to the next: 2**30 ways to the last."""
    for level in range(30):
        (tmp_path / str(level)).mkdir()
        for name in ("left", "right"):
            (tmp_path / str(level) / name).symlink_to(tmp_path / str(level + 1), target_is_directory=True)
    (tmp_path / "30").mkdir()
    with pytest.raises(ValueError, match="more than 16 ways; remove some"):
        list(files_below(tmp_path / "0"))
