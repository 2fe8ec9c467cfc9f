"""The pipeline as an iterator of predictions, without any file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vistasks.inference.sources import Moving
from vistasks.inference.video.network import Network
from vistasks.inference.video.opening import open_frames
from vistasks.inference.video.options import InferOptions
from vistasks.inference.video.pipeline import Pipeline
from vistasks.inference.video.protocols import FrameSource
from vistasks.inference.video.stages import FrameJobs, predicting_stages

if TYPE_CHECKING:
    from vistasks.inference.image_predictor import ImagePredictor
    from vistasks.inference.prediction import PicturePrediction


def stream_frames(
    predictor: ImagePredictor,
    source: Moving,
    options: InferOptions = InferOptions(),  # noqa: B008 - frozen
) -> Iterator[PicturePrediction]:
    """Predictions of a source of frames in order, in constant memory.

    Decoding, proposals and network work on the next frames while the caller looks at one; leaving the loop
    stops them."""
    return _predictions(predictor, open_frames(source, options), options)


def _predictions(
    predictor: ImagePredictor, source: FrameSource, options: InferOptions
) -> Iterator[PicturePrediction]:
    network = Network(predictor, options, period=Network.multiple(predictor, options))
    stages = predicting_stages(network, threads=options.threads)
    for job in Pipeline(FrameJobs(source, network), stages, live=source.live):
        yield job.prediction
