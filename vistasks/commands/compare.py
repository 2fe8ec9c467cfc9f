"""``vistasks compare``."""

from __future__ import annotations

import argparse
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="folder written by evaluate --report, or a run folder that contains one named report",
    )
    parser.add_argument(
        "--output",
        default="out/compare",
        metavar="DIR",
        help="write compare.html and compare.json here (default: out/compare)",
    )
    parser.add_argument(
        "--samples",
        type=int,
        metavar="N",
        help="bootstrap samples for AP (default: 1000; 100 for more than 1000 images)",
    )
    parser.set_defaults(run=_compare)


def _compare(parsed: argparse.Namespace) -> int:
    import json

    from vistasks.evaluation.reports.comparison import compare_runs, read_runs
    from vistasks.evaluation.reports.comparison_page import comparison_page, comparison_tables
    from vistasks.system.atomic import write_text
    from vistasks.system.locks import owned
    from vistasks.system.terminal import PlainConsole

    content = compare_runs(read_runs(parsed.runs), samples=parsed.samples)
    console = PlainConsole()
    for table in comparison_tables(content):
        console.print(table)
    folder = Path(parsed.output)
    with owned(folder):
        write_text(folder / "compare.json", json.dumps(content, indent=1))
        write_text(folder / "compare.html", comparison_page(content))
    print(f"page: {(folder / 'compare.html').resolve()}")
    return 0
