"""``vistasks study NAME``."""

from __future__ import annotations

import argparse
from pathlib import Path

from vistasks.commands.arguments import add_action, config_arguments


def add(parser: argparse.ArgumentParser) -> None:
    names = parser.add_subparsers(title="studies", metavar="NAME", required=True)
    joint = add_action(
        names,
        "joint",
        "compare detection alone, segmentation alone and both over one backbone, at equal budgets",
    )
    config_arguments(joint)
    joint.add_argument("--output", required=True, metavar="DIR", help="output folder; run again to continue")
    joint.add_argument("--epochs", type=int, help="epochs of each training (default: the config's)")
    joint.add_argument(
        "--minutes", type=float, help="minutes of training steps for each training, instead of --epochs"
    )
    joint.set_defaults(run=_joint)
    ablation = add_action(
        names, "ablation", "measure the effect of single changes to a config, at equal epochs"
    )
    config_arguments(ablation)
    ablation.add_argument(
        "--changes", required=True, metavar="FILE", help="YAML of the changes: name: [key.path=value, ...]"
    )
    ablation.add_argument(
        "--output", required=True, metavar="DIR", help="output folder; run again to continue"
    )
    ablation.add_argument("--epochs", type=int, help="epochs of each training (default: the config's)")
    ablation.set_defaults(run=_ablation)


def _joint(parsed: argparse.Namespace) -> int:
    from vistasks.config import load_config

    config = load_config(parsed.config, parsed.overrides)
    from vistasks.studies.joint import print_study, study_joint
    from vistasks.system.locks import owned

    output = Path(parsed.output)
    with owned(output):
        print_study(study_joint(config, output, epochs=parsed.epochs, minutes=parsed.minutes))
    print(f"study: {output.resolve()}: study.json, study.md")
    return 0


def _ablation(parsed: argparse.Namespace) -> int:
    from vistasks.config import read_config

    values, _ = read_config(parsed.config, parsed.overrides)
    from vistasks.studies.ablation import print_study, read_changes, study_ablation
    from vistasks.system.locks import owned

    output = Path(parsed.output)
    with owned(output):
        print_study(study_ablation(values, read_changes(parsed.changes), output, epochs=parsed.epochs))
    print(f"study: {output.resolve()}: study.json, study.md")
    return 0
