from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from tests.fake_model import CLASSES, Backend, save_picture
from tests.paths import shared
from vistasks.datasets.images import read_image
from vistasks.drawing.palette import model_colours
from vistasks.inference.images import infer, output_names, print_summary
from vistasks.inference.predictor import Predictor
from vistasks.inference.video.options import InferOptions
from vistasks.inference.video.reader import VideoReader
from vistasks.inference.video.sinks import VideoWriter
from vistasks.types import ClassNames, Prediction


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.png", "deep/a.jpg"):
        save_picture(tmp_path / "in" / name)
    summary = infer(Predictor(Backend()), str(tmp_path / "in"), tmp_path / "out", progress=False)
    assert (summary.pictures, summary.detections, summary.failures) == (3, 3, [])
    out = tmp_path / "out"
    written = sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
    masks = ["masks/a.png", "masks/b.png", "masks/deep/a.png"]
    colours = [f"colour_{mask}" for mask in masks]
    assert written == [
        "a.jpg",
        "b.jpg",
        *colours,
        "deep/a.jpg",
        "detections.csv",
        "images.json",
        *masks,
        "results.json",
    ]
    mask = Image.open(out / "masks" / "a.png")
    assert mask.mode == "P" and np.array_equal(np.unique(np.asarray(mask)), [0, 2])
    assert (
        (out / "detections.csv")
        .read_text()
        .splitlines()[1]
        .startswith("a.jpg,cat,0.9000,1.00,2.00,11.00,22.00")
    )
    colour = np.asarray(Image.open(out / "colour_masks" / "a.png"))
    assert (
        np.array_equal(colour, np.asarray(mask.convert("RGB")))
        and tuple(colour[0, 0]) == model_colours(CLASSES)["dog"]
    )


def test_pycocotools_reads_the_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_picture(tmp_path / "in" / "a.jpg")
    infer(Predictor(Backend()), str(tmp_path / "in"), tmp_path / "out", progress=False)
    truth = COCO(str(tmp_path / "out" / "images.json"))
    found = truth.loadRes(str(tmp_path / "out" / "results.json"))
    assert [truth.cats[a["category_id"]]["name"] for a in found.anns.values()] == ["cat"]
    assert truth.imgs[1]["file_name"].endswith("a.jpg")


def test_equal_names_do_not_overwrite_each_other(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "one/b.jpg", "two/b.jpg"):
        save_picture(tmp_path / name)
    out = tmp_path / "out"
    infer(Predictor(Backend()), str(tmp_path / "*" / "b.jpg"), out, progress=False)
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.jpg")) == ["one/b.jpg", "two/b.jpg"]
    infer(Predictor(Backend()), str(tmp_path / "a.*"), tmp_path / "out2", progress=False)
    assert sorted(p.name for p in (tmp_path / "out2").glob("*.jpg")) == ["a_jpg.jpg", "a_png.jpg"]


def test_a_bad_picture_is_named_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_picture(tmp_path / "in" / "a.jpg")
    (tmp_path / "in" / "bad.jpg").write_bytes(b"no image")
    summary = infer(Predictor(Backend()), str(tmp_path / "in"), tmp_path / "out", progress=False)
    assert summary.pictures == 1 and len(summary.failures) == 1 and "bad.jpg" in summary.failures[0]
    assert print_summary(summary, tmp_path / "out") == 1
    assert "bad.jpg" in capsys.readouterr().err
    assert not (tmp_path / "out" / "bad.jpg").exists()
    with pytest.raises(ValueError, match=r"bad\.jpg"):
        infer(Predictor(Backend()), str(tmp_path / "in"), tmp_path / "out", on_error="raise", progress=False)


def test_pictures_over_the_limit_are_skipped_and_counted(tmp_path: Path) -> None:
    save_picture(tmp_path / "in" / "a.jpg")
    height, width = read_image(tmp_path / "in" / "a.jpg").shape[:2]
    for limit, failures in ((height * width, 0), (height * width - 1, 1)):
        summary = infer(
            Predictor(Backend()),
            tmp_path / "in",
            tmp_path / f"out{failures}",
            options=InferOptions(max_pixels=limit, progress=False),
        )
        assert len(summary.failures) == failures and summary.pictures == 1 - failures
    with pytest.raises(ValueError, match=r"a\.jpg: .*--max-pixels"):
        Predictor(Backend(), max_pixels=10).predict(tmp_path / "in" / "a.jpg")


