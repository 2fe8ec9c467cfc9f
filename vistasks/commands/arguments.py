"""What several commands take, and how they print numbers."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vistasks.heads.test_time import TestTime

OVERRIDES = "config values to change, for example train.epochs=3 (key.path=value, the value in YAML)"


def add_action(actions: Any, name: str, text: str) -> argparse.ArgumentParser:
    """A command's action; it takes --debug too, and leaves the value alone where it was given before the action."""
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")
    return parser


def config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="FILE", help="the experiment, a YAML file (see configs/)")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help=OVERRIDES)


def test_time_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("class maps, averaged")
    group.add_argument("--tta", default="", metavar="VIEWS", help="mean over views, such as flip,0.75,1.25 (1 is among them)")
    group.add_argument("--window", type=int, metavar="PIXELS", help="large pictures window by window, each so many pixels a side")
    group.add_argument("--overlap", type=float, default=0.25, help="the part of a window that the next one sees too (.25)")


def test_time(parsed: argparse.Namespace) -> TestTime | None:
    """What `test_time_arguments` were given; None where nothing is to be averaged."""
    if not parsed.tta and parsed.window is None:
        return None
    from vistasks.heads.test_time import parse_views

    return parse_views(parsed.tta, window=parsed.window, overlap=parsed.overlap)


def print_numbers(file: str | None, numbers: dict[str, Any]) -> int:
    text = json.dumps(numbers, indent=1)
    print(text)
    if file:
        from vistasks.atomic import write_text

        write_text(Path(file), text)
    return 0
