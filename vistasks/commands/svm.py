"""``vistasks svm``."""

from __future__ import annotations

import argparse
from pathlib import Path

from vistasks.commands.arguments import config_arguments, trust_argument


def add(parser: argparse.ArgumentParser) -> None:
    config_arguments(parser)
    parser.add_argument(
        "--weights", required=True, metavar="PATH", help="checkpoint (.safetensors) or run folder"
    )
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="write the checkpoint with the SVMs here"
    )
    parser.add_argument(
        "--cost",
        type=float,
        default=1e-3,
        metavar="C",
        help="regularisation parameter C (default: 0.001, as in R-CNN)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    trust_argument(parser)
    parser.set_defaults(run=_svm)


def _svm(parsed: argparse.Namespace) -> int:
    from vistasks.config import load_config

    config = load_config(parsed.config, parsed.overrides)
    from rich.progress import track
    from rich.table import Table

    from vistasks.refining.svm import train_svms
    from vistasks.system.locks import owned
    from vistasks.system.terminal import PlainConsole

    with owned(Path(parsed.output)):
        done = train_svms(
            config,
            parsed.weights,
            parsed.output,
            cost=parsed.cost,
            device=parsed.device,
            trust=parsed.trust,
            track=lambda loader: track(loader, "mining", transient=True),
        )
    table = Table("class", "objects", "right", "negatives", "hard ones", title="linear SVMs")
    for row in done["classes"]:
        table.add_row(row["class"], *(f"{row[key]:,}" for key in ("objects", "right", "negatives", "hard")))
    PlainConsole().print(table)
    print(f"weights      {done['output']}")
    print(f"to measure the gain: vistasks evaluate --config {parsed.config} --weights {parsed.output}")
    return 0
