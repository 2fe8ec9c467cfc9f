"""``vistasks train``."""

from __future__ import annotations

import argparse

from vistasks.commands.arguments import config_arguments


def add(parser: argparse.ArgumentParser) -> None:
    config_arguments(parser)
    parser.add_argument("--resume", action="store_true", help="go on from last.safetensors in the run folder")
    parser.add_argument("--print-config", action="store_true", help="print every value and where it came from, and stop")
    parser.set_defaults(run=_train)


def _train(parsed: argparse.Namespace) -> int:
    from vistasks.config import parse_config, read_config

    values, where = read_config(parsed.config, parsed.overrides)
    config = parse_config(values, where=where)
    if parsed.print_config:
        from vistasks.config_origins import to_annotated_yaml

        print(to_annotated_yaml(config, values, where), end="")
        return 0
    from vistasks.train import train

    train(config, resume=parsed.resume)
    return 0
