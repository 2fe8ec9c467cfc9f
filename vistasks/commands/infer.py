"""``vistasks infer``."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vistasks.video.options import InferOptions


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", required=True, metavar="PATH", help="a checkpoint (.safetensors) or a run folder")
    parser.add_argument("--source", required=True, help="a picture, folder, glob in quotes, video file, camera number or address")
    parser.add_argument("--output", required=True, metavar="DIR", help="where the results go")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--score", type=float, default=0.5, help="keep detections with at least this score (default .5)")
    parser.add_argument("--batch-size", type=int, default=1, help="pictures that go through the network at once")
    parser.add_argument("--tasks", default="detect,segment", help="detect, segment or both (default)")
    parser.add_argument("--on-error", choices=["skip", "raise"], default="skip", help="what to do at an unreadable picture")
    live = parser.add_argument_group("tracking and live sources")
    live.add_argument(
        "--reconnect", type=float, default=60.0, metavar="S", help="try a lost stream again for S seconds (60; inf: for ever)"
    )
    live.add_argument("--track", action="store_true", help="number the objects of a video from frame to frame, and draw traces")
    live.add_argument(
        "--line",
        action="append",
        default=[],
        metavar="x1,y1,x2,y2",
        help="count objects whose centre crosses this line (pixels; may be repeated); up over one from left to right is in",
    )
    parser.set_defaults(run=_infer)


def _infer(parsed: argparse.Namespace) -> int:
    from vistasks.infer import infer, print_summary
    from vistasks.predictor import load

    options = _options(parsed)
    tasks = [task.strip() for task in parsed.tasks.split(",")]
    predictor = load(parsed.weights, parsed.device, tasks=tasks, score=parsed.score, batch_size=parsed.batch_size)
    output = Path(parsed.output)
    return print_summary(infer(predictor, parsed.source, output, options=options), output)


def _options(parsed: argparse.Namespace) -> InferOptions:
    """The options by their names; `InferOptions` checks them."""
    from vistasks.video.options import InferOptions

    names = [field.name for field in dataclasses.fields(InferOptions)]
    return InferOptions(**{name: getattr(parsed, name) for name in names if hasattr(parsed, name)})
