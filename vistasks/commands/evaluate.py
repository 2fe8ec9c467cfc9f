"""``vistasks evaluate``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vistasks.commands.arguments import (
    box_fusion,
    config_arguments,
    given_votes,
    given_weights,
    test_time,
    test_time_arguments,
    trust_argument,
    votes_argument,
    weights_argument,
)


def add(parser: argparse.ArgumentParser) -> None:
    config_arguments(parser)
    test_time_arguments(parser)
    weights_argument(parser)
    votes_argument(parser)
    parser.add_argument("--json", metavar="FILE", help="write the report as JSON here")
    parser.add_argument(
        "--report",
        metavar="DIR",
        help="write report.html and report.json here: error analysis, curves, worst images",
    )
    parser.add_argument(
        "--gain",
        action="store_true",
        help="also evaluate each model alone and without --tta, to show gain and cost",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue an interrupted evaluation from the predictions in --report",
    )
    parser.add_argument("--engine", choices=["hotcoco", "pycocotools"], help="library that computes COCO AP")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    trust_argument(parser)
    parser.set_defaults(run=_evaluate)


# of the train section: data workers, and which images are evaluated
_USED = ("train.workers", "train.overfit_batches", "train.batch_size", "train.devices")


def refuse_ignored(overrides: Iterable[str]) -> None:
    """Raises a ``ValueError`` for a value of the command line that an evaluation does not look at."""
    for override in overrides:
        key = override.partition("=")[0]
        section, _, rest = key.partition(".")
        if key in _USED:
            continue
        if section in ("output", "augment", "train", "checkpoint"):
            raise ValueError(f"{key}: has no effect on an evaluation; it is for `vistasks train`")
        decodes = rest.startswith("heads.") and "decoding" in rest.split(".")
        if (section == "model" and not decodes) or (section == "input" and rest != "predict_scale"):
            raise ValueError(
                f"{key}: has no effect on an evaluation: model and input size are the checkpoint's; "
                "model.heads.HEAD.decoding and input.predict_scale can be changed"
            )


def _evaluate(parsed: argparse.Namespace) -> int:
    from vistasks.config import load_config

    weights = given_weights(parsed)
    overrides = [*parsed.overrides, *([f"evaluate.engine={parsed.engine}"] if parsed.engine else [])]
    refuse_ignored(parsed.overrides)
    config = load_config(parsed.config, overrides)
    from vistasks.evaluation.loop import evaluate
    from vistasks.metrics.tables import gain_table, report_tables
    from vistasks.system.atomic import write_text
    from vistasks.system.terminal import PlainConsole

    for path in weights:
        print(f"weights      {Path(path).resolve()}")
    print(f"data         {Path(config.data.root).resolve()}", flush=True)
    report = evaluate(
        config,
        weights,
        device=parsed.device,
        track=_bar,
        test_time=test_time(parsed),
        fusion=box_fusion(parsed),
        votes=given_votes(parsed),
        page=Path(parsed.report) if parsed.report else None,
        gain=parsed.gain,
        resume=parsed.resume,
        trust=parsed.trust,
    )
    for text in report.get("skipped", {}).values():
        print(f"skipped      {text}")
    console = PlainConsole()
    for table in report_tables(report):
        console.print(table)
    seconds = report["model_seconds_per_image"]
    console.print(f"{report['images']} images, {seconds:.3f} s per image in the model", highlight=False)
    if "gain" in report:
        console.print(gain_table(report["gain"]))
    if parsed.json:
        write_text(Path(parsed.json), json.dumps(report, indent=1))
        print(f"report: {Path(parsed.json).resolve()}")
    if parsed.report:
        print(f"page: {(Path(parsed.report) / 'report.html').resolve()}")
    return 0


def _bar(batches: Iterable[Any], total: int) -> Iterator[Any]:
    """Yields the batches under a bar, if somebody looks at it (standard error is a terminal)."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from vistasks.system.terminal import PlainConsole

    console = PlainConsole(stderr=True)
    columns = TextColumn("evaluating"), BarColumn(bar_width=30), MofNCompleteColumn(), TextColumn("batches")
    times = TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()
    with Progress(*columns, *times, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield from bar.track(batches, total=total)
