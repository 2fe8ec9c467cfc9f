from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.metrics.scenes import NAMES, Scene, blank, detections, random_scenes, sample
from tests.paths import shared
from vistasks.metrics import CocoAveragePrecision
from vistasks.metrics.coco_ap import TWELVE
from vistasks.types import Labelled, Sample


def fed(scenes: list[Scene], names: tuple[str, ...] = NAMES, **options: str) -> dict:
    metric = CocoAveragePrecision(names, **options)
    for prediction, truth in scenes:
        metric.update(prediction, truth)
    return metric.compute()


def as_json(scenes: list[Scene]) -> tuple[dict, list[dict]]:
    """What a person would hand to pycocotools: an instances json and a list of results, ids in the scenes'
    order.
    """
    annotations, results = [], []
    for image, (prediction, truth) in enumerate(scenes, start=1):
        for i, (x1, y1, x2, y2) in enumerate(truth.boxes.astype(np.float64).tolist()):
            box, category = [x1, y1, x2 - x1, y2 - y1], int(truth.labels[i]) + 1
            size = {"bbox": box, "area": float(truth.areas[i]), "iscrowd": int(truth.crowd[i])}
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": category, **size}
            )
        found = prediction.detections
        for box, score, label in zip(
            found.boxes.astype(np.float64).tolist(), found.scores.tolist(), found.labels.tolist()
        ):
            box = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            results.append({"image_id": image, "category_id": label + 1, "bbox": box, "score": score})
    images = [{"id": image + 1, "width": 320, "height": 240} for image in range(len(scenes))]
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(NAMES)]
    return {"images": images, "categories": categories, "annotations": annotations}, results


