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

if TYPE_CHECKING:
    from vistasks.inference.video.options import InferOptions


def add(parser: argparse.ArgumentParser) -> None:
    weights_argument(parser)
    votes_argument(parser)
    parser.add_argument(
        "--source",
        required=True,
        help="a picture, folder, glob in quotes, video file, camera number or address",
    )
    parser.add_argument(
        "--output", metavar="DIR", help="where the results go; may be left out with --show or --serve"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument(
        "--score", type=float, default=0.5, help="keep detections with at least this score (default .5)"
    )
    parser.add_argument(
        "--batch-size",
        "--batch",
        type=int,
        default=1,
        metavar="N",
        help="pictures or frames that go through the network at once",
    )
    parser.add_argument(
        "--tasks", metavar="T,T,...", help="of the model's tasks, such as detect,segment (default: all)"
    )
    parser.add_argument(
        "--on-error", choices=["skip", "raise"], default="skip", help="what to do at an unreadable picture"
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
        help="try a lost stream again for S seconds (60; inf: for ever)",
    )
    live.add_argument("--show", action="store_true", help="show the frames in a window; Q ends the run")
    live.add_argument(
        "--serve", type=int, metavar="PORT", help="show the frames on a page for a browser (0: any free port)"
    )
    live.add_argument(
        "--serve-host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="where the page listens (127.0.0.1: this machine alone)",
    )
    live.add_argument(
        "--track",
        action="store_true",
        help="number the objects of a video from frame to frame, and draw traces",
    )
    live.add_argument(
        "--line",
        action="append",
        default=[],
        metavar="x1,y1,x2,y2",
        help="count objects whose centre crosses this line (pixels; may be repeated); up over one from left to right is in",
    )
    parser.set_defaults(run=_infer)


def _add_speed(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--half", action="store_true", help="16 bits: float16 on a GPU, bfloat16 on the CPU")
    group.add_argument(
        "--compile", action="store_true", help="compile the trunk (takes a minute or so at the first batch)"
    )
    group.add_argument(
        "--cuda-graphs",
        action="store_true",
        help="replay the trunk from CUDA graphs (GPU; batches of one size)",
    )
    group.add_argument(
        "--propose-every",
        type=int,
        default=1,
        metavar="N",
        help="video: region proposals on every N-th frame; between them the last ones and what was detected",
    )
    group.add_argument(
        "--proposals",
        default="method",
        metavar="METHOD",
        help="video: method, the model's own (default), or segmentation, boxes around the parts of its map",
    )
    group.add_argument(
        "--segment-every", type=int, default=1, metavar="M", help="video: the class map on every M-th frame"
    )
    group.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="frames at whose proposals it works at once (default: all cores)",
    )
    group.add_argument(
        "--decoder", choices=["software", "hardware"], default="software", help="what decodes a video file"
    )


def _add_video(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--frame-rate", type=float, metavar="R", help="a folder's pictures are a video's frames, R a second"
    )
    group.add_argument("--no-video", dest="video", action="store_false", help="write data only, no .mp4")
    group.add_argument(
        "--masks",
        choices=["none", "png", "rle"],
        default="none",
        help="class maps: masks/NUMBER.png, or masks.jsonl with COCO's run-length codes",
    )
    group.add_argument("--save-frames", action="store_true", help="frames/NUMBER.jpg with everything drawn")
    group.add_argument("--crop", action="store_true", help="crops/CLASS/NUMBER_INDEX.jpg of every detection")
    group.add_argument("--hide-labels", action="store_true", help="boxes without names")
    group.add_argument(
        "--resume", action="store_true", help="go on after the last complete part of an interrupted run"
    )
    group.add_argument(
        "--part-frames",
        type=int,
        default=120,
        metavar="N",
        help="frames of a part, which an interrupted run does not lose (120)",
    )


def _infer(parsed: argparse.Namespace) -> int:
    from vistasks.inference.images import infer, print_summary
    from vistasks.inference.predictor import load

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
