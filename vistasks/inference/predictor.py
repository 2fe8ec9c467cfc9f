"""The user's object: load a trained model, predict pictures, stream videos."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from vistasks.datasets.images import read_image
from vistasks.inference.backend import Backend
from vistasks.inference.image_predictor import ImagePredictor
from vistasks.inference.prediction import Picture, PicturePrediction
from vistasks.inference.sources import Images, recognise
from vistasks.inference.video.containers import holds_video
from vistasks.inference.video.options import InferOptions
from vistasks.inference.video.stream import stream_frames
from vistasks.ops.box_fusion import BoxFusion
from vistasks.system.limits import MAX_PIXELS


class Predictor(ImagePredictor):
    """An `ImagePredictor` that also takes whatever a user has: paths, arrays, lists, folders, videos, cameras.

    Args:
        max_pixels: a picture or frame with more is a ``ValueError``.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        tasks: Sequence[str] | None = None,
        score: float = 0.5,
        batch_size: int = 1,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        super().__init__(backend, tasks=tasks, score=score, batch_size=batch_size)
        self.max_pixels = max_pixels

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
            return list(self.predict_pictures(_picture(item, self.max_pixels) for item in source))
        return next(self.predict_pictures([_picture(source, self.max_pixels)]))

    def stream(self, source: str | Path | Iterable[str | Path | np.ndarray]) -> Iterator[PicturePrediction]:
        """Predictions one after another, in order and constant memory.

        Args:
            source: a video file, a camera or an address (see `vistasks.inference.sources.recognise`),
                whose stages work side by side while you look at a prediction; a picture, a folder, a glob
                pattern, or anything that gives paths or arrays, endless or not.
        """
        if not isinstance(source, str | Path):
            return self.predict_pictures(_picture(item, self.max_pixels) for item in source)
        found = recognise(source)
        if isinstance(found, Images):
            return self.predict_pictures(_picture(path, self.max_pixels) for path in found.paths)
        return stream_frames(self, found, InferOptions(max_pixels=self.max_pixels))


def _picture(source: Any, max_pixels: int) -> Picture:
    if isinstance(source, str | Path):
        path = Path(source)
        if path.is_dir() or (path.is_file() and holds_video(path)):
            kind = "a folder" if path.is_dir() else "a video"
            raise ValueError(f"{source}: {kind} is predicted by stream(...), one image after the other")
        return Picture(read_image(source, max_pixels=max_pixels), str(source))
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
    tasks: Sequence[str] | None = None,
    score: float = 0.5,
    batch_size: int = 1,
    tta: str = "",
    window: int | None = None,
    fusion: BoxFusion = BoxFusion(),  # noqa: B008 - frozen
    votes: Sequence[float] | None = None,
    max_pixels: int = MAX_PIXELS,
    trust: bool = False,
) -> Predictor:
    """A `Predictor` of a trained model.

    Args:
        path: a run folder (its best weights) or a checkpoint (.safetensors); or several, which answer
            together: boxes by weighted boxes fusion, class maps by the mean of the probabilities.
        device: "cpu", "cuda", or "auto": a GPU where there is one.
        tasks: which of its answers are given, such as "detection" (or "detect"); None: all.
        score: detections below this score are left out.
        batch_size: pictures that go through the network at once.
        tta: boxes fused and class maps averaged over flips and scales of each picture, such as
            "flip,0.75,1.25".
        window: larger pictures are segmented window by window, each so many pixels a side.
        fusion: how boxes of several models or views become one set.
        votes: of each of several models, over 0: what it counts; None: all the same.
        max_pixels: a picture or frame with more is a ``ValueError``.
        trust: the checkpoint's config may name files, programs and any sizes; False: it may say how the model
            is built (`vistasks.checkpoint.foreign.MAY_DECIDE`), and what goes beyond that is a ``ValueError``.
    """
    from vistasks.heads.test_time import parse_views
    from vistasks.inference.ensemble import Ensemble, load_models  # PyTorch and the rest are loaded with it
    from vistasks.models.folding import fold_batchnorm

    loaded = load_models(path, device, fusion, votes, trust=trust)
    for member in loaded.members if isinstance(loaded, Ensemble) else [loaded]:
        fold_batchnorm(member.model)
    if tta or window is not None:
        loaded.look(parse_views(tta, window=window, fusion=fusion))
    return Predictor(loaded, tasks=tasks, score=score, batch_size=batch_size, max_pixels=max_pixels)
