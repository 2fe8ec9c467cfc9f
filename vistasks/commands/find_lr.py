"""``vistasks find-lr``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from vistasks.commands.arguments import config_arguments


def add(parser: argparse.ArgumentParser) -> None:
    config_arguments(parser)
    parser.add_argument(
        "--output", default="out/find-lr.png", metavar="FILE", help="output plot (default: out/find-lr.png)"
    )
    parser.add_argument(
        "--lowest", type=float, default=1e-6, help="learning rate of the first step (default: 1e-6)"
    )
    parser.add_argument(
        "--highest", type=float, default=1.0, help="learning rate of the last step (default: 1)"
    )
    parser.add_argument("--steps", type=int, default=100, help="number of steps (default: 100)")
    parser.set_defaults(run=_find_lr)


def _find_lr(parsed: argparse.Namespace) -> int:
    from vistasks.config import load_config

    config, output = load_config(parsed.config, parsed.overrides), Path(parsed.output)
    if output.suffix.lower() not in (".png", ".jpg", ".pdf", ".svg"):
        raise ValueError(f"--output {output}: expected a .png, .jpg, .pdf or .svg file")
    from rich.progress import track

    from vistasks.system.atomic import write_text
    from vistasks.training.lr_finder import find_learning_rate, plot, report

    found = find_learning_rate(
        config,
        lowest=parsed.lowest,
        highest=parsed.highest,
        steps=parsed.steps,
        track=lambda numbers: track(numbers, "finding the learning rate", transient=True),
    )
    plot(found, output)
    write_text(output.with_suffix(".json"), json.dumps(report(found), indent=1))
    print(
        f"{len(found.rates)} steps, loss {found.losses[0]:.3g} -> {min(found.smoothed):.3g} (smoothed) at {found.lowest:.2g}"
    )
    print(
        f"suggested    train.optimizer.lr={found.suggestion:.2g}   (the config has {config.train.optimizer.lr:g})"
    )
    if config.train.optimizer.backbone_lr:
        share = config.train.optimizer.backbone_lr / config.train.optimizer.lr
        print(
            f"             train.optimizer.backbone_lr={found.suggestion * share:.2g}   (in the config's proportion)"
        )
    print(f"plot         {output.resolve()}")
    return 0
