"""The pipeline as an iterator of predictions, without any file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vistasks.inference.video.network import Network
from vistasks.inference.video.opening import open_frames
from vistasks.inference.video.options import InferOptions
from vistasks.inference.video.pipeline import Pipeline
from vistasks.inference.video.protocols import FrameSource
from vistasks.inference.video.stages import Shots, predicting_stages

if TYPE_CHECKING:
    from vistasks.inference.image_predictor import ImagePredictor
    from vistasks.inference.prediction import PicturePrediction


def stream_frames(
    predictor: ImagePredictor,
    source: str | Path,
    options: InferOptions = InferOptions(),  # noqa: B008 - frozen
) -> Iterator[PicturePrediction] | None:
    """Predictions of a source of frames in order, in constant memory; None where ``source`` means pictures.

    Decoding, proposals and network work on the next frames while the caller looks at one; leaving the loop
    stops them."""
    frames = open_frames(source, options)
    return None if frames is None else _predictions(predictor, frames, options)


def _predictions(
    predictor: ImagePredictor, source: FrameSource, options: InferOptions
) -> Iterator[PicturePrediction]:
    network = Network(predictor, options, period=Network.multiple(predictor, options))
    stages = predicting_stages(network, threads=options.threads)
    for shot in Pipeline(Shots(source, network), stages, live=source.live):
        yield shot.prediction
