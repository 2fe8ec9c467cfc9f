from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.fake_model import Backend
from tests.inference.video.clips import write_numbered
from vistasks.drawing.palette import class_colours
from vistasks.inference.images import infer
from vistasks.inference.prediction import PicturePrediction
from vistasks.inference.predictor import Predictor
from vistasks.inference.video.options import InferOptions
from vistasks.inference.video.publishing import without
from vistasks.inference.video.tracking import ByteTrack, Line, LineCounter, VideoTracker, parse_line
from vistasks.types import ClassNames, Detections

NAMES = ("cat", "dog")
SIZE = (240, 320)
ACROSS = Line(0, 120, 320, 120)


Box = tuple[float, float, float, float]


def found(*boxes: Box, labels: list[int] | None = None, scores: list[float] | None = None) -> Detections:
    array = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    classes = np.array(labels or [0] * len(boxes), dtype=np.int64)
    return Detections(array, np.array(scores or [0.9] * len(boxes), dtype=np.float32), classes, NAMES)


def at(x: float, y: float, side: float = 40) -> Box:
    return x - side / 2, y - side / 2, x + side / 2, y + side / 2


def follow(tracker: ByteTrack, *frames: Detections, rate: float = 25) -> list[list[int]]:
    return [tracker.update(frame, number / rate, SIZE).ids.tolist() for number, frame in enumerate(frames)]


def prediction(
    detections: Detections | None, seconds: float, size: tuple[int, int] = SIZE
) -> PicturePrediction:
    return PicturePrediction(
        detections,
        image=np.zeros((*size, 3), np.uint8),
        path="clip.mp4",
        seconds=seconds,
        classes=ClassNames(NAMES),
    )


def test_objects_keep_their_numbers_while_they_pass_each_other() -> None:
    # the detector gives the better one first, so that their order changes
    frames = [found(at(40 + 6 * i, 60), at(280 - 6 * i, 150)) for i in range(20)]
    frames[5:15] = [replace(frame, boxes=frame.boxes[::-1]) for frame in frames[5:15]]
    ids = follow(ByteTrack(rate=25, start=0.5), *frames)
    assert ids[0] == [-1, -1] and sorted(ids[1]) == [1, 2]
    straight = [row[::-1] if 5 <= i < 15 else row for i, row in enumerate(ids)]
    assert straight[1:] == [ids[1]] * 19


def test_detections_stay_as_they_are() -> None:
    given = found(at(40, 60), at(100, 60), at(200, 60), labels=[1, 0, 1], scores=[0.9, 0.2, 0.7])
    tracker = ByteTrack(rate=25, start=0.5)
    for number in range(3):
        tracked = tracker.update(given, number / 25, SIZE)
    assert tracked.boxes is given.boxes and tracked.labels is given.labels and tracked.scores is given.scores
    assert tracked.ids.tolist() == [1, -1, 2] and tracked.ids.dtype == np.int64


def test_two_classes_for_one_object_are_one_object() -> None:
    both = found(at(100, 100), at(102, 101), at(200, 100), labels=[0, 1, 1], scores=[0.7, 0.9, 0.8])
    assert follow(ByteTrack(rate=25, start=0.5), both, both)[-1] == [-1, 1, 2]


def test_an_object_that_is_hidden_for_a_while_comes_back_with_its_number() -> None:
    frames = [found(at(100 + 2 * i, 100)) if not 10 <= i < 20 else found() for i in range(30)]
    assert follow(ByteTrack(rate=25, start=0.5), *frames)[-1] == [1]


def test_an_object_that_is_away_for_long_is_a_new_one() -> None:
    frames = [found(at(100, 100)) if not 10 <= i < 50 else found() for i in range(60)]
    ids = follow(ByteTrack(rate=25, start=0.5), *frames)
    assert ids[9] == [1] and ids[-1] == [2]


def test_a_slow_live_run_does_not_lose_its_objects() -> None:
    frames = [found(at(100 + 4 * i, 100)) for i in range(8)]
    assert follow(ByteTrack(rate=25, start=0.5), *frames, rate=0.5)[-1] == [1]


def test_a_weak_detection_goes_on_with_an_object_but_begins_none() -> None:
    strong, weak = found(at(100, 100)), found(at(100, 100), scores=[0.3])
    assert follow(ByteTrack(rate=25, start=0.5), strong, strong, weak, weak)[-1] == [1]
    assert follow(ByteTrack(rate=25, start=0.5), weak, weak, weak, weak)[-1] == [-1]


