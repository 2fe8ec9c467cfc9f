"""``vistasks compare``."""

from __future__ import annotations

import argparse
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="a folder that evaluate --report wrote, or a run folder with one called report",
    )
    parser.add_argument(
        "--output",
        default="out/compare",
        metavar="DIR",
        help="compare.html and compare.json go here (default: out/compare)",
    )
    parser.add_argument(
        "--samples",
        type=int,
        metavar="N",
        help="draws of the bootstrap of AP (1000; 100 of more than 1000 pictures)",
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
