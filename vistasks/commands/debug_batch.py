"""``vistasks debug-batch``."""

from __future__ import annotations

import argparse
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "batch", metavar="FILE", help="batch saved by a run that stopped: RUN/debug/step_NUMBER.safetensors"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.set_defaults(run=_debug)


def _debug(parsed: argparse.Namespace) -> int:
    from vistasks.training.debug_batch import debug_batch

    for line in debug_batch(Path(parsed.batch), parsed.device):
        print(line)
    return 0
