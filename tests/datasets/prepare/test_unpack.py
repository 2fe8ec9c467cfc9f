"""Archives: what is wanted lands in the folder, what is evil is refused before anything is written."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from functools import partial
from pathlib import Path

import pytest

from vistasks.datasets.prepare.unpack import unpack

FILES = {
    "set-main/BCCD/Annotations/a.xml": b"<a/>",
    "set-main/BCCD/JPEGImages/a.jpg": b"jpg",
    "set-main/README.md": b"text",
}
EVIL_NAMES = (
    "../evil.txt",
    "/tmp/evil.txt",
    "data/../../evil.txt",
    "..\\evil.txt",
    "C:\\evil.txt",
    "C:/evil.txt",
    "\\\\host\\x",
)


def tar_of(path: Path, files: dict[str, bytes], *members: tarfile.TarInfo, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for member in members:
            archive.addfile(member)
    return path


def zip_of(path: Path, files: dict[str, bytes], *, mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return path


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("kind", ["a.tar.gz", "a.zip"])
@pytest.mark.parametrize("parts", [1, 40])
def test_a_small_archive_of_much_is_refused_before_it_is_decompressed(
    tmp_path: Path, kind: str, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"a/{number}": bytes(4_000_000 // parts) for number in range(parts)}
    path = tmp_path / kind
    if kind == "a.zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        tar_of(path, files, mode="w:gz")
    assert path.stat().st_size < 20_000
    monkeypatch.setattr("vistasks.datasets.prepare.unpack._ALWAYS", 3_000_000)
    with pytest.raises(ValueError, match=rf"{kind}: its members are more than .* nothing was unpacked"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr("vistasks.datasets.prepare.unpack._ALWAYS", 5_000_000)
    assert unpack(path, tmp_path / "out") == parts


def test_members_count_even_where_they_are_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vistasks.datasets.prepare.unpack._ALWAYS", 0)
    path = zip_of(tmp_path / "a.zip", {f"a/{number}": b"" for number in range(50)})
    assert unpack(path, tmp_path / "out") == 50
    monkeypatch.setattr("vistasks.datasets.prepare.unpack._OF_A_MEMBER", 10_000)
    with pytest.raises(ValueError, match="its members are more than"):
        unpack(path, tmp_path / "out2")


@pytest.mark.parametrize("kind", ["a.tar", "a.tar.gz", "a.zip"])
def test_all_files(tmp_path: Path, kind: str) -> None:
    make = {"a.tar": tar_of, "a.tar.gz": partial(tar_of, mode="w:gz"), "a.zip": zip_of}[kind]
    archive = make(tmp_path / kind, FILES)
    seen: list[tuple[int, int]] = []
    assert unpack(archive, tmp_path / "out", advance=lambda done, total: seen.append((done, total))) == 3
    assert files_in(tmp_path / "out") == FILES
    assert seen[-1] == (11, 11)


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_top_folder_by_pattern_and_choice(tmp_path: Path, make) -> None:
    archive = make(tmp_path / "archive", FILES)
    unpack(archive, tmp_path / "out", top="*/BCCD")
    assert files_in(tmp_path / "out") == {"Annotations/a.xml": b"<a/>", "JPEGImages/a.jpg": b"jpg"}
    unpack(archive, tmp_path / "less", top="*/BCCD", only=("JPEGImages",))
    assert files_in(tmp_path / "less") == {"JPEGImages/a.jpg": b"jpg"}


@pytest.mark.parametrize("make", [tar_of, zip_of])
@pytest.mark.parametrize("name", EVIL_NAMES)
def test_names_that_leave_the_folder(tmp_path: Path, make, name: str) -> None:
    archive = make(tmp_path / "archive", {"good.txt": b"good", name: b"evil"})
    with pytest.raises(ValueError, match="leaves the data folder; refused, nothing was unpacked") as caught:
        unpack(archive, tmp_path / "out")
    assert name in str(caught.value)
    assert not (tmp_path / "out").exists() and not (tmp_path / "evil.txt").exists()


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (tarfile.SYMTYPE, "symbolic link"),
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.CHRTYPE, "special file"),
        (tarfile.FIFOTYPE, "special file"),
    ],
)
def test_links_and_devices_in_tar(tmp_path: Path, kind: bytes, word: str) -> None:
    member = tarfile.TarInfo("data/link")
    member.type, member.linkname = kind, "../../outside"
    archive = tar_of(tmp_path / "a.tar", {"data/good.txt": b"good"}, member)
    with pytest.raises(ValueError, match=f"'data/link' is a {word}; refused"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("mode", "word"), [(0o120777, "symbolic link"), (0o020666, "special file")])
def test_links_and_devices_in_zip(tmp_path: Path, mode: int, word: str) -> None:
    archive = zip_of(tmp_path / "a.zip", {"data/link": b"../../outside"}, mode=mode)
    with pytest.raises(ValueError, match=f"'data/link' is a {word}; refused"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_link_that_is_not_wanted_is_left_out(tmp_path: Path) -> None:
    member = tarfile.TarInfo("docs/link")
    member.type, member.linkname = tarfile.SYMTYPE, "../data"
    unpack(tar_of(tmp_path / "a.tar", {"data/good.txt": b"good"}, member), tmp_path / "out", top="data")
    assert files_in(tmp_path / "out") == {"good.txt": b"good"}


def test_no_permission_bits_are_taken_over(tmp_path: Path) -> None:
    unpack(zip_of(tmp_path / "a.zip", {"run": b"x"}, mode=0o104777), tmp_path / "out")
    assert (tmp_path / "out" / "run").stat().st_mode & 0o7111 == 0


def test_wrong_top(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"no file lies under 'VOCdevkit/VOC2007' in it; is this the right archive\?"
    ):
        unpack(zip_of(tmp_path / "a.zip", FILES), tmp_path / "out", top="VOCdevkit/VOC2007")


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\x1f\x8b broken"])
def test_no_archive_at_all(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(ValueError, match=r"not a whole tar or zip archive.*remove it and run again"):
        unpack(tmp_path / "a.tar", tmp_path / "out")


def test_damaged_member(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "a.zip", {"a.bin": bytes(range(256)) * 40})
    content = bytearray(archive.read_bytes())
    content[40:60] = bytes(20)
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged at 'a.bin'"):
        unpack(archive, tmp_path / "out")


def test_truncated_tar(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "a.tar", {"a.bin": bytes(100_000), "b.bin": bytes(100_000)})
    archive.write_bytes(archive.read_bytes()[:50_000])
    with pytest.raises(ValueError, match="remove it and run again"):
        unpack(archive, tmp_path / "out")


def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = type("Usage", (), {"free": 1})()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(OSError, match=r"needs 0\.0 GB unpacked, but .* has only 0\.0 GB free"):
        unpack(zip_of(tmp_path / "a.zip", FILES), tmp_path / "out")
