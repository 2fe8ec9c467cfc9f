"""``vistasks data prepare | check | show``."""

from __future__ import annotations

import argparse
from pathlib import Path

from vistasks.commands.arguments import add_action, config_arguments


def add(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    prepare = add_action(actions, "prepare", "download and unpack a public data set")
    prepare.add_argument("name", help="voc2007, voc2012, coco2017, camvid or bccd")
    prepare.add_argument("--root", metavar="DIR", help="destination (default: data/NAME)")
    prepare.set_defaults(run=_data_prepare)
    check = add_action(actions, "check", "read every image and label, and report every error")
    config_arguments(check)
    check.set_defaults(run=_data_check)
    show = add_action(actions, "show", "write a contact sheet of augmented samples as the network sees them")
    config_arguments(show)
    show.add_argument(
        "--output", default="out/data.jpg", metavar="FILE", help="output file (default: out/data.jpg)"
    )
    show.add_argument("--count", type=int, default=12, help="number of samples")
    show.set_defaults(run=_data_show)


def _data_prepare(parsed: argparse.Namespace) -> int:
    from vistasks.inspection.data import prepare_command

    return prepare_command(parsed.name, Path(parsed.root or f"data/{parsed.name}"))


def _data_check(parsed: argparse.Namespace) -> int:
    from vistasks.config import load_config

    config = load_config(parsed.config, parsed.overrides)
    from vistasks.inspection.data import check_command

    return check_command(config)


def _data_show(parsed: argparse.Namespace) -> int:
    from vistasks.config import load_config

    config = load_config(parsed.config, parsed.overrides)
    from vistasks.inspection.data import show_command

    return show_command(config, Path(parsed.output), count=parsed.count)
