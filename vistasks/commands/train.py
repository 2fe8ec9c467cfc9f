"""``vistasks train``."""

from __future__ import annotations

import argparse
from pathlib import Path

from vistasks.commands.arguments import config_arguments


def add(parser: argparse.ArgumentParser) -> None:
    config_arguments(parser)
    resume = "continue from the newest intact checkpoint of the run folder, or from this one"
    parser.add_argument("--resume", nargs="?", const=True, default=False, metavar="CHECKPOINT", help=resume)
    parser.add_argument(
        "--print-config", action="store_true", help="print every value and its origin, then exit"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="run all preflight checks, report every problem, then exit"
    )
    parser.set_defaults(run=_train)


def _train(parsed: argparse.Namespace) -> int:
    from vistasks.config import checked_config, read_config

    if isinstance(parsed.resume, str) and "=" in parsed.resume and not Path(parsed.resume).exists():
        parsed.overrides, parsed.resume = [parsed.resume, *parsed.overrides], True  # --resume key.path=value
    values, where = read_config(parsed.config, parsed.overrides)
    config = checked_config(values, where)
    if parsed.print_config:
        from vistasks.config.origins import to_annotated_yaml

        print(to_annotated_yaml(config, values, where), end="")
        return 0
    if parsed.dry_run:
        from rich.progress import track

        from vistasks.system.terminal import PlainConsole
        from vistasks.training.preflight import dry_run, print_preflight

        console = PlainConsole(stderr=True)
        return print_preflight(
            dry_run(config, track=lambda items, text: track(items, text, console=console, transient=True))
        )
    from vistasks.training.loop import train

    train(config, resume=parsed.resume)
    return 0