def test_results_survive_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.jpg", "b.jpg"):
        save_picture(tmp_path / "in" / name)
    backend = Backend()

    def interrupted(image: np.ndarray) -> None:
        if backend.proposed == 1:
            raise KeyboardInterrupt
        backend.proposed += 1

    monkeypatch.setattr(backend, "propose", interrupted)
    with pytest.raises(KeyboardInterrupt):
        infer(Predictor(backend), str(tmp_path / "in"), tmp_path / "out", progress=False)
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())) == 1
    assert not list((tmp_path / "out").glob(".*"))


def test_a_video(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "clip.mp4") as video:
        for number in range(5):
            video.write(np.full((32, 48, 3), number * 20, dtype=np.uint8), number / 10)
    summary = infer(Predictor(Backend()), str(tmp_path / "clip.mp4"), tmp_path / "out", progress=False)
    assert (summary.pictures, summary.detections) == (5, 5)
    lines = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == [0, 1, 2, 3, 4]
    assert [line["seconds"] for line in lines] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4], abs=1e-3)
    assert lines[0]["detections"] == [{"name": "cat", "score": 0.9, "box": [1.0, 2.0, 11.0, 22.0]}]
    assert lines[0]["pixel_share"] == pytest.approx(
        {"background": 27 / 32, "cat": 0, "dog": 5 / 32}, abs=1e-4
    )
    assert len(list(VideoReader(tmp_path / "out" / "clip.mp4"))) == 5
    rows = (tmp_path / "out" / "detections.csv").read_text().splitlines()
    assert (
        rows[0] == "frame,seconds,class,score,x1,y1,x2,y2"
        and rows[5] == "4,0.400,cat,0.9000,1.00,2.00,11.00,22.00"
    )
    listed = json.loads((tmp_path / "out" / "images.json").read_text())["images"]
    assert listed[4] == {"id": 5, "file_name": "000004.jpg", "height": 32, "width": 48}
    found = COCO(str(tmp_path / "out" / "images.json")).loadRes(str(tmp_path / "out" / "results.json"))
    assert [(a["image_id"], a["bbox"]) for a in found.anns.values()] == [
        (n, [1, 2, 10, 20]) for n in range(1, 6)
    ]
    written = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert written == ["clip.mp4", "detections.csv", "images.json", "results.json", "results.jsonl"]


def test_a_video_is_not_overwritten_by_its_result(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "clip.mp4") as video:
        video.write(np.zeros((32, 48, 3), dtype=np.uint8), 0.0)
    with pytest.raises(ValueError, match="would overwrite the source"):
        infer(Predictor(Backend()), str(tmp_path / "clip.mp4"), tmp_path, progress=False)


def write_clip(path: Path, frames: int) -> Path:
    with VideoWriter(path) as video:
        for number in range(frames):
            video.write(np.full((32, 48, 3), number * 20, dtype=np.uint8), number / 10)
    return path


def test_pictures_go_through_the_network_in_batches(tmp_path: Path) -> None:
    for number in range(5):
        save_picture(tmp_path / "in" / f"{number}.png")
    (tmp_path / "in" / "1.png").write_bytes(b"no image")
    backend = Backend()
    summary = infer(Predictor(backend, batch_size=3), tmp_path / "in", tmp_path / "out", progress=False)
    assert backend.batches == [3, 1] and summary.pictures == 4
    listed = json.loads((tmp_path / "out" / "images.json").read_text())["images"]
    assert [(image["id"], image["file_name"]) for image in listed] == [
        (1, "0.png"),
        (2, "2.png"),
        (3, "3.png"),
        (4, "4.png"),
    ]
    assert listed[0] == {"id": 1, "file_name": "0.png", "height": 30, "width": 40}


def test_errors_of_the_model_are_no_bad_pictures(tmp_path: Path) -> None:
    save_picture(tmp_path / "in" / "a.jpg")

    class Broken(Backend):
        def predict(self, batch: list[np.ndarray]) -> list[Prediction]:
            raise ValueError("the model is wrong")

    with pytest.raises(ValueError, match="the model is wrong"):
        infer(Predictor(Broken()), tmp_path / "in", tmp_path / "out", progress=False)


def test_a_segmenter_writes_no_boxes_and_a_detector_no_masks(tmp_path: Path) -> None:
    save_picture(tmp_path / "in" / "a.jpg")
    summary = infer(
        Predictor(Backend(), tasks=["segment"]), tmp_path / "in", tmp_path / "maps", progress=False
    )
    assert (summary.pictures, summary.detections) == (1, None)
    infer(Predictor(Backend(ClassNames(("cat", "dog")))), tmp_path / "in", tmp_path / "boxes", progress=False)
    assert sorted(p.name for p in (tmp_path / "maps").iterdir()) == ["a.jpg", "colour_masks", "masks"]
    assert sorted(p.name for p in (tmp_path / "boxes").iterdir()) == [
        "a.jpg",
        "detections.csv",
        "images.json",
        "results.json",
    ]


