"""``vistasks inspect``."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from vistasks.commands.arguments import max_pixels_argument, trust_argument


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights", required=True, metavar="PATH", help="checkpoint (.safetensors) or run folder"
    )
    parser.add_argument("--image", required=True, metavar="FILE", help="input image")
    max_pixels_argument(parser)
    trust_argument(parser)
    parser.add_argument("--output", required=True, metavar="DIR", help="output folder")
    parser.add_argument(
        "--detection",
        type=int,
        default=0,
        metavar="N",
        help="index of the detection to explain, by score (default: 0)",
    )
    parser.add_argument(
        "--class",
        dest="class_name",
        metavar="NAME",
        help="class of the segmentation map to explain (default: the most frequent)",
    )
    parser.add_argument(
        "--pixel",
        metavar="X,Y",
        help="pixel of the segmentation map to explain (default: one inside an object)",
    )
    parser.add_argument(
        "--occlusion",
        type=int,
        default=10,
        metavar="N",
        help="occlusion squares along the shorter side; 0 skips it (default: 10)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.set_defaults(run=_inspect)


def _inspect(parsed: argparse.Namespace) -> int:
    match = re.fullmatch(r"(\d+),(\d+)", parsed.pixel) if parsed.pixel else None
    if parsed.pixel and match is None:
        raise ValueError(f"--pixel: expected X,Y such as 120,80; received '{parsed.pixel}'")
    if parsed.occlusion < 0:
        raise ValueError(f"--occlusion must be 0 or more; received {parsed.occlusion}")
    from vistasks.datasets.images import read_image
    from vistasks.inference.loaded import load_model
    from vistasks.inspection.inspect import inspect
    from vistasks.system.locks import owned

    output = Path(parsed.output)
    with owned(output):
        facts = inspect(
            load_model(parsed.weights, parsed.device, trust=parsed.trust),
            read_image(parsed.image, max_pixels=parsed.max_pixels),
            output,
            path=parsed.image,
            detection=parsed.detection,
            class_name=parsed.class_name,
            pixel=(int(match[1]), int(match[2])) if match else None,
            cells=parsed.occlusion,
        )
    for name, fact in facts.items():
        print(f"{name:12} {fact['of'] if isinstance(fact, dict) and 'of' in fact else fact}")
    print(f"images: {output.resolve()}: {', '.join(sorted(path.name for path in output.glob('*.png')))}")
    return 0