def test_times_that_stand_still_or_go_back_are_taken() -> None:
    tracker = ByteTrack(rate=25, start=0.5)
    ids = [
        tracker.update(found(at(100, 100)), seconds, SIZE).ids.tolist() for seconds in (1.0, 1.0, 0.2, 1.04)
    ]
    assert ids[1:] == [[1]] * 3
    without = [
        ByteTrack(rate=25, start=0.5).update(found(at(100, 100)), None, SIZE).ids.tolist() for _ in range(2)
    ]
    assert without == [[-1], [-1]]


def test_numbers_are_never_given_twice_where_the_picture_changes_its_size() -> None:
    tracker = ByteTrack(rate=25, start=0.5)
    first = [tracker.update(found(at(100, 100)), i / 25, (240, 320)).ids.tolist() for i in range(3)]
    second = [tracker.update(found(at(100, 100)), 1 + i / 25, (480, 640)).ids.tolist() for i in range(3)]
    assert first[-1] == [1] and second[-1] == [2] and tracker.remembered == {2}


@pytest.mark.parametrize(("steps", "counts"), [(-8, {"in": 1, "out": 0}), (8, {"in": 0, "out": 1})])
def test_up_over_a_line_from_left_to_right_is_in_and_down_is_out(steps: int, counts: dict[str, int]) -> None:
    tracker = VideoTracker(classes=ClassNames(NAMES), rate=25, start=0.5, lines=[ACROSS])
    for i in range(16):
        seen = tracker.update(prediction(found(at(160, 120 - steps * 7.5 + steps * i)), i / 25))
    assert seen.facts == {"lines": [counts]} and tracker.counters[0].counts == counts


def test_the_left_of_somebody_who_walks_along_the_line_is_in() -> None:
    tracker = VideoTracker(
        classes=ClassNames(NAMES), rate=25, start=0.5, lines=[Line(160, 0, 160, 240), Line(160, 240, 160, 0)]
    )
    for i in range(16):
        seen = tracker.update(prediction(found(at(100 + 8 * i, 120)), i / 25))  # to the right
    assert seen.facts["lines"] == [{"in": 1, "out": 0}, {"in": 0, "out": 1}]


def counted(positions: list[float | None], line: Line = ACROSS) -> dict[str, int]:
    tracker = VideoTracker(classes=ClassNames(NAMES), rate=25, start=0.5, lines=[line])
    for i, y in enumerate(positions):
        tracker.update(prediction(found() if y is None else found(at(160, y)), i / 25))
    return tracker.counters[0].counts


def test_an_object_that_trembles_on_the_line_does_not_count_again_and_again() -> None:
    assert counted([140, 132, 126, *[119, 121] * 10, 126, 132]) == {"in": 0, "out": 0}


def test_an_object_that_is_hidden_while_it_crosses_counts() -> None:
    assert counted([150, 146, 142, 138, 134, *[None] * 6, 106, 102, 98]) == {"in": 1, "out": 0}


def test_an_object_that_passes_beside_the_end_of_the_line_does_not_count() -> None:
    assert counted([150 - 5 * i for i in range(14)], Line(0, 120, 100, 120)) == {"in": 0, "out": 0}


def test_a_line_stays_in_its_place_where_the_picture_changes_its_size() -> None:
    tracker = VideoTracker(classes=ClassNames(NAMES), rate=25, start=0.5, lines=[ACROSS])
    tracker.update(prediction(found(), 0))
    for i in range(12):
        seen = tracker.update(prediction(found(at(320, 300 - 10 * i)), 1 + i / 25, (480, 640)))
    assert seen.facts["lines"] == [{"in": 1, "out": 0}]
    canvas = np.zeros((480, 640, 3), np.uint8)
    seen.overlays[-1](canvas)
    assert canvas[240, 20].any() and not canvas[120, 20].any()


def test_traces_are_in_their_classs_colour_and_stay_as_they_were() -> None:
    tracker = VideoTracker(classes=ClassNames(NAMES), rate=25, start=0.5)
    seen = [tracker.update(prediction(found(at(60 + 8 * i, 100), labels=[1]), i / 25)) for i in range(20)]
    early, late = np.zeros((*SIZE, 3), np.uint8), np.zeros((*SIZE, 3), np.uint8)
    seen[5].overlays[0](early)
    seen[-1].overlays[0](late)
    again = np.zeros_like(late)
    seen[-1].overlays[0](again)
    assert tuple(late[100, 150]) == class_colours(NAMES)[1] and np.array_equal(late, again)
    assert early[100, 90].any() and not early[100, 150].any()
    assert late[100, 76].any() and not late[100, 40].any()


