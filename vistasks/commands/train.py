"""``vistasks train``."""

from __future__ import annotations

import argparse

from vistasks.commands.arguments import config_arguments


def add(parser: argparse.ArgumentParser) -> None:
    config_arguments(parser)
    parser.add_argument("--resume", action="store_true", help="go on from last.safetensors in the run folder")
    parser.add_argument("--print-config", action="store_true", help="print the whole config, defaults included, and stop")
    parser.set_defaults(run=_train)


def _train(parsed: argparse.Namespace) -> int:
    from vistasks.config import load_config, to_yaml

    config = load_config(parsed.config, parsed.overrides)
    if parsed.print_config:
        print(to_yaml(config), end="")
        return 0
    from vistasks.train import train

    train(config, resume=parsed.resume)
    return 0
