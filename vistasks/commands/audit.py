"""``vistasks audit``."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from vistasks.commands.arguments import config_arguments, trust_argument


def add(parser: argparse.ArgumentParser) -> None:
    config_arguments(parser)
    parser.add_argument(
        "--weights", required=True, metavar="PATH", help="checkpoint (.safetensors) or run folder"
    )
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="write audit.json (COCO) and audit.html here"
    )
    parser.add_argument(
        "--split",
        choices=["train", "val"],
        default="train",
        help="which part of the data to audit (default: train)",
    )
    parser.add_argument(
        "--top", type=int, default=60, metavar="N", help="entries shown with images on the page (default: 60)"
    )
    parser.add_argument(
        "--print", type=int, default=20, dest="printed", metavar="N", help="entries to print (default: 20)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    trust_argument(parser)
    parser.set_defaults(run=_audit)


def _audit(parsed: argparse.Namespace) -> int:
    if parsed.top < 0 or parsed.printed < 0:
        raise ValueError("--top and --print must be 0 or more")
    from vistasks.config import load_config

    config = load_config(parsed.config, parsed.overrides)
    from rich.progress import track

    from vistasks.evaluation.audit import audit
    from vistasks.evaluation.audit.export import entry_lines, frames_table
    from vistasks.system.terminal import PlainConsole

    output = Path(parsed.output)
    found = audit(
        config,
        parsed.weights,
        output,
        split=parsed.split,
        top=parsed.top,
        device=parsed.device,
        trust=parsed.trust,
        track=lambda loader: track(loader, "predicting", transient=True),
    )
    console = PlainConsole()
    entries = found.judgement.faults[: parsed.printed]
    if entries:
        print(
            f"top {len(entries)} of {len(found.judgement.faults)} suspected label errors: score, kind, image, x1, y1, x2, y2"
        )
    for line in entry_lines(entries):
        print(line)
    if parsed.printed:
        console.print(frames_table(found, count=min(10, parsed.printed)))
    counts = Counter(entry.kind for entry in (*found.judgement.faults, *found.judgement.disagreements))
    said = ", ".join(f"{count} {kind}" for kind, count in counts.most_common()) or "no suspected label errors"
    console.print(f"audited {found.pictures} images with {found.labels} labels: {said}", highlight=False)
    for note in found.notes:
        console.print(note, highlight=False, markup=False)
    print(f"page: {(output / 'audit.html').resolve()}\nlist: {(output / 'audit.json').resolve()}")
    return 0
