"""What several commands take, and how they print numbers."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

OVERRIDES = "config values to change, for example train.epochs=3 (key.path=value, the value in YAML)"


def add_action(actions: Any, name: str, text: str) -> argparse.ArgumentParser:
    """A command's action; it takes --debug too, and leaves the value alone where it was given before the action."""
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")
    return parser


def config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="FILE", help="the experiment, a YAML file (see configs/)")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help=OVERRIDES)


def print_numbers(file: str | None, numbers: dict[str, Any]) -> int:
    text = json.dumps(numbers, indent=1)
    print(text)
    if file:
        from vistasks.atomic import write_text

        write_text(Path(file), text)
    return 0
