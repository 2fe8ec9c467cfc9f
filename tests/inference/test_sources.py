from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from PIL import Image

from tests.inference.video.clips import write_container
from vistasks.inference.sources import Images, ImagesAsVideo, Live, VideoFile, recognise


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.png", "deep/c.tif", "deep/out/d.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def list_pictures(source: str | Path, *, leave_out: Path | None = None) -> list[Path]:
    found = recognise(source, output=leave_out)
    assert isinstance(found, Images)
    return list(found.paths)


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
    with pytest.raises(ValueError, match="this pattern matches no image"):
        list_pictures(str(folder / "*.txt"))
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match="no image in this folder"):
        list_pictures(folder / "empty")


def test_videos_in_a_folder_without_pictures_are_pointed_at(tmp_path: Path) -> None:
    (tmp_path / "clip.MP4").touch()
    with pytest.raises(
        ValueError,
        match=r"no image in this folder; .* There are 1 videos; give one by its name, such as .*clip\.MP4",
    ):
        list_pictures(tmp_path)


def test_cameras_and_addresses_are_live_unless_a_file_has_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "a.png").touch()
    Path("clip.mp4").touch()
    assert recognise("0") == Live("0", 0) and recognise("/dev/video3") == Live("/dev/video3", 3)
    for address in ("rtsp://x/y", "http://x/y.mp4"):
        assert recognise(address) == Live(address, None)
    assert recognise("7") == Images("7", (Path("7/a.png"),), Path("7"))
    assert recognise("clip.mp4") == VideoFile(Path("clip.mp4"))
    for missing in ("2012", "photos/*.jpg", Path("x")):
        with pytest.raises(ValueError, match="no such file"):
            recognise(missing)


def test_hidden_folders_do_not_count(folder: Path) -> None:
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x.png").touch()
    assert ".cache/x.png" not in names(list_pictures(folder), folder)


def test_an_output_above_or_at_the_source_leaves_nothing_out(folder: Path) -> None:
    assert len(list_pictures(folder / "deep", leave_out=folder)) == 2
    assert len(list_pictures(str(folder / "deep" / "*.tif"), leave_out=folder / "deep")) == 1


@pytest.mark.parametrize(
    ("source", "expected"),
    [("deep", "deep"), ("a.png", "."), ("*.png", "."), ("deep/**/*.jpg", "deep"), ("d*/out/d.jpg", ".")],
)
def test_the_folder_of_a_source(folder: Path, source: str, expected: str) -> None:
    found = recognise(folder / source)
    assert isinstance(found, Images) and found.folder == folder / expected


def test_the_folder_of_a_relative_pattern_is_relative(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert [recognise(source).folder for source in ("*.png", "deep/*/d.jpg")] == [Path(), Path("deep")]  # type: ignore[union-attr]


def test_images_at_a_rate_are_a_video(folder: Path) -> None:
    images = recognise(folder)
    assert recognise(folder, frame_rate=12.5) == ImagesAsVideo(images, Fraction(25, 2))  # type: ignore[arg-type]


def test_what_is_left_out_of_a_folder_is_counted(folder: Path) -> None:
    (folder / "clip.mts").touch()
    images = recognise(folder)
    assert isinstance(images, Images)
    assert names(list(images.left_out), folder) == ["clip.mts", "notes.txt"]
    [note] = images.notes
    assert "2 files" in note and "1 .mts" in note and "1 .txt" in note and str(folder / "clip.mts") in note


FORMATS = [
    ("mts", "mpeg2video", "mpegts"),
    ("m2ts", "mpeg2video", "mpegts"), ("vob", "mpeg2video", "vob"),
    ("y4m", "rawvideo", "yuv4mpegpipe"),
    ("h264", "libx264", "h264"), ("nut", "mpeg4", "nut"), ("mxf", "mpeg2video", "mxf"),
    ("asf", "mpeg4", "asf"), ("mkv", "mpeg4", "matroska"),
]  # fmt: skip


@pytest.mark.parametrize(("suffix", "codec", "kind"), FORMATS)
def test_a_video_is_recognised_by_what_it_holds(tmp_path: Path, suffix: str, codec: str, kind: str) -> None:
    path = write_container(tmp_path / f"x.{suffix}", codec, kind)
    for name in (f"clip.{suffix}", "clip.jpg", "clip"):
        (tmp_path / name).write_bytes(path.read_bytes())
        assert recognise(tmp_path / name) == VideoFile(tmp_path / name)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_an_image_is_one_whatever_its_name(tmp_path: Path, kind: str) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "x.mp4", format=kind)
    assert isinstance(recognise(tmp_path / "x.mp4"), Images)
