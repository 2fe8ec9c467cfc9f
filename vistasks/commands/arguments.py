"""What several commands take, and how they print numbers."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vistasks.system.limits import MAX_PIXELS

if TYPE_CHECKING:
    from vistasks.heads.test_time import TestTime
    from vistasks.ops.box_fusion import BoxFusion

OVERRIDES = "override config values, for example train.epochs=3 (values are YAML)"


def add_action(actions: Any, name: str, text: str) -> argparse.ArgumentParser:
    """A command's action; it takes --debug too, and leaves the value alone where it was given before the
    action.
    """
    parser: argparse.ArgumentParser = actions.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    parser.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
    )
    return parser


def config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", required=True, metavar="FILE", help="the experiment's YAML file (see configs/)"
    )
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help=OVERRIDES)


def weights_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights",
        required=True,
        nargs="+",
        metavar="PATH",
        help="checkpoint (.safetensors) or run folder; several form an ensemble",
    )


def max_pixels_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-pixels",
        type=int,
        default=MAX_PIXELS,
        metavar="N",
        help=f"refuse to decode larger images and frames (default: {MAX_PIXELS:,})",
    )


def trust_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trust",
        action="store_true",
        help="trust the checkpoint's config: it may name files, programs and any sizes",
    )


def votes_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--votes",
        metavar="V,V,...",
        help="weight per model of an ensemble, such as 3,1,1 (default: equal)",
    )


def given_votes(parsed: argparse.Namespace) -> list[float] | None:
    """The numbers of ``--votes``."""
    if parsed.votes is None:
        return None
    try:
        return [float(vote) for vote in parsed.votes.split(",")]
    except ValueError:
        raise ValueError(
            f"--votes: expected comma-separated numbers, such as 3,1,1; received {parsed.votes}"
        ) from None


def given_weights(parsed: argparse.Namespace) -> list[str]:
    """The files and folders of ``--weights``; ``key.path=value`` after them goes to the overrides, where it
    belongs.
    """
    overrides = [text for text in parsed.weights if re.match(r"[\w.]+=", text) and not Path(text).exists()]
    parsed.overrides = [*overrides, *parsed.overrides]
    return [text for text in parsed.weights if text not in overrides]


def test_time_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("test-time augmentation and sliding windows")
    group.add_argument(
        "--tta",
        default="",
        metavar="VIEWS",
        help="combine predictions over flips and scales, such as flip,0.75,1.25 (the plain image is included)",
    )
    group.add_argument(
        "--window",
        type=int,
        metavar="PIXELS",
        help="segment large images in windows of this side length",
    )
    group.add_argument(
        "--overlap",
        type=float,
        default=0.25,
        help="overlap of neighbouring windows, as a share of their side (default: 0.25)",
    )
    fusion = parser.add_argument_group("weighted boxes fusion (several views or models)")
    fusion.add_argument(
        "--fusion-iou",
        type=float,
        default=0.55,
        metavar="IOU",
        help="fuse boxes that overlap by more than this (default: 0.55)",
    )
    fusion.add_argument(
        "--fusion-score",
        default="mean",
        choices=["mean", "max"],
        help="how to combine the scores of fused boxes (default: mean)",
    )
    fusion.add_argument(
        "--fusion-agreement",
        default="sources",
        choices=["sources", "boxes", "none"],
        help="what to multiply the fused score by: the share of views or models that found the object (sources, the default), "
        "min(boxes, sources) / sources (boxes), or 1 (none)",
    )


def box_fusion(parsed: argparse.Namespace) -> BoxFusion:
    """What `test_time_arguments` say of boxes."""
    from vistasks.ops.box_fusion import BoxFusion

    return BoxFusion(iou=parsed.fusion_iou, score=parsed.fusion_score, agreement=parsed.fusion_agreement)


def test_time(parsed: argparse.Namespace) -> TestTime | None:
    """What `test_time_arguments` were given; None where a picture is looked at once and whole."""
    fusion = box_fusion(parsed)  # which checks it
    if not parsed.tta and parsed.window is None:
        return None
    from vistasks.heads.test_time import parse_views

    return parse_views(parsed.tta, window=parsed.window, overlap=parsed.overlap, fusion=fusion)


def print_numbers(file: str | None, numbers: dict[str, Any]) -> int:
    text = json.dumps(numbers, indent=1)
    print(text)
    if file:
        from vistasks.system.atomic import write_text

        write_text(Path(file), text)
    return 0
