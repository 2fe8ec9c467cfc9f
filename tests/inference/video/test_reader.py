from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.inference.video.clips import BLUE, GREEN, GREY, RED, number_of, quarters, turned, write_numbered
from tests.paths import shared
from vistasks.inference.video.reader import VideoReader
from vistasks.inference.video.sinks import VideoWriter


def test_frames_come_in_order_with_number_and_time(tmp_path: Path) -> None:
    reader = VideoReader(write_numbered(tmp_path / "a.mp4", [i / 25 for i in range(30)]))
    frames = list(reader)
    assert [frame.number for frame in frames] == list(range(30))
    assert [number_of(frame.image) for frame in frames] == list(range(30))
    np.testing.assert_allclose([frame.seconds for frame in frames], np.arange(30) / 25, atol=1e-3)
    assert (reader.rate, reader.frames, reader.problem) == (25, 30, None)
    assert frames[0].image.shape == (48, 64, 3) and frames[0].image.dtype == np.uint8


def test_each_iteration_begins_at_the_first_frame(tmp_path: Path) -> None:
    reader = VideoReader(write_numbered(tmp_path / "a.mp4", [0, 0.1, 0.2]))
    assert number_of(next(iter(reader)).image) == 0
    assert [number_of(frame.image) for frame in reader] == [0, 1, 2]


def test_phone_clips_stand_upright(tmp_path: Path) -> None:
    flat = tmp_path / "flat.mp4"
    with VideoWriter(flat) as writer:
        writer.write(quarters(), 0)
    image = next(iter(VideoReader(turned(tmp_path / "phone.mp4", flat)))).image
    assert image.shape == (64, 48, 3)
    # red was top left; turned clockwise it is top right
    found = [image[16, 12], image[16, 36], image[48, 12], image[48, 36]]
    np.testing.assert_allclose(found, [BLUE, RED, GREY, GREEN], atol=8)


def test_a_cut_off_file_gives_what_it_has_and_says_so(tmp_path: Path) -> None:
    cut = tmp_path / "cut.avi"
    cut.write_bytes((shared("video") / "vtest_250.avi").read_bytes()[:500_000])
    reader = VideoReader(cut)
    assert 20 < sum(1 for _ in reader) < 100 and reader.truncated
    assert reader.problem is not None and "cut.avi" in reader.problem
    assert "ends earlier than its header promises" in reader.problem


def test_places_that_do_not_decode_are_passed_over_and_counted(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), dtype=np.uint8)
    with VideoWriter(tmp_path / "a.mp4") as writer:
        for image in noise:
            writer.write(image)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    middle = (data.find(b"mdat") + len(data)) // 2
    data[middle : middle + 6000] = b"\x55" * 6000
    (tmp_path / "damaged.mp4").write_bytes(data)
    reader = VideoReader(tmp_path / "damaged.mp4")
    assert 10 < sum(1 for _ in reader) <= 30 and reader.damaged > 0 and not reader.truncated
    assert reader.problem is not None and "do not decode and were passed over" in reader.problem


@pytest.mark.parametrize(
    ("name", "count", "last", "shape"),
    [("tree.avi", 68, 29.5335, (240, 320, 3)), ("vtest_250.avi", 250, 24.9, (576, 768, 3))],
)
def test_real_clips_with_wrong_frame_counts_or_old_codecs(
    name: str, count: int, last: float, shape: tuple[int, ...]
) -> None:
    reader = VideoReader(shared("video") / name)
    for frame in reader:
        assert frame.image.shape == shape
    assert frame.number + 1 == count and frame.seconds == pytest.approx(last, abs=1e-3)
    assert reader.problem is None and 0 < reader.rate <= 25


def _not_videos(folder: Path) -> dict[str, str]:
    (folder / "text.mp4").write_text("this is no video\n" * 50)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.txt").write_text("this is no video\n" * 50)
    Image.new("RGB", (8, 8)).save(folder / "picture.png")
    with VideoWriter(folder / "whole.mp4") as writer:
        writer.write(quarters(), 0)
    data = (folder / "whole.mp4").read_bytes()
    (folder / "head.mp4").write_bytes(data[:60])
    (folder / "list.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nwhole.mp4\n#EXT-X-ENDLIST\n"
    )
    return {
        "text.mp4": "not a video that FFmpeg can read",
        "empty.mp4": "not a video that FFmpeg can read",
        "head.mp4": "video",
        "text.txt": "not a video that FFmpeg can read",
        "picture.png": "there is no video in this file",
        "missing.mp4": "there is no such video file",
        "list.m3u8": "video",
    }


def test_what_is_no_video_is_refused_by_name(tmp_path: Path) -> None:
    for name, words in _not_videos(tmp_path).items():
        with pytest.raises(ValueError, match=words) as error:
            VideoReader(tmp_path / name)
        assert name in str(error.value)


def test_a_video_without_a_frame_that_decodes_is_an_error(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "a.mp4", [0, 0.04])
    data = bytearray(path.read_bytes())
    start = data.rfind(b"mdat") + 4
    data[start:] = b"\xff" * (len(data) - start)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.mp4: no frame of this video can be decoded"):
        list(VideoReader(path))


def test_a_video_of_too_large_frames_names_the_limit(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "a.mp4", [0, 0.04])
    height, width = next(iter(VideoReader(path))).image.shape[:2]
    assert len(list(VideoReader(path, max_pixels=height * width))) == 2
    with pytest.raises(
        ValueError, match=rf"a\.mp4: frames of {width}x{height} .*--max-pixels {height * width}"
    ):
        VideoReader(path, max_pixels=height * width - 1)


def test_a_frame_that_claims_to_be_larger_than_the_header_says_is_not_decoded(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.avi"), mode="w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(frame.reformat(format="yuvj420p")))
        container.mux(stream.encode(None))
    data = bytearray((tmp_path / "a.avi").read_bytes())
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = (13_000).to_bytes(2, "big") * 2
    (tmp_path / "b.avi").write_bytes(data)
    assert len(list(VideoReader(tmp_path / "a.avi"))) == 1
    with pytest.raises(ValueError, match=r"b\.avi: .*--max-pixels"):
        list(VideoReader(tmp_path / "b.avi"))


def test_rates_that_headers_claim_are_taken_as_fractions() -> None:
    assert VideoReader(shared("video") / "tree.avi").rate == Fraction(1000000, 66667)


def test_a_file_with_sound_only_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), mode="w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        silence = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono"
        )
        silence.sample_rate = 44100
        container.mux(stream.encode(silence))
        container.mux(stream.encode(None))
    with pytest.raises(ValueError, match=r"sound\.mp4: there is no video in this file"):
        VideoReader(path)
