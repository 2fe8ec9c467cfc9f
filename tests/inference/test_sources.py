from __future__ import annotations

from pathlib import Path

import pytest

from vistasks.inference.sources import camera_index, is_live, list_pictures, source_folder


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


def test_links_that_lead_round_in_circles_are_not_followed(folder: Path) -> None:
    """Two of them make 2**40 paths for whoever does."""
    for name in ("one", "two"):
        (folder / "deep" / name).symlink_to(folder, target_is_directory=True)
    found = ["a.png", "b.JPG", "deep/c.tif", "deep/out/d.jpg"]
    assert names(list_pictures(folder), folder) == found
    assert names(list_pictures(f"{folder}/**/*"), folder) == found


def test_the_output_within_the_source_is_left_out(folder: Path) -> None:
    assert names(list_pictures(folder, leave_out=folder / "deep" / "out"), folder) == [
        "a.png",
        "b.JPG",
        "deep/c.tif",
    ]


def test_a_file_means_itself_whatever_its_name(folder: Path) -> None:
    assert list_pictures(folder / "notes.txt") == [folder / "notes.txt"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [("*.png", ["a.png"]), ("**/*.jpg", ["deep/out/d.jpg"]), ("[ab].*", ["a.png", "b.JPG"])],
)
def test_a_glob(folder: Path, pattern: str, found: list[str]) -> None:
    assert names(list_pictures(str(folder / pattern)), folder) == found


def test_nothing_there_says_what_was_looked_for(folder: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"none: no such file or folder, and no file matches it as a pattern; .* end in .*\.jpg",
    ):
        list_pictures(folder / "none")
    with pytest.raises(ValueError, match="this pattern matches no picture"):
        list_pictures(str(folder / "*.txt"))
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match="no picture in this folder"):
        list_pictures(folder / "empty")


def test_videos_in_a_folder_without_pictures_are_pointed_at(tmp_path: Path) -> None:
    (tmp_path / "clip.MP4").touch()
    with pytest.raises(
        ValueError,
        match=r"no picture in this folder; .* There are 1 videos; give one by its name, such as .*clip\.MP4",
    ):
        list_pictures(tmp_path)


def test_cameras_and_addresses_are_live_unless_a_file_has_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "7").mkdir()
    sources = [
        "0",
        "/dev/video3",
        "rtsp://x/y",
        "http://x/y.mp4",
        "7",
        "2012",
        "clip.mp4",
        "photos/*.jpg",
        Path("x"),
    ]
    assert [is_live(source) for source in sources] == [
        True,
        True,
        True,
        True,
        False,
        False,
        False,
        False,
        False,
    ]
    assert [camera_index(str(source)) for source in sources[:3]] == [0, 3, None]


def test_hidden_folders_do_not_count(folder: Path) -> None:
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x.png").touch()
    assert ".cache/x.png" not in names(list_pictures(folder), folder)


def test_an_output_above_or_at_the_source_leaves_nothing_out(folder: Path) -> None:
    assert len(list_pictures(folder / "deep", leave_out=folder)) == 2
    assert len(list_pictures(str(folder / "deep" / "*.tif"), leave_out=folder / "deep")) == 1


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("deep", "deep"),
        ("a.png", "."),
        ("*.png", "."),
        ("deep/**/*.jpg", "deep"),
        ("d*/out/d.jpg", "."),
        ("none", "."),
    ],
)
def test_the_folder_of_a_source(folder: Path, source: str, expected: str) -> None:
    assert source_folder(folder / source) == folder / expected


def test_the_folder_of_a_relative_pattern_is_relative() -> None:
    assert (source_folder("*.jpg"), source_folder("a/b*/c.jpg")) == (Path(), Path("a"))
