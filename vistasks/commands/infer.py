"""``vistasks infer``."""

from __future__ import annotations

import argparse
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", required=True, metavar="PATH", help="a checkpoint (.safetensors) or a run folder")
    parser.add_argument("--source", required=True, help="a picture, a folder, a glob in quotes, or a video file")
    parser.add_argument("--output", required=True, metavar="DIR", help="where the results go")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--score", type=float, default=0.5, help="keep detections with at least this score (default .5)")
    parser.add_argument("--batch-size", type=int, default=1, help="pictures that go through the network at once")
    parser.add_argument("--tasks", default="detect,segment", help="detect, segment or both (default)")
    parser.add_argument("--on-error", choices=["skip", "raise"], default="skip", help="what to do at an unreadable picture")
    parser.set_defaults(run=_infer)


def _infer(parsed: argparse.Namespace) -> int:
    from vistasks.infer import infer, print_summary
    from vistasks.predictor import load

    tasks = [task.strip() for task in parsed.tasks.split(",")]
    predictor = load(parsed.weights, parsed.device, tasks=tasks, score=parsed.score, batch_size=parsed.batch_size)
    output = Path(parsed.output)
    return print_summary(infer(predictor, parsed.source, output, on_error=parsed.on_error), output)