def pycocotools_stats(truth: dict, results: list[dict]) -> dict[str, float | None]:
    """The twelve numbers straight from pycocotools' own loading and summary."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO()
        data.dataset = truth
        data.createIndex()
        evaluation = COCOeval(data, data.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: None if value == -1 else float(value) for name, value in zip(TWELVE, evaluation.stats)}


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_both_engines_equal_pycocotools_on_its_own(seed: int) -> None:
    scenes = random_scenes(seed, 14)  # 14 images: "image 10" must come after "image 9"
    expected = pycocotools_stats(*as_json(scenes))
    by_engine = {
        engine: fed(scenes, engine=engine, difficult="count") for engine in ("hotcoco", "pycocotools")
    }
    for result in by_engine.values():
        assert {name: result[name] for name in TWELVE} == pytest.approx(expected, abs=1e-9)
    for name in NAMES:
        row, referee = (by_engine[engine]["per_class"][name] for engine in ("hotcoco", "pycocotools"))
        assert row == pytest.approx(referee, abs=1e-9)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**32 - 1))
def test_equal_scores_are_taken_in_the_order_of_the_file_s_ids(seed: int) -> None:
    scenes = []
    for number, (prediction, truth) in enumerate(random_scenes(seed, 14)):
        found = prediction.detections
        tied = replace(prediction, detections=replace(found, scores=found.scores.round(1)))
        scenes.append((tied, replace(truth, image_id=f"name_{99 - number}")))  # names run the other way round
    expected = pycocotools_stats(*as_json(scenes))
    for engine in ("hotcoco", "pycocotools"):
        metric = CocoAveragePrecision(NAMES, engine=engine, difficult="count")
        metric.order([truth.image_id for _, truth in scenes])
        for prediction, truth in scenes[::-1]:
            metric.update(prediction, truth)
        result = metric.compute()
        assert {name: result[name] for name in TWELVE} == pytest.approx(expected, abs=1e-9)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**32 - 1))
def test_engines_agree_on_ignored_difficult_objects(seed: int) -> None:
    scenes = random_scenes(seed)
    result, referee = fed(scenes), fed(scenes, engine="pycocotools")
    assert {name: result[name] for name in TWELVE} == pytest.approx(
        {name: referee[name] for name in TWELVE}, abs=1e-9
    )


def test_class_ap_averages_to_ap_and_absent_classes_have_none() -> None:
    result = fed(random_scenes(11, 30))
    rows = result["per_class"]
    assert rows["never there"] == {"AP": None, "AP50": None, "AP75": None, "objects": 0}
    for key in ("AP", "AP50", "AP75"):
        assert np.mean([rows[name][key] for name in NAMES[:3]]) == pytest.approx(result[key], abs=1e-12)


def test_found_exactly_is_one_and_nothing_found_is_zero() -> None:
    truth = sample([[10, 10, 40, 40], [50, 50, 200, 200]], [0, 1])
    perfect = fed([(detections(truth.boxes, [0.9, 0.8], truth.labels), truth)])
    assert [perfect[key] for key in ("AP", "AR1", "APs", "APl")] == pytest.approx([1, 1, 1, 1])
    assert perfect["APm"] is None and perfect["ARm"] is None
    nothing = fed([(detections([], [], []), truth)])
    assert nothing["AP"] == nothing["AR100"] == 0.0


def test_image_without_objects_costs_precision() -> None:
    truth = sample([[10, 10, 90, 90]], [0], image_id="a")
    empty = sample([], [], image_id="b")
    hit, invented = detections(truth.boxes, [0.5], [0]), detections([[0, 0, 50, 50]], [0.9], [0])
    assert fed([(hit, truth), (detections([], [], []), empty)])["AP"] == pytest.approx(1)
    assert fed([(hit, truth), (invented, empty)])["AP"] == pytest.approx(0.5)


def test_difficult_objects_are_ignored_once_or_counted() -> None:
    truth = sample([[0, 0, 50, 50], [100, 100, 200, 200]], [0, 0], difficult=[False, True])
    one, two = (
        detections(truth.boxes, [0.5, 0.9], [0, 0]),
        detections(truth.boxes[[0, 1, 1]], [0.5, 0.9, 0.8], [0, 0, 0]),
    )
    for engine in ("hotcoco", "pycocotools"):
        result = fed([(one, truth)], engine=engine)
        assert result["AP"] == pytest.approx(1) and result["per_class"]["RBC"]["objects"] == 1
        assert fed([(two, truth)], engine=engine)["AP"] == pytest.approx(
            0.5
        )  # its duplicate is a false positive
        assert fed([(detections(truth.boxes[:1], [0.5], [0]), truth)], engine=engine)["AP"] == pytest.approx(
            1
        )
        missed = fed([(detections(truth.boxes[:1], [0.5], [0]), truth)], engine=engine, difficult="count")
        assert missed["AR100"] == pytest.approx(0.5) and missed["per_class"]["RBC"]["objects"] == 2


def test_crowds_swallow_every_detection_inside() -> None:
    truth = sample([[0, 0, 50, 50], [100, 100, 200, 200]], [0, 0], crowd=[False, True])
    inside = detections(
        [[0, 0, 50, 50], [100, 100, 150, 150], [150, 150, 190, 200]], [0.5, 0.9, 0.8], [0, 0, 0]
    )
    result = fed([(inside, truth)])
    assert result["AP"] == pytest.approx(1) and result["per_class"]["RBC"]["objects"] == 1


def test_sample_areas_decide_the_size_range() -> None:
    truth = sample([[0, 0, 100, 100]], [0], areas=np.array([1000], np.float32))
    result = fed([(detections(truth.boxes, [0.5], [0]), truth)])
    assert result["APs"] == pytest.approx(1) and result["APl"] is None


def test_classes_not_labelled_on_an_image_take_no_part() -> None:
    everything = sample([[0, 0, 50, 50], [100, 100, 200, 200]], [0, 1], image_id="a")
    perfect = (detections(everything.boxes, [0.5, 0.5], [0, 1]), everything)
    # here only RBC is labelled: a WBC is marked nevertheless, and another one is claimed with the highest
    # score of all
    partly = replace(
        sample(everything.boxes, [0, 1], image_id="b"), labelled=Labelled(detection=frozenset({0}))
    )
    found = detections([[0, 0, 50, 50], [60, 60, 90, 90]], [0.8, 0.9], [0, 1])
    result = fed([perfect, (found, partly)])
    assert [row["objects"] for row in result["per_class"].values()] == [2, 1, 0, 0]
    assert result["AP"] == result["AR100"] == pytest.approx(1)
    assert fed([perfect, (found, replace(partly, labelled=everything.labelled))])["AP"] < 0.9


@pytest.mark.parametrize("engine", ["hotcoco", "pycocotools"])
def test_nothing_is_printed(engine: str, capfd: pytest.CaptureFixture[str]) -> None:
    fed(random_scenes(12), engine=engine)
    assert capfd.readouterr() == ("", "")


def test_protocol_names_the_engine_its_version_and_the_rules() -> None:
    protocol = fed(random_scenes(13, 2))["protocol"]
    assert (
        "hotcoco 1." in protocol
        and "difficult objects ignored" in protocol
        and "maxDets 1/10/100" in protocol
    )
    other = fed(random_scenes(13, 2), engine="pycocotools", difficult="count")["protocol"]
    assert "pycocotools 2." in other and "difficult objects counted" in other


@pytest.mark.parametrize(
    "options, message",
    [({"engine": "rust"}, "engine must be one of"), ({"difficult": "no"}, "difficult must")],
)
def test_unknown_options(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CocoAveragePrecision(NAMES, **options)


def read_coco(folder: Path, truth_name: str, results_name: str) -> tuple[list[Scene], tuple[str, ...]]:
    """An instances json and a results json as scenes; written here so that the data room is not tested
    along.
    """
    truth, results = (json.loads((folder / name).read_text()) for name in (truth_name, results_name))
    categories = sorted(truth["categories"], key=lambda category: category["id"])
    names, ids = tuple(c["name"] for c in categories), {c["id"]: k for k, c in enumerate(categories)}
    scenes = []
    for image in truth["images"]:
        marked = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        found = [a for a in results if a["image_id"] == image["id"]]
        objects = Sample(
            str(image["id"]),
            image["file_name"],
            blank(image["height"], image["width"]),
            boxes=_corners(marked),
            labels=np.array([ids[a["category_id"]] for a in marked], np.int64),
            crowd=np.array([a["iscrowd"] for a in marked], bool),
            areas=np.array([a["area"] for a in marked], np.float32),
            labelled=Labelled(detection=frozenset(range(len(names)))),
        )
        scores, labels = [a["score"] for a in found], [ids[a["category_id"]] for a in found]
        scenes.append((detections(_corners(found), scores, labels, names), objects))
    return scenes, names


def _corners(annotations: list[dict]) -> np.ndarray:
    xywh = np.array([a["bbox"] for a in annotations], np.float64).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1).astype(np.float32)


FIXTURES = {
    "coco_fake100": ("instances_val2014_100.json", "instances_val2014_fakebbox100_results.json"),
    "coco_small": ("gt_dataset.json", "dt_dataset.json"),
}


@pytest.mark.parametrize("engine", ["hotcoco", "pycocotools"])
@pytest.mark.parametrize("name", list(FIXTURES))
def test_known_answers(name: str, engine: str) -> None:
    folder = shared("eval_fixtures")
    expected = json.loads((folder / "expected.json").read_text())[name]["bbox"]
    scenes, names = read_coco(folder / name, *FIXTURES[name])
    result = fed(scenes, names, engine=engine)
    wanted = {key: None if value == -1 else value for key, value in expected.items()}
    assert {key: result[key] for key in TWELVE} == pytest.approx(wanted, abs=1e-9)
