"""A source of frames through the whole pipeline into files: what goes in comes out, in order and in time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import av
import numpy as np
import pytest
import torch
from PIL import Image

from tests.fake_model import save_picture
from tests.inference.video.cheap import CheapBackend, sound_of, write_with_sound
from tests.inference.video.clips import number_of, numbered, turned, write_numbered
from vistasks.datasets.formats.coco_masks import decode_segmentation
from vistasks.inference.images import Summary, infer, print_summary
from vistasks.inference.loaded import LoadedModel
from vistasks.inference.predictor import Predictor
from vistasks.inference.video import hardware
from vistasks.inference.video.options import InferOptions
from vistasks.inference.video.reader import Frame, VideoReader
from vistasks.inference.video.run import infer_frames

UNEVEN = [0, 0.04, 0.041, 0.3, 0.311, 0.9, 1.0, 1.7]


def run(
    source: Path | str, output: Path, *, batch: int = 1, tasks: Any = ("detect", "segment"), **options: Any
) -> Summary:
    predictor = Predictor(CheapBackend(), batch_size=batch, tasks=tasks)
    return infer(predictor, source, output, options=InferOptions(progress=False, **options))


def lines_of(output: Path, name: str = "results.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / name).read_text().splitlines()]


def constant(folder: Path) -> Path:
    return write_numbered(folder / "clip.mp4", [i / 25 for i in range(30)])


def variable(folder: Path) -> Path:
    return write_numbered(folder / "clip.mp4", UNEVEN)


def phone(folder: Path) -> Path:
    return turned(folder / "clip.mp4", write_numbered(folder / "flat.mp4", [0, 0.1, 0.25]))


def odd(folder: Path) -> Path:
    for number in range(4):
        save_picture(folder / "clip" / f"{number}.png", 8 + 4 * number, (63, 47))
    return folder / "clip"


def single(folder: Path) -> Path:
    return write_numbered(folder / "clip.mp4", [0])


def cut(folder: Path) -> Path:
    whole = write_numbered(folder / "whole.mp4", [i / 10 for i in range(50)], height=96, width=128)
    data = whole.read_bytes()
    (folder / "clip.mp4").write_bytes(data[: data.find(b"mdat") + (len(data) - data.find(b"mdat")) // 2])
    return folder / "clip.mp4"


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("clip", [constant, variable, phone, odd, single, cut])
def test_frames_in_are_frames_out(tmp_path: Path, clip: Callable[[Path], Path], batch: int) -> None:
    source = clip(tmp_path)
    rate = 10 if source.is_dir() else None
    summary = run(source, tmp_path / "out", batch=batch, frame_rate=rate, part_frames=7)
    if source.is_dir():
        times, shapes = [number / 10 for number in range(4)], {(48, 64, 3)}
    else:
        frames = list(VideoReader(source))
        times, shapes = [frame.seconds for frame in frames], {frame.image.shape for frame in frames}
    written = list(VideoReader(tmp_path / "out" / "clip.mp4"))
    assert summary.pictures == len(times) == len(written) > (0 if clip is not cut else 3)
    np.testing.assert_allclose([frame.seconds for frame in written], times, atol=1e-3)
    lines = lines_of(tmp_path / "out")
    assert [line["frame"] for line in lines] == list(range(len(times)))
    np.testing.assert_allclose([line["seconds"] for line in lines], times, atol=1e-3)
    assert {frame.image.shape for frame in written} == shapes
    scores = [
        line["detections"][0]["score"] for line in lines
    ]  # they follow the frames' brightness: the order was kept
    assert scores == sorted(scores) and len(set(scores)) == len(scores)
    assert bool(summary.warnings) == (clip is cut)
    if clip is cut:
        assert "clip.mp4" in summary.warnings[0] and len(times) < 50


def test_the_drawn_frames_are_those_of_the_source(tmp_path: Path) -> None:
    run(constant(tmp_path), tmp_path / "out", hide_labels=True)
    written = list(VideoReader(tmp_path / "out" / "clip.mp4"))
    numbers = [number_of(frame.image[30:, 40:]) for frame in written]
    np.testing.assert_allclose(numbers, range(30), atol=1)  # encoded twice


def test_the_size_may_change_in_the_middle(tmp_path: Path) -> None:
    import av

    parts = []
    for number, (height, width) in enumerate([(48, 64), (96, 64)]):
        path = tmp_path / f"{number}.ts"
        with av.open(str(path), mode="w") as container:
            stream = container.add_stream("libx264", rate=25, options={"bf": "0"})
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            for index in range(6):
                frame = av.VideoFrame.from_ndarray(
                    numbered(6 * number + index, height, width), format="rgb24"
                )
                frame.pts = 6 * number + index
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        parts.append(path.read_bytes())
    (tmp_path / "clip.ts").write_bytes(b"".join(parts))
    run(tmp_path / "clip.ts", tmp_path / "out", masks="rle", batch=4)
    sizes = [tuple(line["size"]) for line in lines_of(tmp_path / "out", "masks.jsonl")]
    assert sizes == [(48, 64)] * 6 + [(96, 64)] * 6
    assert {frame.image.shape for frame in VideoReader(tmp_path / "out" / "clip.mp4")} == {(48, 64, 3)}


def test_sound_is_copied_as_it_is(tmp_path: Path) -> None:
    source = write_with_sound(tmp_path / "clip.mp4", 50)
    summary = run(source, tmp_path / "out", part_frames=20)
    before, after = sound_of(source), sound_of(tmp_path / "out" / "clip.mp4")
    assert [data for _, data in after] == [data for _, data in before] and len(before) > 80
    np.testing.assert_allclose([at for at, _ in after], [at for at, _ in before], atol=1e-3)
    written = list(VideoReader(tmp_path / "out" / "clip.mp4"))
    np.testing.assert_allclose([frame.seconds for frame in written], np.arange(50) / 25, atol=1e-3)
    assert not summary.warnings and summary.video is not None and summary.video.frames == 50


def test_sound_that_an_mp4_cannot_hold_is_encoded(tmp_path: Path) -> None:
    source = write_with_sound(tmp_path / "clip.mkv", 50, codec="pcm_s16le")
    summary = run(source, tmp_path / "out", part_frames=20)
    assert not summary.warnings and len(list(VideoReader(tmp_path / "out" / "clip.mp4"))) == 50
    with av.open(str(tmp_path / "out" / "clip.mp4")) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    tone = np.sin(np.arange(2 * 44100) * 0.06) * 9000 / 32768
    assert abs(len(heard) - len(tone)) < 3000
    assert np.corrcoef(heard[8000:80000], tone[8000:80000])[0, 1] > 0.99  # the same tone, at the same time


def test_a_machine_without_a_decoder_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_numbered(tmp_path / "clip.mp4", [0, 0.1])
    monkeypatch.setattr(hardware, "hwdevices_available", lambda: ["drm"])  # which decodes nothing by itself
    with pytest.raises(
        ValueError, match=r"clip\.mp4: --decoder hardware: no device .* \(drm: .+\); leave --decoder out"
    ):
        run(source, tmp_path / "out", decoder="hardware")


def test_what_else_can_be_written(tmp_path: Path) -> None:
    source = write_numbered(tmp_path / "clip.mp4", [0, 0.1, 0.2])
    run(source, tmp_path / "out", masks="png", save_frames=True, crop=True, video=False)
    written = sorted(
        p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()
    )
    each = [f"{n:06d}" for n in range(3)]
    expected = [
        *(f"crops/box/{n}_0.jpg" for n in each),
        "detections.csv",
        *(f"frames/{n}.jpg" for n in each),
        "images.json",
    ]
    assert written == [*expected, *(f"masks/{n}.png" for n in each), "results.json", "results.jsonl"]
    box = lines_of(tmp_path / "out")[2]["detections"][0]["box"]
    with Image.open(tmp_path / "out" / "crops" / "box" / "000002_0.jpg") as crop:
        size = crop.size
    assert size == (int(np.ceil(box[2])) - int(box[0]), 10)
    mask = np.asarray(Image.open(tmp_path / "out" / "masks" / "000002.png"))
    assert mask.shape == (48, 64) and set(np.unique(mask)) == {0, 1}


def test_run_length_masks_are_those_of_coco(tmp_path: Path) -> None:
    source = write_numbered(tmp_path / "clip.mp4", [0, 0.1])
    run(source, tmp_path / "out", masks="rle", video=False, tasks=["segment"])
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["masks.jsonl", "results.jsonl"]
    lines, shares = lines_of(tmp_path / "out", "masks.jsonl"), lines_of(tmp_path / "out")
    for line, share in zip(lines, shares, strict=True):
        mask = decode_segmentation(
            {"size": line["size"], "counts": line["masks"]["box"]}, tuple(line["size"])
        )
        assert (
            mask.mean() == pytest.approx(share["pixel_share"]["box"], abs=1e-5)
            and mask[0].all()
            and not mask[-1].any()
        )


def test_a_folder_of_frames_with_an_unreadable_one(tmp_path: Path) -> None:
    for number in range(4):
        save_picture(tmp_path / "frames" / f"{number}.png", 40 * number)
    (tmp_path / "frames" / "1.png").write_bytes(b"no image")
    summary = run(tmp_path / "frames", tmp_path / "out", frame_rate=4)
    assert summary.pictures == 3 and "1.png" in summary.warnings[0]
    assert [line["seconds"] for line in lines_of(tmp_path / "out")] == [0, 0.5, 0.75]
    assert len(list(VideoReader(tmp_path / "out" / "frames.mp4"))) == 3
    with pytest.raises(ValueError, match=r"1\.png"):
        run(tmp_path / "frames", tmp_path / "out2", frame_rate=4, on_error="raise")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"none of these 1 images can be read; .*a\.png"):
        run(tmp_path / "bad", tmp_path / "out3", frame_rate=4)


def test_the_summary_names_the_bottleneck(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = constant(tmp_path)
    summary = run(source, tmp_path / "out")
    report = summary.video
    assert report is not None and report.frames == 30 and report.rate > 0
    assert list(report.busy) == ["decode", "propose", "batch", "predict", "draw", "encode", "write"]
    assert report.bottleneck == max(report.busy, key=report.busy.__getitem__)
    assert 0 < report.latency["p50"] <= report.latency["p95"] <= report.latency["p99"]
    assert print_summary(summary, tmp_path / "out") == 0
    shown = capsys.readouterr().out
    assert (
        "30 frames, 30 detections" in shown
        and "frames/s over" in shown
        and f"the bottleneck is {report.bottleneck}" in shown
    )


def test_an_error_in_a_stage_ends_the_run_and_keeps_what_was_before(tmp_path: Path) -> None:
    class Broken(CheapBackend):
        def propose(self, image: np.ndarray) -> np.ndarray | None:
            if number_of(image) == 20:
                raise ValueError("no proposals here")
            return super().propose(image)

    options = InferOptions(progress=False, part_frames=8)
    with pytest.raises(ValueError, match="no proposals here") as caught:
        infer(Predictor(Broken()), constant(tmp_path), tmp_path / "out", options=options)
    assert "in the stage 'propose'" in getattr(caught.value, "__notes__", [])
    assert len(list(VideoReader(tmp_path / "out" / "clip.mp4"))) == len(lines_of(tmp_path / "out")) == 20
    assert sorted(p.name for p in (tmp_path / "out" / ".clip.parts").glob("*.json")) == [
        "00000.json",
        "00001.json",
        "run.json",
    ]


@pytest.mark.parametrize(
    "options", [{"propose_every": 2}, {"segment_every": 3}, {"proposals": "segmentation"}]
)
def test_a_model_that_cannot_spare_work_says_so(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="leave out --proposals"):
        run(single(tmp_path), tmp_path / "out", **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"propose_every": 0}, "--propose-every must be at least 1; received 0"),
        ({"part_frames": 0}, "--part-frames must be at least 1"),
        ({"frame_rate": 0.0}, "--frame-rate must be over 0"),
    ],
)
def test_options_that_make_no_sense_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        InferOptions(**options)


def test_what_cannot_be_made_faster_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="--half, --compile and --cuda-graphs"):
        Predictor(CheapBackend()).speed_up(half=True)
    monkeypatch.setattr("shutil.which", lambda name: None)
    loaded: Any = SimpleNamespace(device=torch.device("cpu"))
    with pytest.raises(ValueError, match=r"--compile on the CPU needs a C\+\+ compiler"):
        LoadedModel.speed_up(loaded, compiled=True)
    with pytest.raises(ValueError, match="--cuda-graphs needs a GPU, and this model runs on cpu"):
        LoadedModel.speed_up(loaded, cuda_graphs=True)
    with pytest.raises(ValueError, match="--compile and --cuda-graphs"):
        LoadedModel.speed_up(SimpleNamespace(device=torch.device("cuda")), compiled=True, cuda_graphs=True)  # type: ignore[arg-type]


def test_a_live_source_is_not_continued(tmp_path: Path) -> None:
    class Camera:
        name, where, live, rate, frames, dropped = "camera", "camera 0", True, Fraction(25), 0, 0
        warnings: ClassVar[list[str]] = []

        def stop(self) -> None:
            pass

        def __iter__(self) -> Iterator[Frame]:
            for number in range(4):
                yield Frame(numbered(number), number, number / 25)
            raise OSError("unplugged")

    options = InferOptions(progress=False, part_frames=2)
    with pytest.raises(OSError, match="unplugged"):
        infer_frames(Predictor(CheapBackend()), Camera(), tmp_path / "out", options)
    assert len(list(VideoReader(tmp_path / "out" / "camera.mp4"))) == 4
    with pytest.raises(
        ValueError, match="camera 0: only files and folders can be continued; leave out --resume"
    ):
        infer_frames(Predictor(CheapBackend()), Camera(), tmp_path / "out", replace(options, resume=True))