def test_the_traces_of_hidden_classes_are_not_drawn() -> None:
    tracker = VideoTracker(classes=ClassNames(NAMES), rate=25, start=0.5, lines=[ACROSS])
    for i in range(20):
        seen = tracker.update(
            prediction(found(at(60 + 8 * i, 50), at(60 + 8 * i, 190), labels=[0, 1]), i / 25)
        )
    drawn = without(seen, {"dog"}).draw()
    assert drawn[50, 120].any() and not drawn[190].any() and drawn[120, 300].any()
    assert not without(seen, {"dog", "cat"}).draw()[50].any()


def test_a_trace_forgets_what_is_long_ago() -> None:
    tracker = VideoTracker(classes=ClassNames(NAMES), rate=10, start=0.5)
    for i in range(60):
        seen = tracker.update(prediction(found(at(30 + 4 * i, 100)), i / 10))
    canvas = np.zeros((*SIZE, 3), np.uint8)
    seen.overlays[0](canvas)
    drawn = np.flatnonzero(canvas[100].any(axis=1))
    assert 60 <= np.ptp(drawn) <= 90  # two seconds


def test_drawing_goes_over_the_picture() -> None:
    tracker = VideoTracker(classes=ClassNames(NAMES), rate=25, start=0.5, lines=[ACROSS])
    for i in range(4):
        seen = tracker.update(prediction(found(at(60 + 8 * i, 60)), i / 25))
    drawn = seen.draw(labels=False)
    assert drawn[120, 300].all() and not seen.image.any()


def test_frames_without_objects_and_models_without_a_detector() -> None:
    tracker = VideoTracker(classes=ClassNames(NAMES, ("sky",)), rate=25, start=0.5, lines=[Line(0, 1, 2, 3)])
    assert tracker.update(prediction(None, 0)).overlays == ()
    seen = tracker.update(prediction(found(), 0))
    assert len(seen.detections.ids) == 0 and seen.facts == {"lines": [{"in": 0, "out": 0}]}
    assert seen.draw().shape == (*SIZE, 3)


def test_lines_are_read() -> None:
    assert parse_line("0,240, 640,240.5") == (0, 240, 640, 240.5)


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1;2;3;4"])
def test_what_is_no_line_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"--line .*expected four numbers x1,y1,x2,y2 in pixels"):
        parse_line(text)


@pytest.mark.parametrize("text", ["5,5,5,5", "nan,0,1,1", "0,0,inf,1"])
def test_a_line_without_length_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="the line has no length; expected two different points"):
        parse_line(text)


def test_a_line_outside_of_the_picture_is_refused() -> None:
    tracker = VideoTracker(classes=ClassNames(NAMES), rate=25, start=0.5, lines=[Line(0, 500, 320, 500)])
    with pytest.raises(ValueError, match=r"0,500,320,500: .*320x240"):
        tracker.update(prediction(found(), 0))


def test_a_line_counter_alone() -> None:
    counter, tracker = LineCounter(Line(0, 120, 320, 120)), ByteTrack(rate=25, start=0.5)
    for i in range(12):
        seen = tracker.update(found(at(160, 160 - 8 * i)), i / 25, SIZE)
        counter.update(seen, tracker.remembered, SIZE)
    assert counter.counts == {"in": 1, "out": 0}


def test_a_run_with_a_tracker_writes_numbers_and_counts(tmp_path: Path) -> None:
    clip = write_numbered(tmp_path / "clip.mp4", [i / 25 for i in range(4)])
    options = InferOptions(progress=False, line=["0,40,60,40"])
    infer(Predictor(Backend()), clip, tmp_path / "out", options=options)
    lines = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [[found["id"] for found in line["detections"]] for line in lines] == [[-1], [1], [1], [1]]
    assert [line["lines"] for line in lines] == [[{"in": 0, "out": 0}]] * 4


def test_tracking_needs_boxes(tmp_path: Path) -> None:
    clip = write_numbered(tmp_path / "clip.mp4", [0])
    for options, asked in [(InferOptions(track=True), "--track"), (InferOptions(line=["0,0,9,9"]), "--line")]:
        with pytest.raises(ValueError, match=f"{asked}: .*tasks: segmentation"):
            infer(
                Predictor(Backend(), tasks=["segment"]),
                clip,
                tmp_path / "out",
                options=options,
                progress=False,
            )
