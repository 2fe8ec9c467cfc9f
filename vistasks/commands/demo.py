"""``vistasks demo``."""

from __future__ import annotations

import argparse
from pathlib import Path

from vistasks.commands.arguments import OVERRIDES


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", default="runs/demo", metavar="DIR", help="output folder (default: runs/demo)"
    )
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help=OVERRIDES)
    parser.set_defaults(run=_demo)


def _demo(parsed: argparse.Namespace) -> int:
    from vistasks.demo import demo

    return demo(Path(parsed.output), parsed.overrides)
