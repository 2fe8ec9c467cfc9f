from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from vistasks.infer import infer, print_summary
from vistasks.predictor import Predictor
from vistasks.types import ClassNames, Detections, Prediction, SegmentationMap
from vistasks.video.sinks import VideoWriter

CLASSES = ClassNames(("cat", "dog"), ("background", "cat", "dog"))


class Backend:
    """A "model" that finds one cat and one unsure dog in every picture; it counts what it is asked."""

    def __init__(self, classes: ClassNames = CLASSES) -> None:
        self.classes = classes
        self.model = self
        self.batches: list[int] = []
        self.proposed = 0

    def propose(self, image: np.ndarray) -> np.ndarray | None:
        self.proposed += 1
        return np.array([[0, 0, 4, 4]], dtype=np.float32)

    def make_batch(self, images: Sequence[np.ndarray], proposals: Sequence[np.ndarray] | None) -> list[np.ndarray]:
        self.batches.append(len(images))
        return list(images)

    def predict(self, batch: list[np.ndarray]) -> list[Prediction]:
        return [self._one(image) for image in batch]

    def _one(self, image: np.ndarray) -> Prediction:
        boxes = np.array([[1, 2, 11, 22], [3, 3, 9, 9]], dtype=np.float32)
        scores = np.array([0.9, 0.3], dtype=np.float32)
        found = Detections(boxes, scores, np.array([0, 1]), self.classes.detection)
        labels = np.zeros(image.shape[:2], dtype=np.uint8)
        labels[:5] = 2
        return Prediction(found, SegmentationMap(labels, self.classes.segmentation))


def save(path: Path, value: int = 100, size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


def test_a_path_an_array_and_a_list(tmp_path: Path) -> None:
    predictor, image = Predictor(Backend()), np.zeros((30, 40, 3), dtype=np.uint8)
    path = save(tmp_path / "a.png")
    one = predictor.predict(path)
    assert one.path == str(path) and one.image.shape == (30, 40, 3)
    assert one.detections.names == ["cat"] and one.detections.boxes.tolist() == [[1, 2, 11, 22]]
    assert predictor.predict(image).path == ""
    assert [p.path for p in predictor.predict([str(path), image])] == [str(path), ""]


def test_batches() -> None:
    backend = Backend()
    Predictor(backend, batch_size=4).predict([np.zeros((8, 8, 3), dtype=np.uint8)] * 10)
    assert backend.batches == [4, 4, 2]


def test_score_keeps_the_sure_ones() -> None:
    image = np.zeros((30, 40, 3), dtype=np.uint8)
    assert Predictor(Backend(), score=0.2).predict(image).detections.names == ["cat", "dog"]
    assert len(Predictor(Backend(), score=0.95).predict(image).detections) == 0


def test_one_task_alone() -> None:
    backend, image = Backend(), np.zeros((30, 40, 3), dtype=np.uint8)
    only_map = Predictor(backend, tasks=["segment"]).predict(image)
    assert only_map.detections is None and only_map.segmentation is not None and backend.proposed == 0
    assert only_map.to_coco() == [] and len(only_map.to_supervision()) == 0
    only_boxes = Predictor(backend, tasks=["detect"]).predict(image)
    assert only_boxes.segmentation is None and backend.proposed == 1


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 4), np.uint8), 7]
)
def test_what_is_no_picture(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"expected .*\(H, W, 3\) uint8"):
        Predictor(Backend()).predict(wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ["detct"]}, "tasks are detect and segment; received: detct"),
        ({"tasks": []}, "received: none"),
        ({"batch_size": 0}, "batch_size must be at least 1; received 0"),
        ({"score": 1.5}, "score must be from 0 to 1; received 1.5"),
    ],
)
def test_impossible_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Predictor(Backend(), **options)


def test_a_prediction_prints_its_boxes() -> None:
    found = Predictor(Backend()).predict(np.zeros((30, 40, 3), dtype=np.uint8)).detections
    assert str(found) == "cat 0.900 [1.0, 2.0, 11.0, 22.0]"
    assert str(Detections(found.boxes[:0], found.scores[:0], found.labels[:0], ("cat",))) == "no detections"


def test_to_supervision_and_to_coco() -> None:
    prediction = Predictor(Backend()).predict(np.zeros((30, 40, 3), dtype=np.uint8))
    found = prediction.to_supervision()
    assert found.xyxy.tolist() == [[1, 2, 11, 22]] and found.data["class_name"].tolist() == ["cat"]
    expected = {"image_id": 7, "category_id": 1, "bbox": [1.0, 2.0, 10.0, 20.0], "score": pytest.approx(0.9)}
    assert prediction.to_coco(image_id=7) == [expected]


