from __future__ import annotations

from pathlib import Path

import pytest

from vistasks.sources import list_pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.png", "deep/c.tif", "deep/out/d.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(paths: list[Path], folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in paths]


def test_a_folder_means_its_pictures_and_those_below(folder: Path) -> None:
    assert names(list_pictures(folder), folder) == ["a.png", "b.JPG", "deep/c.tif", "deep/out/d.jpg"]


def test_the_output_within_the_source_is_left_out(folder: Path) -> None:
    assert names(list_pictures(folder, leave_out=folder / "deep" / "out"), folder) == ["a.png", "b.JPG", "deep/c.tif"]


def test_a_file_means_itself_whatever_its_name(folder: Path) -> None:
    assert list_pictures(folder / "notes.txt") == [folder / "notes.txt"]


@pytest.mark.parametrize(
    ("pattern", "found"), [("*.png", ["a.png"]), ("**/*.jpg", ["deep/out/d.jpg"]), ("[ab].*", ["a.png", "b.JPG"])]
)
def test_a_glob(folder: Path, pattern: str, found: list[str]) -> None:
    assert names(list_pictures(str(folder / pattern)), folder) == found


def test_nothing_there_says_what_was_looked_for(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"none: no such file, folder or pattern that matches a picture; .* end in .*\.jpg"):
        list_pictures(folder / "none")
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match="no picture in this folder"):
        list_pictures(folder / "empty")
