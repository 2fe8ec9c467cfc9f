"""Runs that are killed, stopped and continued, in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.inference.video.cheap import CheapBackend, sound_of, write_with_sound
from tests.inference.video.clips import write_numbered
from vistasks.inference.images import Summary, infer
from vistasks.inference.predictor import Predictor
from vistasks.inference.video.options import InferOptions
from vistasks.inference.video.reader import VideoReader

ROOT = Path(__file__).resolve().parents[3]


def start(source: Path, output: Path, delay: float, *options: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "tests.inference.video.long_run",
        str(source),
        str(output),
        str(delay),
        *options,
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def run(source: Path, output: Path, **options: Any) -> Summary:
    predictor = Predictor(CheapBackend(), batch_size=2)
    return infer(predictor, source, output, options=InferOptions(progress=False, part_frames=6, **options))


def everything(output: Path) -> dict[str, bytes]:
    return {
        p.relative_to(output).as_posix(): p.read_bytes() for p in sorted(output.rglob("*")) if p.is_file()
    }


def same(found: Path, whole: Path) -> bool:
    """Whether two folders hold the same, byte for byte but for the video's pictures, which may be a shade of
    grey apart.

    Under load the encoder now and then gives one frame of a run a byte more than in another run, from the
    same pictures."""
    video = "clip.mp4"
    if {**everything(found), video: b""} != {**everything(whole), video: b""}:
        return False
    pairs = list(zip(VideoReader(found / video), VideoReader(whole / video), strict=True))
    return all(a.seconds == b.seconds and np.abs(a.image.astype(int) - b.image).mean() < 1 for a, b in pairs)


def test_after_kill_9_the_joined_result_is_that_of_a_whole_run(tmp_path: Path) -> None:
    source = write_with_sound(tmp_path / "clip.mp4", 40)
    options: dict[str, Any] = {"track": True, "masks": "rle"}
    whole = run(source, tmp_path / "whole", **options)
    process = start(source, tmp_path / "out", 0.1, "track=true", 'masks="rle"')
    wait_for(tmp_path / "out" / ".clip.parts" / "00001.json", process)
    process.kill()
    process.communicate()
    assert not (tmp_path / "out" / "clip.mp4").exists()
    summary = run(source, tmp_path / "out", resume=True, **options)
    assert summary.video is not None and summary.video.resumed >= 12 and summary.video.frames <= 28
    assert (summary.pictures, summary.detections) == (40, whole.detections)
    assert same(tmp_path / "out", tmp_path / "whole")
    assert sound_of(tmp_path / "out" / "clip.mp4") == sound_of(tmp_path / "whole" / "clip.mp4")
    assert list(everything(tmp_path / "out")) == [
        "clip.mp4", "detections.csv", "images.json", "masks.jsonl", "results.json", "results.jsonl",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("number", "code"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)]
)  # the two differ in their number only
def test_a_signal_ends_the_run_with_whole_files(tmp_path: Path, number: signal.Signals, code: int) -> None:
    source = write_numbered(tmp_path / "clip.mp4", [i / 10 for i in range(60)])
    process = start(source, tmp_path / "out", 0.1)
    wait_for(tmp_path / "out" / ".clip.parts" / "00000.json", process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code and f"stopped by {number.name}; go on with --resume" in err, err
    frames = len(list(VideoReader(tmp_path / "out" / "clip.mp4")))
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert 6 <= frames == len(lines) < 60 and f"{frames} frames" in out
    run(source, tmp_path / "out", resume=True)
    run(source, tmp_path / "whole")
    assert same(tmp_path / "out", tmp_path / "whole")
    assert len(list(VideoReader(tmp_path / "out" / "clip.mp4"))) == 60


def test_another_run_is_not_continued(tmp_path: Path) -> None:
    source = write_numbered(tmp_path / "clip.mp4", [i / 10 for i in range(20)])

    class Broken(CheapBackend):
        def make_batch(self, images: Any, proposals: Any) -> Any:
            if images[0][0, 0, 0] > 60:
                raise ValueError("stop")
            return super().make_batch(images, proposals)

    predictor = Predictor(Broken(), batch_size=2)
    with pytest.raises(ValueError, match="stop"):
        infer(predictor, source, tmp_path / "out", options=InferOptions(progress=False, part_frames=6))
    words = r"\.clip\.parts: the interrupted run had --masks = none, this one has png; .*--resume"
    with pytest.raises(ValueError, match=words):
        run(source, tmp_path / "out", resume=True, masks="png")
    assert (tmp_path / "out" / ".clip.parts" / "00001.json").exists()
    assert run(source, tmp_path / "out", masks="png").pictures == 20  # anew
    assert not (tmp_path / "out" / ".clip.parts").exists()


def test_without_an_interrupted_run_resume_begins_at_the_first_frame(tmp_path: Path) -> None:
    source = write_numbered(tmp_path / "clip.mp4", [0, 0.1])
    assert run(source, tmp_path / "out", resume=True).pictures == 2
