"""Objects followed through a video: their numbers, traces of where they were, counts of those that cross a
line.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import supervision as sv
from supervision.annotators.utils import Trace
from supervision.geometry.core import Vector

from vistasks.drawing.draw import drawing_scale
from vistasks.drawing.palette import Colour, model_colours
from vistasks.types import ClassNames, Detections

if TYPE_CHECKING:
    from vistasks.inference.prediction import Overlay, PicturePrediction

_KEEP_SECONDS = 1.0  # an object that is not detected for so long is forgotten ...
_KEEP_FRAMES = 5  # ... unless frames come more slowly than this many a second
_SAME = 0.7  # intersection over union from which on two boxes are one object, of whatever classes
_TRACE_SECONDS = 2.0
_SETTLED = 2  # frames on the other side of a line after which an object has crossed it


class Line(NamedTuple):
    """A line that is counted at, from (x1, y1) to (x2, y2) in pixels of the first frame."""

    x1: float
    y1: float
    x2: float
    y2: float


def parse_line(text: str) -> Line:
    """``"x1,y1,x2,y2"`` -> `Line`. Raises a ``ValueError`` that says what was expected."""
    try:
        line = Line(*(float(part) for part in text.split(",")))
    except (TypeError, ValueError):
        raise ValueError(
            f"--line {text}: expected four numbers x1,y1,x2,y2 in pixels, such as 0,240,640,240"
        ) from None
    if not np.isfinite(line).all() or line[:2] == line[2:]:
        raise ValueError(f"--line {text}: the line has no length; expected two different points x1,y1,x2,y2")
    return line


class ByteTrack:
    """Numbers objects from frame to frame by ByteTrack (Zhang et al., ECCV 2022; the package ``trackers``).

    It looks at boxes, scores and times alone: a detection belongs to the object whose box, moved on as it
    moved before, it overlaps most, whatever its class. Numbers begin at 1, are never given twice, and appear
    at an object's second frame in a row. Of boxes that cover each other, as two classes for one object, the
    best has the number. Where the picture changes its size, all objects are new.

    Args:
        rate: frames per second, roughly; what counts are the frames' times.
        start: a detection with at least this score can begin an object; a weaker one can only go on with one.
    """

    def __init__(self, *, rate: float, start: float) -> None:
        from trackers import ByteTrackTracker  # takes seconds to import

        self._tracker = ByteTrackTracker(
            frame_rate=rate, track_activation_threshold=start, high_conf_det_threshold=start
        )
        self._size: tuple[int, ...] = ()
        self._first, self._highest = 1, 0  # of the numbers since the size changed; of all
        self._time: float | None = None
        self._gap: float | None = None  # between frames, typically

    def update(self, detections: Detections, seconds: float | None, size: tuple[int, ...]) -> Detections:
        """The same detections in the same order, with ``ids``; ``size`` is the picture's (height, width)."""
        if self._size and size != self._size:
            self._tracker.reset()
            self._first = self._highest + 1
        self._size = size
        given = sv.Detections(
            xyxy=detections.boxes.astype(np.float64),
            confidence=detections.scores,
            class_id=detections.labels,
            data={"place": np.arange(len(detections))},
        ).with_nms(_SAME, class_agnostic=True)
        found = self._tracker.update(given, timestamp=self._timed(seconds))
        ids = np.full(len(detections), -1, dtype=np.int64)
        if len(found) and found.tracker_id is not None:
            ids[found.data["place"]] = np.where(found.tracker_id < 0, -1, found.tracker_id + self._first)
            self._highest = max(self._highest, int(ids.max()))
        return replace(detections, ids=ids)

    @property
    def remembered(self) -> frozenset[int]:
        """The numbers of objects that would be recognised now, detected in the last frame or not."""
        numbers = self._tracker.tracked_objects.tracker_id
        return frozenset() if numbers is None else frozenset((numbers + self._first).tolist())

    def _timed(self, seconds: float | None) -> float | None:
        """The frame's time, later than the last one's; how long objects are kept follows from the times
        between frames.
        """
        if seconds is None:
            return None
        if self._time is not None:
            seconds = max(seconds, self._time + 1e-3)
            gap = seconds - self._time
            self._gap = gap if self._gap is None else 0.8 * self._gap + 0.2 * min(gap, 4 * self._gap)
            self._tracker.maximum_time_without_update = max(_KEEP_SECONDS, _KEEP_FRAMES * self._gap)
        self._time = seconds
        return seconds


