from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.inference.video.clips import BLUE, GREEN, GREY, RED, number_of, numbered, quarters, write_numbered
from vistasks.inference.video.reader import VideoReader
from vistasks.inference.video.sinks import VideoWriter


def test_the_file_is_what_browsers_play(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "deep" / "a.mp4", [i / 25 for i in range(10)])
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.duration * stream.time_base) == pytest.approx(0.4, abs=1e-3)
    data = path.read_bytes()
    assert data.find(b"moov") < data.find(b"mdat")  # it starts before it is loaded whole
    assert [p.name for p in path.parent.iterdir()] == ["a.mp4"]


def test_colours_survive(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4") as writer:
        writer.write(quarters(), 0)
    image = next(iter(VideoReader(tmp_path / "a.mp4"))).image
    np.testing.assert_allclose(
        [image[12, 16], image[12, 48], image[36, 16], image[36, 48]], [RED, GREEN, BLUE, GREY], atol=4
    )


@settings(deadline=None, max_examples=12)
@given(st.lists(st.integers(1, 900), min_size=0, max_size=12))
def test_varying_times_survive_to_the_millisecond(
    tmp_path_factory: pytest.TempPathFactory, gaps: list[int]
) -> None:
    times = np.concatenate([[0], np.cumsum(gaps)]) / 1000
    path = write_numbered(tmp_path_factory.mktemp("times") / "a.mp4", times.tolist())
    frames = list(VideoReader(path))
    assert [number_of(frame.image) for frame in frames] == list(range(len(times)))
    np.testing.assert_allclose([frame.seconds for frame in frames], times, atol=1e-3)
    with av.open(str(path)) as container:  # the last frame is shown, too
        stream = container.streams.video[0]
        assert float(stream.duration * stream.time_base) >= times[-1]


def test_frames_without_times_follow_the_rate(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", rate=Fraction(10)) as writer:
        for number in range(4):
            writer.write(numbered(number))
    assert [round(frame.seconds, 3) for frame in VideoReader(tmp_path / "a.mp4")] == [0, 0.1, 0.2, 0.3]


def test_times_that_stand_still_or_go_back_lose_no_frame(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "a.mp4", [0, 0.2, 0.2, 0.1, 0.4])
    frames = list(VideoReader(path))
    assert [number_of(frame.image) for frame in frames] == [0, 1, 2, 3, 4]
    np.testing.assert_allclose([frame.seconds for frame in frames], [0, 0.2, 0.2, 0.2, 0.4], atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(47, 63), (48, 63), (1, 1)])
def test_odd_sides_get_one_more_pixel(tmp_path: Path, height: int, width: int) -> None:
    with VideoWriter(tmp_path / "a.mp4") as writer:
        writer.write(quarters(height, width), 0)
    image = next(iter(VideoReader(tmp_path / "a.mp4"))).image
    assert image.shape == (height + height % 2, width + width % 2, 3)
    np.testing.assert_allclose(image[-1, -1], GREY, atol=6)


def test_frames_of_another_size_are_fitted_in(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4") as writer:
        writer.write(numbered(40, 48, 64), 0)
        writer.write(numbered(40, 96, 64), 0.1)  # upright: bars at both sides
    first, second = (frame.image for frame in VideoReader(tmp_path / "a.mp4"))
    assert first.shape == second.shape == (48, 64, 3)
    assert second[24, 4].max() < 16 and second[24, 60].max() < 16 and number_of(second[10:38, 26:38]) == 40


def test_an_error_of_the_source_leaves_a_video_that_plays(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), VideoWriter(tmp_path / "a.mp4") as writer:
        writer.write(numbered(1), 0)
        writer.write(numbered(2), 0.04)
        raise RuntimeError
    assert [number_of(frame.image) for frame in VideoReader(tmp_path / "a.mp4")] == [1, 2]
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_without_a_frame_there_is_no_file(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "a.mp4")
    writer.close()
    writer.close()
    assert list(tmp_path.iterdir()) == []


def test_wrong_use_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.avi: videos are written as \.mp4"):
        VideoWriter(tmp_path / "a.avi")
    with (
        VideoWriter(tmp_path / "a.mp4") as writer,
        pytest.raises(ValueError, match=r"expected a frame \(H, W, 3\) uint8 RGB"),
    ):
        writer.write(np.zeros((4, 4), dtype=np.uint8), 0)
    assert list(tmp_path.iterdir()) == []