def test_an_output_within_the_source_is_not_read_again(tmp_path: Path) -> None:
    save_picture(tmp_path / "a.png")
    for _ in range(2):
        assert infer(Predictor(Backend()), tmp_path, tmp_path / "out", progress=False).pictures == 1
        assert (
            infer(
                Predictor(Backend()), str(tmp_path / "**" / "*.*"), tmp_path / "out", progress=False
            ).pictures
            == 1
        )


def test_results_never_overwrite_their_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = save_picture(tmp_path / "a.jpg").read_bytes()
    with pytest.raises(
        ValueError, match=r"this is the folder that is read; give the results another, for example .*out"
    ):
        infer(Predictor(Backend()), tmp_path, tmp_path, progress=False)
    monkeypatch.chdir(tmp_path)
    for source in ("a.jpg", "*.jpg"):
        with pytest.raises(ValueError, match=r"a\.jpg: the result would overwrite this image"):
            infer(Predictor(Backend()), source, ".", progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["a.jpg"] and (tmp_path / "a.jpg").read_bytes() == before


def test_the_folder_above_the_source_may_be_the_output(tmp_path: Path) -> None:
    save_picture(tmp_path / "photos" / "a.png")
    assert infer(Predictor(Backend()), tmp_path / "photos", tmp_path, progress=False).pictures == 1
    assert (tmp_path / "a.jpg").exists()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "x/", "X/"]),
            st.sampled_from(["a", "A", "a_jpg", "a.b", "a_png_2"]),
            st.sampled_from(["jpg", "png", "JPG"]),
        ),
        unique=True,
        max_size=12,
    )
)
def test_no_two_pictures_share_an_output_name(parts: list[tuple[str, str, str]]) -> None:
    paths = [Path("in") / f"{folder}{stem}.{suffix}" for folder, stem, suffix in parts]
    names = output_names(paths, Path("in"))
    assert len({name.casefold() for name in names.values()}) == len(paths)
    assert all(Path(name).parent == path.parent.relative_to("in") for path, name in names.items())


def test_a_missing_source_writes_nothing(tmp_path: Path) -> None:
    for source, words in [("none", "no such file or folder"), ("none.mp4", "no such file or folder")]:
        with pytest.raises(ValueError, match=words):
            infer(Predictor(Backend()), tmp_path / source, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_an_interrupted_video_leaves_whole_files(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 6)

    class Interrupted(Backend):
        predicted = 0

        def predict(self, batch: list[np.ndarray]) -> list[Prediction]:
            if self.predicted == 4:
                raise KeyboardInterrupt
            self.predicted += 1
            return super().predict(batch)

    with pytest.raises(KeyboardInterrupt):
        infer(Predictor(Interrupted()), clip, tmp_path / "out", progress=False)
    assert len(list(VideoReader(tmp_path / "out" / "clip.mp4"))) == 4
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 4
    written = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert written == ["clip.mp4", "detections.csv", "images.json", "results.json", "results.jsonl"]


def test_a_cut_off_video_is_processed_to_the_cut_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cut.avi").write_bytes((shared("video") / "tree.avi").read_bytes()[:300_000])
    summary = infer(Predictor(Backend()), tmp_path / "cut.avi", tmp_path / "out", progress=True)
    assert 5 < summary.pictures < 68 and "cut.avi" in summary.warnings[0] and "cut off" in summary.warnings[0]
    assert print_summary(summary, tmp_path / "out") == 0
    shown = capsys.readouterr()
    assert (
        "warning: " in shown.err
        and f"{summary.pictures} frames, {summary.detections} detections: " in shown.out
    )
    assert f"{summary.pictures}/{summary.pictures}" in shown.out  # not of the 444 that the header claims


def test_a_broken_video_leaves_no_file(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 2)
    data = bytearray(clip.read_bytes())
    start = data.rfind(b"mdat") + 4
    data[start:] = b"\xff" * (len(data) - start)
    clip.write_bytes(data)
    with pytest.raises(ValueError, match="no frame of this video can be decoded"):
        infer(Predictor(Backend()), clip, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_long_lists_of_failures_are_cut_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    for number in range(25):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(b"no image")
    summary = infer(Predictor(Backend()), tmp_path / "in", tmp_path / "out", progress=True)
    assert print_summary(summary, tmp_path / "out") == 1
    err = capsys.readouterr().err
    assert err.count("skipped: ") == 20 and "... and 5 more" in err and "25 could not be read" in err
