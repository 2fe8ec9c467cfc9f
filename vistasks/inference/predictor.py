"""The user's object: load a trained model, predict pictures, stream videos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, overload

import numpy as np
from PIL import Image

from vistasks.datasets.images import IMAGE_SUFFIXES, read_image
from vistasks.drawing.draw import draw
from vistasks.drawing.palette import Colour, model_colours
from vistasks.inference.sources import is_video, list_pictures
from vistasks.inference.video.protocols import Overlay
from vistasks.ops.box_fusion import BoxFusion
from vistasks.system.atomic import replacing
from vistasks.types import ClassNames, Detections, Prediction

if TYPE_CHECKING:
    from vistasks.heads.test_time import TestTime

TASKS = ("detect", "segment")


class Model(Protocol):
    """What predicts a batch: boxes and class maps in pixels of the pictures as they were before batching."""

    def predict(self, batch: Any) -> list[Prediction]: ...


class PredictorBackend(Protocol):
    """What a predictor drives; `vistasks.inference.loaded.LoadedModel` is one. ``make_batch`` gives what the
    model takes.
    """

    @property
    def model(self) -> Model: ...

    @property
    def classes(self) -> ClassNames: ...

    def propose(self, image: np.ndarray) -> np.ndarray | None: ...

    def make_batch(self, images: Sequence[np.ndarray], proposals: Sequence[np.ndarray] | None) -> Any: ...


class Picture(NamedTuple):
    """What is predicted: image (H, W, 3) uint8 RGB; the file's path, "" for an array; the time of a video's
    frame.
    """

    image: np.ndarray
    path: str = ""
    seconds: float | None = None


@dataclass(frozen=True, eq=False, repr=False)
class PicturePrediction(Prediction):
    """A `Prediction` with its picture: image (H, W, 3) uint8 RGB; path, "" for an array; seconds, of a
    video's frame.

    ``classes`` are the model's; they choose the colours. ``overlays`` are drawn on top of everything (see
    `vistasks.inference.video.protocols`), ``facts`` go into the frame's line of results.jsonl; a tracker adds
    both."""

    image: np.ndarray = None  # type: ignore[assignment] # always given
    path: str = ""
    seconds: float | None = None
    classes: ClassNames = field(default_factory=ClassNames)
    overlays: tuple[Overlay, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        facts = [self.path or "array", f"{width}x{height}"]
        facts += [f"{self.seconds:.3f} s"] if self.seconds is not None else []
        if self.detections is not None:
            counts = Counter(self.detections.names)
            facts.append(
                ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "no detections"
            )
        if self.segmentation is not None:
            present = [
                name
                for i, name in enumerate(self.segmentation.names)
                if (self.segmentation.labels == i).any()
            ]
            facts.append(f"map of {', '.join(present)}")
        return f"<{'; '.join(facts)}>"

    @property
    def colours(self) -> dict[str, Colour]:
        """The (red, green, blue) of each class name."""
        return model_colours(self.classes)

    def draw(
        self, *, labels: bool = True, legend: bool = True, colours: Mapping[str, Colour] | None = None
    ) -> np.ndarray:
        """The picture with boxes, names and class map drawn on it, (H, W, 3) uint8 RGB; see
        `vistasks.drawing.draw.draw`.
        """
        canvas = draw(
            self.image, self, labels=labels, legend=legend, colours={**self.colours, **(colours or {})}
        )
        for overlay in self.overlays:
            overlay(canvas)
        return canvas

    def save(self, path: str | Path) -> Path:
        """Writes `draw` to an image file, whole or not at all; the suffix chooses the format. Returns the
        path.
        """
        path = Path(path)
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise ValueError(
                f"{path}: the name must end in an image format's suffix: {', '.join(sorted(IMAGE_SUFFIXES))}"
            )
        with replacing(path) as temporary:
            Image.fromarray(self.draw()).save(temporary, quality=92)
        return path

    def to_coco(
        self, image_id: int = 1, *, category_ids: Mapping[str, int] | None = None
    ) -> list[dict[str, Any]]:
        """The detections as COCO results: ``bbox`` is x, y, width, height in pixels. None found, or none
        looked for: [].

        Args:
            image_id: the picture's id in the ground truth.
            category_ids: of class names; default: class id + 1. A ``ValueError`` where one is missing.
        """
        found = self.detections
        if found is None:
            return []
        if category_ids is None:
            category_ids = {name: number + 1 for number, name in enumerate(found.class_names)}
        missing = sorted(set(found.names) - set(category_ids))
        if missing:
            raise ValueError(
                f"category_ids has no id for {', '.join(missing)}; it has {', '.join(category_ids) or 'none'}"
            )
        return [
            {
                "image_id": image_id,
                "category_id": category_ids[name],
                "bbox": [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])],
                "score": float(score),
            }
            for box, score, name in zip(found.boxes.astype(np.float64), found.scores, found.names)
        ]

    def to_supervision(self) -> Any:
        """The detections as ``supervision.Detections`` with ``class_name`` data, and ``tracker_id`` where
        they are tracked.
        """
        import supervision as sv

        found = self.detections
        if found is None:
            return sv.Detections.empty()
        names: dict[str, Any] = {"class_name": np.array(found.names, dtype=str)}
        return sv.Detections(
            xyxy=found.boxes, confidence=found.scores, class_id=found.labels, tracker_id=found.ids, data=names
        )


class Predictor:
    """Predicts with a trained model.

    Args:
        backend: the loaded model.
        tasks: which of its answers are given: "detect", "segment"; what the model cannot do is left out,
            unless nothing remains. Without "detect" no proposals are computed.
        score: detections below this score are left out.
        batch_size: pictures that go through the network at once.
    """

    def __init__(
        self,
        backend: PredictorBackend,
        *,
        tasks: Sequence[str] = TASKS,
        score: float = 0.5,
        batch_size: int = 1,
    ) -> None:
        unknown = sorted(set(tasks) - set(TASKS))
        if unknown or not tasks:
            raise ValueError(f"tasks are {' and '.join(TASKS)}; received: {', '.join(tasks) or 'none'}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; received {batch_size}")
        if not 0 <= score <= 1:
            raise ValueError(f"score must be from 0 to 1; received {score}")
        able = {"detect": bool(backend.classes.detection), "segment": bool(backend.classes.segmentation)}
        self.tasks = tuple(task for task in tasks if able[task])
        if not self.tasks:
            can = " and ".join(task for task in TASKS if able[task])
            raise ValueError(f"this model can {can or 'do nothing'}; asked for was {' and '.join(tasks)}")
        self.backend, self.score, self.batch_size = backend, score, batch_size

    def __repr__(self) -> str:
        known = {"detect": self.classes.detection, "segment": self.classes.segmentation}
        parts = [f"{task}: {', '.join(known[task])}" for task in self.tasks]
        return f"<Predictor; {'; '.join(parts)}; score >= {self.score}; batches of {self.batch_size}>"

    @property
    def classes(self) -> ClassNames:
        """The class names of the two tasks."""
        return self.backend.classes

    def speed_up(self, *, half: bool = False, compiled: bool = False, cuda_graphs: bool = False) -> None:
        """Predicts in 16 bits, with a compiled trunk or one from CUDA graphs; see
        `vistasks.inference.loaded.LoadedModel.speed_up`.

        Raises a ``ValueError`` where the backend cannot.
        """
        if not (half or compiled or cuda_graphs):
            return
        if not hasattr(self.backend, "speed_up"):
            raise ValueError("this model is run as it is: it takes none of --half, --compile, --cuda-graphs")
        self.backend.speed_up(half=half, compiled=compiled, cuda_graphs=cuda_graphs)

    def look(self, test_time: TestTime) -> None:
        """Looks at each picture flipped, scaled and window by window; see `vistasks.heads.test_time`.

        Raises a ``ValueError`` where the backend cannot.
        """
        if not hasattr(self.backend, "look"):
            raise ValueError("this model is run as it is: it takes neither --tta nor --window")
        self.backend.look(test_time)

    @overload
    def predict(self, source: str | Path | np.ndarray) -> PicturePrediction: ...

    @overload
    def predict(
        self, source: list[str] | list[Path] | list[np.ndarray] | tuple[str | Path | np.ndarray, ...]
    ) -> list[PicturePrediction]: ...

    def predict(self, source: Any) -> Any:
        """One `PicturePrediction` for a path or an array (H, W, 3) uint8 RGB, or a list of them for a list.

        Raises:
            ValueError: not a picture (the file is named), or a folder or a video: those go to `stream`.
        """
        if isinstance(source, list | tuple):
            return list(self.predict_pictures(_picture(item) for item in source))
        return next(self.predict_pictures([_picture(source)]))

    def stream(self, source: str | Path | Iterable[str | Path | np.ndarray]) -> Iterator[PicturePrediction]:
        """Predictions one after another, in order and constant memory.

        Args:
            source: a video file, a camera or an address (see `vistasks.inference.video.opening.open_frames`),
                whose stages work side by side while you look at a prediction; a picture, a folder, a glob
                pattern, or anything that gives paths or arrays, endless or not.
        """
        if not isinstance(source, str | Path):
            return self.predict_pictures(_picture(item) for item in source)
        from vistasks.inference.video.stream import stream_frames  # the pipeline stands on this module

        frames = stream_frames(self, source)
        return (
            self.predict_pictures(_picture(path) for path in list_pictures(source))
            if frames is None
            else frames
        )

    def predict_pictures(self, pictures: Iterable[Picture]) -> Iterator[PicturePrediction]:
        """Predictions of pictures in order, ``batch_size`` of them held at once."""
        remaining = iter(pictures)
        while chunk := list(islice(remaining, self.batch_size)):
            for picture, prediction in zip(
                chunk, self._batch([picture.image for picture in chunk]), strict=True
            ):
                yield self.answer(picture, prediction)

    def answer(self, picture: Picture, prediction: Prediction) -> PicturePrediction:
        """What the user gets of what the model says: the tasks asked for, detections from the score threshold
        on.
        """
        detections = _above(prediction.detections, self.score) if "detect" in self.tasks else None
        segmentation = prediction.segmentation if "segment" in self.tasks else None
        return PicturePrediction(detections, segmentation, *picture, self.classes)

    def _batch(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        proposals = None
        if "detect" in self.tasks:
            found = [self.backend.propose(image) for image in images]
            proposals = [boxes for boxes in found if boxes is not None] or None
        return self.backend.model.predict(self.backend.make_batch(images, proposals))


def _above(found: Detections | None, score: float) -> Detections | None:
    if found is None:
        return None
    kept = found.scores >= score
    ids = None if found.ids is None else found.ids[kept]
    return Detections(found.boxes[kept], found.scores[kept], found.labels[kept], found.class_names, ids)


def _picture(source: Any) -> Picture:
    if isinstance(source, str | Path):
        if is_video(source) or Path(source).is_dir():
            kind = "a folder" if Path(source).is_dir() else "a video"
            raise ValueError(f"{source}: {kind} is predicted by stream(...), one picture after the other")
        return Picture(read_image(source), str(source))
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or 0 in source.shape:
            raise ValueError(
                f"expected an array (H, W, 3) uint8 in RGB order; received {source.shape} {source.dtype}"
            )
        return Picture(source)
    raise ValueError(
        f"expected a path, an array (H, W, 3) uint8 RGB, or a list of them; received {type(source).__name__}"
    )


def load(
    path: str | Path | Sequence[str | Path],
    device: str = "auto",
    *,
    tasks: Sequence[str] = TASKS,
    score: float = 0.5,
    batch_size: int = 1,
    tta: str = "",
    window: int | None = None,
    fusion: BoxFusion = BoxFusion(),  # noqa: B008 - frozen
    votes: Sequence[float] | None = None,
) -> Predictor:
    """A `Predictor` of a trained model.

    Args:
        path: a run folder (its best weights) or a checkpoint (.safetensors); or several, which answer
            together: boxes by weighted boxes fusion, class maps by the mean of the probabilities.
        device: "cpu", "cuda", or "auto": a GPU where there is one.
        tasks: "detect", "segment" or both.
        score: detections below this score are left out.
        batch_size: pictures that go through the network at once.
        tta: boxes fused and class maps averaged over flips and scales of each picture, such as
            "flip,0.75,1.25".
        window: larger pictures are segmented window by window, each so many pixels a side.
        fusion: how boxes of several models or views become one set.
        votes: of each of several models, over 0: what it counts; None: all the same.
    """
    from vistasks.heads.test_time import parse_views
    from vistasks.inference.ensemble import Ensemble, load_models  # PyTorch and the rest are loaded with it
    from vistasks.models.folding import fold_batchnorm

    loaded = load_models(path, device, fusion, votes)
    for member in loaded.members if isinstance(loaded, Ensemble) else [loaded]:
        fold_batchnorm(member.model)
    if tta or window is not None:
        loaded.look(parse_views(tta, window=window, fusion=fusion))
    return Predictor(loaded, tasks=tasks, score=score, batch_size=batch_size)
