from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.metrics.scenes import NAMES, Scene, blank, detections, random_scenes, sample
from tests.paths import shared
from vistasks.metrics import VocAveragePrecision
from vistasks.types import Labelled, Sample

ONE_BASED = np.array([1, 1, 0, 0])  # our boxes + this = the kit's 1-based inclusive corners


def fed(scenes: list[Scene], names: tuple[str, ...] = NAMES, **options: object) -> dict:
    metric = VocAveragePrecision(names, **options)
    for prediction, truth in scenes:
        metric.update(prediction, truth)
    return metric.compute()


def kit_overlap(a: np.ndarray, b: np.ndarray) -> Fraction:
    """The development kit's overlap of inclusive 1-based corners, exactly; 0 where they do not touch."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = ([Fraction(float(v)) for v in box] for box in (a, b))
    width, height = min(ax2, bx2) - max(ax1, bx1) + 1, min(ay2, by2) - max(ay1, by1) + 1
    if width <= 0 or height <= 0:
        return Fraction(0)
    areas = (ax2 - ax1 + 1) * (ay2 - ay1 + 1) + (bx2 - bx1 + 1) * (by2 - by1 + 1)
    return width * height / (areas - width * height)


def kit_ap(scenes: list[Scene], label: int, iou: Fraction, form: str) -> float | None:
    """VOCevaldet.m, read line by line: one detection after the other, exact fractions, inclusive corners."""
    objects = 0
    found_before, ranked = set(), []
    for image, (prediction, truth) in enumerate(scenes):
        objects += int((~(truth.difficult | truth.crowd)[truth.labels == label]).sum())
        rows = zip(prediction.detections.boxes, prediction.detections.scores, prediction.detections.labels)
        ranked += [(score, image, box) for box, score, k in rows if k == label]
    if not objects:
        return None
    ranked.sort(key=lambda row: -row[0])
    hits, misses, curve = 0, 0, []
    for _, image, box in ranked:
        truth = scenes[image][1]
        best, match = Fraction(-1), -1
        for j in np.flatnonzero(truth.labels == label):
            overlap = kit_overlap(box + ONE_BASED, truth.boxes[j] + ONE_BASED)
            if overlap > best:
                best, match = overlap, j
        if best >= iou:
            if truth.difficult[match] or truth.crowd[match]:
                pass
            elif (image, match) in found_before:
                misses += 1
            else:
                hits += 1
                found_before.add((image, match))
        else:
            misses += 1
        curve.append(
            (Fraction(hits, objects), Fraction(hits, hits + misses) if hits + misses else Fraction(0))
        )
    if form == "11-point":
        best_at = [max((p for r, p in curve if float(r) >= t * 0.1), default=Fraction(0)) for t in range(11)]
        return float(sum(best_at, Fraction(0)) / 11)
    area, reached = Fraction(0), Fraction(0)
    for i, (recall, _) in enumerate(curve):
        area += (recall - reached) * max(p for _, p in curve[i:])
        reached = recall
    return float(area)


@settings(deadline=None, max_examples=15)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["11-point", "area"]),
    st.sampled_from([Fraction(1, 2), Fraction(1, 4)]),
)
def test_equals_the_kit_read_line_by_line(seed: int, form: str, iou: Fraction) -> None:
    scenes = random_scenes(seed)
    result = fed(scenes, iou=float(iou), form=form)
    expected = {name: kit_ap(scenes, label, iou, form) for label, name in enumerate(NAMES)}
    assert {name: row["AP"] for name, row in result["per_class"].items()} == pytest.approx(expected, abs=1e-9)
    existing = [value for value in expected.values() if value is not None]
    assert result["mAP"] == pytest.approx(np.mean(existing), abs=1e-9)


def test_eleven_points_are_the_floating_point_levels_of_the_published_figures() -> None:
    """Three of ten objects do not reach 3 * .1, which is more than 3 / 10 in floating point; one of ten
    reaches .1.
    """
    boxes = [[20 * i, 0, 20 * i + 10, 10] for i in range(10)]
    for count, levels in ((1, 2), (3, 3), (4, 5), (10, 11)):
        found = detections(boxes[:count], [0.5] * count, [0] * count)
        result = fed([(found, sample(boxes, [0] * 10))], form="11-point")
        assert result["mAP"] == pytest.approx(levels / 11, abs=1e-12)


@pytest.mark.parametrize("form", ["11-point", "area"])
def test_perfect_is_one_and_nothing_found_is_zero(form: str) -> None:
    truth = sample([[10, 10, 40, 40], [50, 50, 200, 200]], [0, 1])
    result = fed([(detections(truth.boxes, [0.9, 0.8], truth.labels), truth)], form=form)
    assert result["mAP"] == pytest.approx(1) and result["per_class"]["Platelets"] == {
        "AP": None,
        "objects": 0,
    }
    assert fed([(detections([], [], []), truth)], form=form)["mAP"] == 0


def test_overlap_of_exactly_the_threshold_is_enough() -> None:
    truth = sample([[0, 0, 10, 20]], [0])
    half = detections([[0, 0, 10, 10]], [0.5], [0])
    assert fed([(half, truth)], iou=0.5)["mAP"] == 1
    assert fed([(half, truth)], iou=0.51)["mAP"] == 0


def test_every_detection_of_a_difficult_object_is_ignored() -> None:
    truth = sample([[0, 0, 50, 50], [100, 100, 200, 200]], [0, 0], difficult=[False, True])
    found = detections(truth.boxes[[1, 1, 0]], [0.9, 0.8, 0.5], [0, 0, 0])
    assert fed([(found, truth)]) == {
        "protocol": VocAveragePrecision(NAMES).compute()["protocol"],
        "mAP": 1.0,
        "per_class": {
            "RBC": {"AP": 1.0, "objects": 1},
            **{name: {"AP": None, "objects": 0} for name in NAMES[1:]},
        },
    }


def test_of_two_objects_with_the_same_overlap_the_first_counts() -> None:
    twins, found = [[0, 0, 50, 50], [0, 0, 50, 50]], detections([[0, 0, 50, 50]], [0.9], [0])
    assert fed([(found, sample(twins, [0, 0], difficult=[False, True]))])["mAP"] == 1
    assert fed([(found, sample(twins, [0, 0], difficult=[True, False]))])["mAP"] == 0
    both = detections([[0, 0, 50, 50]] * 2, [0.9, 0.8], [0, 0])
    assert (
        fed([(both, sample(twins, [0, 0]))])["mAP"] == 0.5
    )  # the second detection is a duplicate of the first


@pytest.mark.parametrize(
    "options, message",
    [
        ({"iou": 0.0}, r"iou must be in \(0, 1\]"),
        ({"iou": 50}, "iou must"),
        ({"form": "101"}, "form must be"),
    ],
)
def test_unknown_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VocAveragePrecision(NAMES, **options)


def read_voc100(fixtures: Path, voc: Path) -> tuple[list[Scene], tuple[str, ...]]:
    names = tuple((fixtures / "voc100_yolo" / "voc.names").read_text().split())
    scenes = []
    for file in sorted((voc / "Annotations").glob("*.xml")):
        root = ElementTree.parse(file).getroot()
        objects = root.findall("object")
        corners = np.array(
            [[float(o.findtext(f"bndbox/{k}")) for k in ("xmin", "ymin", "xmax", "ymax")] for o in objects]
        )
        truth = Sample(
            file.stem,
            file.name,
            blank(*(int(root.findtext(f"size/{side}")) for side in ("height", "width"))),
            boxes=half_open(corners),
            labels=np.array([names.index(o.findtext("name")) for o in objects], np.int64),
            difficult=np.array([o.findtext("difficult") == "1" for o in objects]),
            labelled=Labelled(detection=frozenset(range(20))),
        )
        found = fixtures / "voc100_yolo" / "dets_abs_xyx2y2" / f"{file.stem}.txt"  # two images have none
        rows = np.loadtxt(found, ndmin=2) if found.exists() else np.zeros((0, 6))
        scenes.append((detections(half_open(rows[:, 2:]), rows[:, 1], rows[:, 0], names), truth))
    return scenes, names


def half_open(corners: np.ndarray) -> np.ndarray:
    """1-based inclusive corners -> our boxes."""
    return (corners - ONE_BASED).astype(np.float32)


@pytest.mark.parametrize("form, key", [("11-point", "AP_voc07_11pt"), ("area", "AP_area")])
def test_known_answers_of_voc100(form: str, key: str) -> None:
    fixtures = shared("eval_fixtures")
    expected = json.loads((fixtures / "expected.json").read_text())["voc100_yolo"][key]
    scenes, names = read_voc100(fixtures, shared("voc2012_100"))
    result = fed(scenes, names, form=form)
    assert result["mAP"] == pytest.approx(expected["mAP"], abs=1e-9)
    assert {name: row["AP"] for name, row in result["per_class"].items()} == pytest.approx(
        expected["per_class"], abs=1e-9
    )


@pytest.mark.parametrize("form, key", [("11-point", "AP_11pt"), ("area", "AP_all_points")])
def test_known_answers_of_odm7(form: str, key: str) -> None:
    """Published with x2 = x + width *and* inclusive pixels, so that its boxes are one pixel larger than their
    width says.
    """
    fixtures = shared("eval_fixtures")
    expected = json.loads((fixtures / "expected.json").read_text())["odm7"]["published"]
    scenes = []
    for file in sorted((fixtures / "odm7" / "gts").glob("*.txt")):
        objects = np.array([line.split()[1:] for line in file.read_text().splitlines()], float)
        found = np.array(
            [line.split()[1:] for line in (file.parent.parent / "dets" / file.name).read_text().splitlines()],
            float,
        )
        truth = sample(larger(objects), [0] * len(objects), image_id=file.stem, names=("object",))
        scenes.append((detections(larger(found[:, 1:]), found[:, 0], [0] * len(found), ("object",)), truth))
    for iou, average in zip(expected["iou"], expected[key]):
        assert fed(scenes, ("object",), iou=iou, form=form)["mAP"] == pytest.approx(average, abs=1e-9)


def larger(xywh: np.ndarray) -> np.ndarray:
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:] + 1], axis=1)
