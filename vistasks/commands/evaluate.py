"""``vistasks evaluate``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from vistasks.commands.arguments import config_arguments, test_time, test_time_arguments


def add(parser: argparse.ArgumentParser) -> None:
    config_arguments(parser)
    test_time_arguments(parser)
    parser.add_argument("--weights", required=True, metavar="PATH", help="a checkpoint (.safetensors) or a run folder")
    parser.add_argument("--json", metavar="FILE", help="write the whole report here")
    parser.add_argument("--report", metavar="DIR", help="write report.html and report.json here: errors, curves, pictures")
    parser.add_argument("--engine", choices=["hotcoco", "pycocotools"], help="what computes COCO AP")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.set_defaults(run=_evaluate)


def _evaluate(parsed: argparse.Namespace) -> int:
    from vistasks.config import load_config

    overrides = [*parsed.overrides, *([f"evaluate.engine={parsed.engine}"] if parsed.engine else [])]
    config = load_config(parsed.config, overrides)
    from rich.console import Console
    from rich.progress import track

    from vistasks.atomic import write_text
    from vistasks.evaluate import evaluate
    from vistasks.metrics.tables import report_tables

    print(f"weights      {Path(parsed.weights).resolve()}")
    print(f"data         {Path(config.data.root).resolve()}", flush=True)
    report = evaluate(
        config,
        parsed.weights,
        device=parsed.device,
        track=lambda loader: track(loader, "evaluating", transient=True),
        test_time=test_time(parsed),
        page=Path(parsed.report) if parsed.report else None,
    )
    for text in report.get("skipped", {}).values():
        print(f"skipped      {text}")
    console = Console()
    for table in report_tables(report):
        console.print(table)
    seconds = report["model_seconds_per_image"]
    console.print(f"{report['images']} pictures, {seconds:.3f} s a picture in the model", highlight=False)
    if parsed.json:
        write_text(Path(parsed.json), json.dumps(report, indent=1))
        print(f"report: {Path(parsed.json).resolve()}")
    if parsed.report:
        print(f"page: {(Path(parsed.report) / 'report.html').resolve()}")
    return 0
