from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from tests.inference.video.clips import quarters, write_container
from vistasks.inference.video.reader import VideoReader

CENC = {
    "encryption_scheme": "cenc-aes-ctr",
    "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
    "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
}


@pytest.mark.parametrize(("aspect", "width"), [("4/3", 85), ("1/2", 32), ("1", 64), ("40", 64)])
def test_pixels_become_square(tmp_path: Path, aspect: str, width: int) -> None:
    path = write_container(tmp_path / "a.mkv", aspect=aspect)
    assert {frame.image.shape for frame in VideoReader(path)} == {(48, width, 3)}


def test_the_limit_counts_square_pixels(tmp_path: Path) -> None:
    path = write_container(tmp_path / "a.mkv", aspect="4/3")
    assert len(list(VideoReader(path, max_pixels=85 * 48))) == 20
    with pytest.raises(ValueError, match=f"--max-pixels {85 * 48}"):
        VideoReader(path, max_pixels=85 * 48 - 1)


def test_the_largest_video_stream_is_taken_and_said(tmp_path: Path) -> None:
    reader = VideoReader(write_container(tmp_path / "a.mkv", sizes=((64, 48), (128, 96), (32, 32))))
    assert {frame.image.shape for frame in reader} == {(96, 128, 3)}
    [warning] = reader.warnings
    assert "3 video streams" in warning and "stream 1 (128x96" in warning
    assert not VideoReader(write_container(tmp_path / "b.mkv")).warnings


@pytest.mark.parametrize(
    ("name", "codec", "kind"),
    [("a.mkv", "mpeg4", "matroska"), ("a.ts", "mpeg2video", "mpegts"), ("a.avi", "mpeg4", "avi")],
)
def test_a_short_video_that_is_cut_off_is_said(tmp_path: Path, name: str, codec: str, kind: str) -> None:
    path = write_container(tmp_path / name, codec, kind)
    whole = VideoReader(path)
    assert len(list(whole)) == 20 and not whole.truncated and not whole.warnings
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4 // 188 * 188 + 5])
    cut = VideoReader(path)
    assert 0 < len(list(cut)) < 20 and cut.truncated and cut.warnings


def test_an_mp4_with_its_header_first_that_is_cut_off_is_said(tmp_path: Path) -> None:
    path = write_container(tmp_path / "a.mp4", movflags="faststart")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 40])
    cut = VideoReader(path)
    assert 0 < len(list(cut)) <= 20 and cut.truncated


def test_an_encrypted_video_is_refused(tmp_path: Path) -> None:
    path = write_container(tmp_path / "a.mp4", "libx264", "mp4", **CENC)
    with pytest.raises(ValueError, match=r"a\.mp4: the video is encrypted"):
        VideoReader(path)


def test_scrambled_packets_of_a_transport_stream_are_refused(tmp_path: Path) -> None:
    path = write_container(tmp_path / "a.ts", "mpeg2video", "mpegts")
    data = bytearray(path.read_bytes())
    for at in range(188 * 10, len(data), 188):
        if data[at + 1] & 0x1F == 1 and data[at + 2] == 0:  # FFmpeg's first stream has the number 256
            data[at + 3] |= 0x80
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.ts: the video is encrypted"):
        VideoReader(path)


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=44100, layout="mono")
        cover = container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(quarters(), format="rgb24")))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 44100
        container.mux(sound.encode(silence))
        container.mux([*sound.encode(None), *cover.encode(None)])
    with pytest.raises(ValueError, match=r"a\.mp4: there is no video in this file"):
        VideoReader(tmp_path / "a.mp4")