def test_save_writes_the_drawn_picture_whole(tmp_path: Path) -> None:
    prediction = Predictor(Backend()).predict(np.zeros((30, 40, 3), dtype=np.uint8))
    path = prediction.save(tmp_path / "new" / "out.png")
    assert np.array_equal(np.asarray(Image.open(path)), prediction.draw())
    assert [p.name for p in path.parent.iterdir()] == ["out.png"]


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.png", "deep/a.jpg"):
        save(tmp_path / "in" / name)
    summary = infer(Predictor(Backend()), str(tmp_path / "in"), tmp_path / "out", progress=False)
    assert (summary.pictures, summary.detections, summary.failures) == (3, 3, [])
    out = tmp_path / "out"
    written = sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
    masks = ["masks/a.png", "masks/b.png", "masks/deep/a.png"]
    assert written == ["a.jpg", "b.jpg", "deep/a.jpg", "detections.csv", "images.json", *masks, "results.json"]
    mask = Image.open(out / "masks" / "a.png")
    assert mask.mode == "P" and np.array_equal(np.unique(np.asarray(mask)), [0, 2])
    assert (out / "detections.csv").read_text().splitlines()[1].endswith("a.jpg,cat,0.9000,1.00,2.00,11.00,22.00")


def test_pycocotools_reads_the_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "in" / "a.jpg")
    infer(Predictor(Backend()), str(tmp_path / "in"), tmp_path / "out", progress=False)
    truth = COCO(str(tmp_path / "out" / "images.json"))
    found = truth.loadRes(str(tmp_path / "out" / "results.json"))
    assert [truth.cats[a["category_id"]]["name"] for a in found.anns.values()] == ["cat"]
    assert truth.imgs[1]["file_name"].endswith("a.jpg")


def test_equal_names_do_not_overwrite_each_other(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "one/b.jpg", "two/b.jpg"):
        save(tmp_path / name)
    out = tmp_path / "out"
    infer(Predictor(Backend()), str(tmp_path / "*" / "b.jpg"), out, progress=False)
    assert sorted(p.name for p in out.glob("*.jpg")) == ["b_jpg.jpg", "b_jpg_2.jpg"]
    infer(Predictor(Backend()), str(tmp_path / "a.*"), tmp_path / "out2", progress=False)
    assert sorted(p.name for p in (tmp_path / "out2").glob("*.jpg")) == ["a_jpg.jpg", "a_png.jpg"]


def test_a_bad_picture_is_named_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "in" / "a.jpg")
    (tmp_path / "in" / "bad.jpg").write_bytes(b"no picture")
    summary = infer(Predictor(Backend()), str(tmp_path / "in"), tmp_path / "out", progress=False)
    assert summary.pictures == 1 and len(summary.failures) == 1 and "bad.jpg" in summary.failures[0]
    assert print_summary(summary, tmp_path / "out") == 1
    assert "bad.jpg" in capsys.readouterr().err
    assert not (tmp_path / "out" / "bad.jpg").exists()
    with pytest.raises(ValueError, match=r"bad\.jpg"):
        infer(Predictor(Backend()), str(tmp_path / "in"), tmp_path / "out", on_error="raise", progress=False)


def test_results_survive_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.jpg", "b.jpg"):
        save(tmp_path / "in" / name)
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
    assert lines[0]["pixel_share"] == pytest.approx({"background": 27 / 32, "cat": 0, "dog": 5 / 32}, abs=1e-4)
    assert len(list(Predictor(Backend()).stream(tmp_path / "out" / "clip.mp4"))) == 5


def test_a_video_is_not_overwritten_by_its_result(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "clip.mp4") as video:
        video.write(np.zeros((32, 48, 3), dtype=np.uint8), 0.0)
    with pytest.raises(ValueError, match="would overwrite the source"):
        infer(Predictor(Backend()), str(tmp_path / "clip.mp4"), tmp_path, progress=False)


def test_stream_takes_folders_too(tmp_path: Path) -> None:
    paths = [save(tmp_path / name) for name in ("a.jpg", "b.jpg")]
    assert [p.path for p in Predictor(Backend()).stream(tmp_path)] == [str(path) for path in paths]
