from __future__ import annotations

import itertools
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.fake_model import CLASSES, Backend, save_picture
from tests.inference.video.clips import write_numbered
from vistasks.heads.test_time import TestTime
from vistasks.inference.prediction import PicturePrediction
from vistasks.inference.predictor import Predictor
from vistasks.inference.results import frame_facts
from vistasks.inference.video.sinks import VideoWriter
from vistasks.types import ClassNames, Detections


def test_a_path_an_array_and_a_list(tmp_path: Path) -> None:
    predictor, image = Predictor(Backend()), np.zeros((30, 40, 3), dtype=np.uint8)
    path = save_picture(tmp_path / "a.png")
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
    "wrong",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 3)),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        7,
    ],
)
def test_what_is_no_picture(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"expected .*\(H, W, 3\) uint8"):
        Predictor(Backend()).predict(wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ["detct"]}, "tasks are among detect, segment; received: detct"),
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


def test_ids_of_tracked_objects_are_passed_on() -> None:
    prediction = Predictor(Backend(), score=0.2).predict(np.zeros((30, 40, 3), dtype=np.uint8))
    assert prediction.to_supervision().tracker_id is None
    assert all("id" not in detection for detection in frame_facts(0, prediction)["detections"])
    tracked = replace(prediction, detections=replace(prediction.detections, ids=np.array([4, -1])))
    assert tracked.to_supervision().tracker_id.tolist() == [4, -1]
    assert [detection["id"] for detection in frame_facts(0, tracked)["detections"]] == [4, -1]


def test_save_writes_the_drawn_picture_whole(tmp_path: Path) -> None:
    prediction = Predictor(Backend()).predict(np.zeros((30, 40, 3), dtype=np.uint8))
    path = prediction.save(tmp_path / "new" / "out.png")
    assert np.array_equal(np.asarray(Image.open(path)), prediction.draw())
    assert [p.name for p in path.parent.iterdir()] == ["out.png"]


def test_stream_takes_folders_too(tmp_path: Path) -> None:
    paths = [save_picture(tmp_path / name) for name in ("a.jpg", "b.jpg")]
    assert [p.path for p in Predictor(Backend()).stream(tmp_path)] == [str(path) for path in paths]


def test_stream_takes_videos_with_their_times(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "clip.mp4") as video:
        for number in range(5):
            video.write(np.zeros((32, 48, 3), dtype=np.uint8), number / 10)
    found = list(Predictor(Backend(), batch_size=2).stream(tmp_path / "clip.mp4"))
    assert [p.seconds for p in found] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4], abs=1e-3)
    assert {p.path for p in found} == {str(tmp_path / "clip.mp4")}


def test_stream_takes_an_endless_source_and_holds_one_batch() -> None:
    alive: list[weakref.ref[np.ndarray]] = []

    def camera() -> object:
        for _ in itertools.count():
            image = np.zeros((8, 8, 3), dtype=np.uint8)
            alive.append(weakref.ref(image))
            yield image

    for prediction in itertools.islice(Predictor(Backend(), batch_size=3).stream(camera()), 50):
        assert prediction.image.shape == (8, 8, 3)
    assert len(alive) <= 51 and sum(reference() is not None for reference in alive) <= 4


@pytest.mark.parametrize(("name", "kind"), [("", "a folder"), ("clip.mp4", "a video")])
def test_predict_sends_folders_and_videos_to_stream(tmp_path: Path, name: str, kind: str) -> None:
    if name:
        write_numbered(tmp_path / name, [0])
    with pytest.raises(ValueError, match=f"{kind} is predicted by stream"):
        Predictor(Backend()).predict(tmp_path / name)


def test_a_bad_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"bad\.jpg"):
        Predictor(Backend()).predict(tmp_path / "bad.jpg")


def test_a_task_that_the_model_cannot_do() -> None:
    detector = Backend(ClassNames(("cat", "dog"), ()))
    assert Predictor(detector).tasks == ("detection",)
    with pytest.raises(ValueError, match="this model has detection; asked for was segmentation"):
        Predictor(detector, tasks=["segment"])


def test_category_ids_of_a_ground_truth() -> None:
    prediction = Predictor(Backend(), score=0).predict(np.zeros((30, 40, 3), dtype=np.uint8))
    assert [found["category_id"] for found in prediction.to_coco(1, category_ids={"dog": 18, "cat": 17})] == [
        17,
        18,
    ]
    with pytest.raises(ValueError, match="category_ids has no id for dog; it has cat"):
        prediction.to_coco(1, category_ids={"cat": 17})


def test_a_classs_colour_does_not_depend_on_the_tasks() -> None:
    image = np.zeros((30, 40, 3), dtype=np.uint8)
    both, only = Predictor(Backend()).predict(image), Predictor(Backend(), tasks=["segment"]).predict(image)
    assert both.colours == only.colours and set(both.colours) == {*CLASSES.detection, *CLASSES.segmentation}
    assert np.array_equal(both.draw(labels=False)[1, 30:], only.draw()[1, 30:])


def test_saving_needs_an_image_suffix(tmp_path: Path) -> None:
    prediction = Predictor(Backend()).predict(np.zeros((30, 40, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"out\.txt: the name must end in an image format's suffix: \.bmp"):
        prediction.save(tmp_path / "out.txt")


def test_predictions_and_predictors_print_shortly(tmp_path: Path) -> None:
    predictor = Predictor(Backend(), score=0)
    prediction = predictor.predict(save_picture(tmp_path / "a.png"))
    assert repr(prediction) == f"<{tmp_path / 'a.png'}; 40x30; 1 cat, 1 dog; map of background, dog>"
    empty = PicturePrediction(
        Detections(*prediction_parts(prediction), ("cat",)), image=prediction.image, seconds=1.5
    )
    assert repr(empty) == "<array; 40x30; 1.500 s; no detections>"
    assert (
        repr(predictor)
        == "<Predictor; detection: cat, dog; segmentation: background, cat, dog; score >= 0; batches of 1>"
    )


def prediction_parts(prediction: PicturePrediction) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    found = prediction.detections
    return found.boxes[:0], found.scores[:0], found.labels[:0]


def test_a_backend_that_cannot_average_says_so() -> None:
    with pytest.raises(ValueError, match="--tta and --window"):
        Predictor(Backend()).look(TestTime(flip=True))


def test_a_score_just_as_high_as_asked_is_kept() -> None:
    image = np.zeros((30, 40, 3), dtype=np.uint8)
    found = Predictor(Backend(), score=float(np.float32(0.3))).predict(image).detections
    assert found.names == ["cat", "dog"]
