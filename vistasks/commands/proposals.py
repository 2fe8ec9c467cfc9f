"""``vistasks proposals compute | report | clear``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vistasks.commands.arguments import add_action, config_arguments, max_pixels_argument


def add(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    compute = add_action(actions, "compute", "fill the proposal cache for a config's images; resumable")
    report = add_action(actions, "report", "measure recall, overlap and time of a config's proposals")
    for action, run in ((compute, _proposals_compute), (report, _proposals_report)):
        config_arguments(action)
        action.add_argument(
            "--part", choices=["train", "val"], default="val", help="part of the data (default: val)"
        )
        action.add_argument("--threads", type=int, help="images in parallel (default: all cores)")
        action.set_defaults(run=run)
    report.add_argument("--json", metavar="FILE", help="write the results as JSON here")
    report.add_argument("--plot", metavar="FILE", help="write a plot of recall by number of boxes here")
    stages = add_action(actions, "stages", "draw the stages of selective search on an image")
    stages.add_argument("--image", required=True, metavar="FILE", help="input image")
    max_pixels_argument(stages)
    stages.add_argument(
        "--output",
        default="out/stages.png",
        metavar="FILE",
        help="output png or jpg (default: out/stages.png)",
    )
    stages.add_argument(
        "--mode", choices=["single", "fast", "quality"], default="fast", help="mode (default: fast)"
    )
    stages.set_defaults(run=_stages)
    clear = add_action(actions, "clear", "empty a proposal cache")
    clear.add_argument(
        "--folder", default="data/proposals", metavar="DIR", help="cache folder (default: data/proposals)"
    )
    clear.set_defaults(run=_proposals_clear)


def _proposals_compute(parsed: argparse.Namespace) -> int:
    dataset, method = _proposals_of(parsed)
    from vistasks.proposals.commands import compute_command

    return compute_command(dataset, method, threads=parsed.threads)


def _proposals_report(parsed: argparse.Namespace) -> int:
    dataset, method = _proposals_of(parsed)
    from vistasks.proposals.commands import report_command

    json_path, plot_path = (Path(name) if name else None for name in (parsed.json, parsed.plot))
    return report_command(dataset, method, json_path=json_path, plot_path=plot_path, threads=parsed.threads)


def _stages(parsed: argparse.Namespace) -> int:
    from vistasks.datasets.images import read_image
    from vistasks.proposals.stages import stages_command

    return stages_command(
        read_image(parsed.image, max_pixels=parsed.max_pixels), parsed.mode, Path(parsed.output)
    )


def _proposals_clear(parsed: argparse.Namespace) -> int:
    from vistasks.proposals.commands import clear_command

    return clear_command(Path(parsed.folder))


def _proposals_of(parsed: argparse.Namespace) -> tuple[Any, Any]:
    from vistasks.config import load_config

    config = load_config(parsed.config, parsed.overrides)
    from vistasks.build import build_dataset, build_proposals

    return build_dataset(config, parsed.part), build_proposals(config.proposals)
