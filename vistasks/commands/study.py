"""``vistasks study NAME``."""

from __future__ import annotations

import argparse
from pathlib import Path

from vistasks.commands.arguments import add_action, config_arguments


def add(parser: argparse.ArgumentParser) -> None:
    names = parser.add_subparsers(title="studies", metavar="NAME", required=True)
    joint = add_action(names, "joint", "detection alone, segmentation alone and both over one trunk, at equal budgets")
    config_arguments(joint)
    joint.add_argument("--output", required=True, metavar="DIR", help="the study's folder; run again, it goes on from there")
    joint.add_argument("--epochs", type=int, help="of each of the three (default: the config's)")
    joint.add_argument("--minutes", type=float, help="of training steps for each of the three, instead of --epochs")
    joint.set_defaults(run=_joint)


def _joint(parsed: argparse.Namespace) -> int:
    from vistasks.config import load_config

    config = load_config(parsed.config, parsed.overrides)
    from vistasks.studies.joint import print_study, study_joint

    output = Path(parsed.output)
    print_study(study_joint(config, output, epochs=parsed.epochs, minutes=parsed.minutes))
    print(f"study: {output.resolve()}: study.json, study.md")
    return 0