class LineCounter:
    """Counts objects whose box's centre crosses a line (supervision's ``LineZone``).

    "in" is from the right of the line to its left, as seen by someone who walks from its first point to its
    second: over 0,240,640,240 that is upwards. An object counts once it has been on the other side for two
    frames, so that one that trembles on the line does not, and also where it was hidden while it crossed.
    Where the picture changes its size, the line stays in its place."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self._zone = sv.LineZone(
            start=sv.Point(line.x1, line.y1),
            end=sv.Point(line.x2, line.y2),
            triggering_anchors=[sv.Position.CENTER],
            minimum_crossing_threshold=_SETTLED,
        )
        self._size: tuple[int, ...] = ()
        self._last: dict[int, tuple[np.ndarray, int]] = {}

    def update(self, detections: Detections, remembered: frozenset[int], size: tuple[int, ...]) -> None:
        """Takes the next frame's detections with ``ids``, and the numbers of objects that may come back."""
        self._size = self._size or size
        scale = np.array([self._size[1] / size[1], self._size[0] / size[0]] * 2)
        assert detections.ids is not None
        for number, box, label in zip(
            detections.ids.tolist(), detections.boxes * scale, detections.labels.tolist()
        ):
            if number >= 0:
                self._last[number] = box, label
        self._last = {number: last for number, last in self._last.items() if number in remembered}
        # one that is not detected stays where it was, or LineZone would forget on which side that is
        self._zone.trigger(
            sv.Detections(
                xyxy=np.array([box for box, _ in self._last.values()]).reshape(-1, 4),
                class_id=np.array([label for _, label in self._last.values()], dtype=int),
                tracker_id=np.array(list(self._last), dtype=int),
            )
        )

    @property
    def counts(self) -> dict[str, int]:
        """``in`` and ``out`` so far."""
        return {"in": self._zone.in_count, "out": self._zone.out_count}

    def overlay(self, size: tuple[int, ...]) -> LineOverlay:
        """The line and its counts as they are now, for a picture of this (height, width)."""
        width, height = size[1] / self._size[1], size[0] / self._size[0]
        ends = (
            sv.Point(self.line.x1 * width, self.line.y1 * height),
            sv.Point(self.line.x2 * width, self.line.y2 * height),
        )
        return LineOverlay(Vector(*ends), self._zone.in_count, self._zone.out_count)


@dataclass(frozen=True)
class LineOverlay:
    """Draws a line with its counts, each on the side to which was counted."""

    vector: Vector
    in_count: int
    out_count: int

    def __call__(self, canvas: np.ndarray) -> None:
        scale = drawing_scale(canvas)
        annotator = sv.LineZoneAnnotator(
            thickness=max(1, round(2 * scale)),
            text_thickness=max(1, round(scale)),
            text_scale=0.5 * scale,
            text_padding=max(2, round(5 * scale)),
            text_orient_to_line=True,
        )
        annotator.annotate(canvas, self)  # type: ignore[arg-type] # it reads the vector and the two counts

    def without(self, hidden: Collection[str]) -> LineOverlay:
        """The same: a line counts all classes."""
        return self


@dataclass(frozen=True, eq=False)
class TraceOverlay:
    """Draws where the detected objects were: a line through the centres of their boxes in their class's
    colour.
    """

    before: Trace
    detections: sv.Detections
    colours: Mapping[str, Colour]
    frames: int

    def __call__(self, canvas: np.ndarray) -> None:
        # pictures are RGB here, BGR in supervision
        palette = sv.ColorPalette([sv.Color(*reversed(colour)) for colour in self.colours.values()])
        thickness = max(1, round(2 * drawing_scale(canvas)))
        annotator = sv.TraceAnnotator(color=palette, trace_length=self.frames, thickness=thickness)
        annotator.trace = copy.copy(self.before)
        annotator.annotate(canvas, self.detections)

    def without(self, hidden: Collection[str]) -> TraceOverlay:
        """The traces of the other classes."""
        shown = np.array([name not in hidden for name in self.colours], dtype=bool)
        kept: Any = self.detections[shown[np.asarray(self.detections.class_id, dtype=int)]]
        return replace(self, detections=kept)


class VideoTracker:
    """A `vistasks.inference.video.protocols.Tracker`: numbers by `ByteTrack`, traces, counts at lines.

    The frame's facts get ``lines``: for each line, how many went ``in`` and ``out`` so far.

    Args:
        classes: the model's; they choose the colours.
        rate: frames per second, roughly.
        start: the score from which on a detection can begin an object.
        lines: where to count.
    """

    def __init__(self, *, classes: ClassNames, rate: float, start: float, lines: Sequence[Line] = ()) -> None:
        self._identities = ByteTrack(rate=rate, start=start)
        self.counters = [LineCounter(line) for line in lines]
        colours = model_colours(classes)
        self._colours = {name: colours[name] for name in classes.detection}
        self._frames = max(2, round(_TRACE_SECONDS * rate))
        self._trace, self._size = Trace(max_size=self._frames), ()

    def update(self, prediction: PicturePrediction) -> PicturePrediction:
        """The prediction with ids, a trace and the lines as overlays, and the counts as facts."""
        found, size = prediction.detections, prediction.image.shape[:2]
        if found is None:
            return prediction
        if size != self._size:
            self._check_lines(size)
            self._trace, self._size = Trace(max_size=self._frames), size
        found = self._identities.update(found, prediction.seconds, size)
        for counter in self.counters:
            counter.update(found, self._identities.remembered, size)
        overlays: list[Overlay] = [self._traced(found), *(counter.overlay(size) for counter in self.counters)]
        facts = {"lines": [counter.counts for counter in self.counters]} if self.counters else {}
        return replace(
            prediction,
            detections=found,
            overlays=(*prediction.overlays, *overlays),
            facts={**prediction.facts, **facts},
        )

    def _traced(self, found: Detections) -> TraceOverlay:
        assert found.ids is not None
        known = found.ids >= 0
        current = sv.Detections(
            xyxy=found.boxes[known], class_id=found.labels[known], tracker_id=found.ids[known]
        )
        before = copy.copy(self._trace)  # put makes new arrays, so this one stays as it is
        self._trace.put(current)
        return TraceOverlay(before, current, self._colours, self._frames)

    def _check_lines(self, size: tuple[int, ...]) -> None:
        if self._size:
            return  # lines are in pixels of the first frame
        height, width = size
        for line in (counter.line for counter in self.counters):
            xs, ys = (line.x1, line.x2), (line.y1, line.y2)
            if max(xs) < 0 or max(ys) < 0 or min(xs) > width or min(ys) > height:
                text = ",".join(f"{value:g}" for value in line)
                raise ValueError(f"--line {text}: outside the image of {width}x{height} pixels")
