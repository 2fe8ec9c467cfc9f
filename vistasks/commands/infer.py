"""``vistasks infer``."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING

from vistasks.commands.arguments import (
    box_fusion,
    given_votes,
    max_pixels_argument,
    test_time,
    test_time_arguments,
    trust_argument,
    votes_argument,
    weights_argument,
)
from vistasks.system.opencv import refuse_without_windows

if TYPE_CHECKING:
    from vistasks.inference.video.options import InferOptions


def add(parser: argparse.ArgumentParser) -> None:
    weights_argument(parser)
    votes_argument(parser)
    parser.add_argument(
        "--source",
        required=True,
        help="image, folder, quoted glob, video file, camera number or stream address",
    )
    parser.add_argument("--output", metavar="DIR", help="output folder; optional with --show or --serve")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--score", type=float, default=0.5, help="minimum score of detections (default: 0.5)")
    parser.add_argument(
        "--batch-size",
        "--batch",
        type=int,
        default=1,
        metavar="N",
        help="images or frames per batch (default: 1)",
    )
    parser.add_argument(
        "--tasks",
        metavar="T,T,...",
        help="comma-separated tasks to run, such as detect,segment (default: all of the model's)",
    )
    parser.add_argument(
        "--on-error",
        choices=["skip", "raise"],
        default="skip",
        help="what to do with an unreadable image (default: skip)",
    )
    max_pixels_argument(parser)
    trust_argument(parser)
    test_time_arguments(parser)
    _add_speed(parser.add_argument_group("speed"))
    _add_video(parser.add_argument_group("video"))
    live = parser.add_argument_group("tracking and live sources")
    live.add_argument(
        "--reconnect",
        type=float,
        default=60.0,
        metavar="S",
        help="retry a lost stream for S seconds (default: 60; inf: for ever)",
    )
    live.add_argument("--show", action="store_true", help="show frames in a window; Q ends the run")
    live.add_argument(
        "--serve", type=int, metavar="PORT", help="show frames on a web page at this port (0: any free port)"
    )
    live.add_argument(
        "--serve-host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address that the page listens on (default: 127.0.0.1, this machine only)",
    )
    live.add_argument(
        "--track",
        action="store_true",
        help="track objects through a video: assign ids and draw traces",
    )
    live.add_argument(
        "--line",
        action="append",
        default=[],
        metavar="x1,y1,x2,y2",
        help="count objects whose centre crosses this line, in pixels (repeatable); for a line from left to right, upwards is in",
    )
    parser.set_defaults(run=_infer)


def _add_speed(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--half", action="store_true", help="16-bit inference: float16 on a GPU, bfloat16 on the CPU"
    )
    group.add_argument(
        "--compile", action="store_true", help="compile the backbone (the first batch takes about a minute)"
    )
    group.add_argument(
        "--cuda-graphs",
        action="store_true",
        help="run the backbone from CUDA graphs (GPU, fixed batch size)",
    )
    group.add_argument(
        "--propose-every",
        type=int,
        default=1,
        metavar="N",
        help="video: compute region proposals on every N-th frame; the others reuse them and add the latest detections",
    )
    group.add_argument(
        "--proposals",
        default="method",
        metavar="METHOD",
        help="video: region proposals from the model's own method (default), or segmentation: boxes of connected components",
    )
    group.add_argument(
        "--segment-every",
        type=int,
        default=1,
        metavar="M",
        help="video: compute the segmentation map on every M-th frame",
    )
    group.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="frames whose proposals are computed in parallel (default: all cores)",
    )
    group.add_argument(
        "--decoder",
        choices=["software", "hardware"],
        default="software",
        help="decoder of video files (default: software)",
    )


def _add_video(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--frame-rate",
        type=float,
        metavar="R",
        help="treat a folder's images as a video of R frames per second",
    )
    group.add_argument("--no-video", dest="video", action="store_false", help="write data only, no .mp4")
    group.add_argument(
        "--masks",
        choices=["none", "png", "rle"],
        default="none",
        help="write segmentation maps: masks/NUMBER.png, or masks.jsonl with COCO run-length encoding",
    )
    group.add_argument(
        "--save-frames", action="store_true", help="write annotated frames as frames/NUMBER.jpg"
    )
    group.add_argument(
        "--crop", action="store_true", help="write every detection as crops/CLASS/NUMBER_INDEX.jpg"
    )
    group.add_argument("--hide-labels", action="store_true", help="draw boxes without names")
    group.add_argument(
        "--resume", action="store_true", help="continue an interrupted run after its last complete part"
    )
    group.add_argument(
        "--part-frames",
        type=int,
        default=120,
        metavar="N",
        help="frames per part; an interrupted run keeps complete parts (default: 120)",
    )


def _infer(parsed: argparse.Namespace) -> int:
    from vistasks.inference.images import infer, print_summary
    from vistasks.inference.predictor import load

    if parsed.show:
        refuse_without_windows()
    options = _options(parsed)
    tasks = None if parsed.tasks is None else [task.strip() for task in parsed.tasks.split(",")]
    predictor = load(
        parsed.weights,
        parsed.device,
        tasks=tasks,
        score=parsed.score,
        batch_size=parsed.batch_size,
        fusion=box_fusion(parsed),
        votes=given_votes(parsed),
        max_pixels=parsed.max_pixels,
        trust=parsed.trust,
    )
    averaged = test_time(parsed)
    if averaged is not None:
        predictor.look(averaged)
    predictor.speed_up(half=parsed.half, compiled=parsed.compile, cuda_graphs=parsed.cuda_graphs)
    return print_summary(infer(predictor, parsed.source, parsed.output, options=options), parsed.output)


def _options(parsed: argparse.Namespace) -> InferOptions:
    """The options by their names; `InferOptions` checks them."""
    from vistasks.inference.video.options import InferOptions

    names = [field.name for field in dataclasses.fields(InferOptions)]
    return InferOptions(**{name: getattr(parsed, name) for name in names if hasattr(parsed, name)})
