"""``vistasks calibrate``."""

from __future__ import annotations

import argparse
from pathlib import Path

from vistasks.commands.arguments import config_arguments, trust_argument


def add(parser: argparse.ArgumentParser) -> None:
    config_arguments(parser)
    parser.add_argument(
        "--weights", required=True, metavar="PATH", help="checkpoint (.safetensors) or run folder"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="write the calibrated checkpoint here")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    trust_argument(parser)
    parser.set_defaults(run=_calibrate)


def _calibrate(parsed: argparse.Namespace) -> int:
    from vistasks.config import load_config

    config = load_config(parsed.config, parsed.overrides)
    from rich.progress import track
    from rich.table import Table

    from vistasks.refining.calibrate import calibrate
    from vistasks.system.locks import owned
    from vistasks.system.terminal import PlainConsole

    with owned(Path(parsed.output)):
        done = calibrate(
            config,
            parsed.weights,
            parsed.output,
            device=parsed.device,
            trust=parsed.trust,
            track=lambda loader: track(loader, "detecting", transient=True),
        )
    caption = (
        "error: mean |score - precision|; error after: each half of the images, calibrated on the other half"
    )
    table = Table(
        "class",
        "detections",
        "right",
        "slope",
        "offset",
        "error",
        "error after",
        title="calibration",
        caption=caption,
    )
    for row in done["classes"]:
        curve = ["" if row[key] is None else f"{row[key]:.3f}" for key in ("slope", "offset")]
        errors = [f"{row[key]:.3f}" for key in ("error_before", "error_after")]
        table.add_row(row["class"], str(row["detections"]), str(row["right"]), *curve, *errors)
    PlainConsole().print(table)
    print(
        f"weights      {done['output']}, fitted to {done['pictures']} images; report results on other images"
    )
    return 0
