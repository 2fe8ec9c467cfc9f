"""``vistasks search``."""

from __future__ import annotations

import argparse
from pathlib import Path

from vistasks.commands.arguments import config_arguments


def add(parser: argparse.ArgumentParser) -> None:
    config_arguments(parser)
    parser.add_argument(
        "--space",
        required=True,
        metavar="FILE",
        help="YAML of the search space: key.path: {low, high, log} or {choices: [...]}",
    )
    parser.add_argument(
        "--trials", type=int, default=20, help="total number of trials, including earlier ones (default: 20)"
    )
    parser.set_defaults(run=_search)


def _search(parsed: argparse.Namespace) -> int:
    from vistasks.config import parse_config, read_config
    from vistasks.training.search import read_space, search

    space = read_space(parsed.space)
    values, where = read_config(parsed.config, parsed.overrides)
    folder = Path(parse_config(values, where=where).output)
    if parsed.trials < 1:
        raise ValueError(f"--trials must be at least 1, not {parsed.trials}")
    from vistasks.training.loop import train

    best = search(values, space, folder=folder, trials=parsed.trials, train=train)
    print(f"best         {best['value']:.4g} of {len(best['trials'])} trials: {' '.join(best['overrides'])}")
    print(f"run folder   {Path(best['folder']).resolve()}")
    print(
        f"search       {(folder / 'search.json').resolve()}; to continue, run the same command with more --trials"
    )
    return 0
