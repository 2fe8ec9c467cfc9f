"""``vistasks compress``."""

from __future__ import annotations

import argparse
from pathlib import Path

from vistasks.commands.arguments import trust_argument


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights", required=True, metavar="PATH", help="checkpoint (.safetensors) or run folder"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="write the compressed checkpoint here")
    parser.add_argument(
        "--ranks", metavar="N,N", help="rank of each hidden layer, comma-separated; Fast R-CNN uses 1024,256"
    )
    parser.add_argument(
        "--keep",
        type=float,
        metavar="SHARE",
        help="share of each layer's energy to keep, such as 0.9, instead of --ranks",
    )
    trust_argument(parser)
    parser.set_defaults(run=_compress)


def _compress(parsed: argparse.Namespace) -> int:
    try:
        ranks = [int(number) for number in parsed.ranks.split(",")] if parsed.ranks else None
    except ValueError:
        raise ValueError(
            f"--ranks: expected comma-separated whole numbers, such as 1024,256; received '{parsed.ranks}'"
        ) from None
    from rich.table import Table

    from vistasks.refining.compress import compress
    from vistasks.system.locks import owned
    from vistasks.system.terminal import PlainConsole

    with owned(Path(parsed.output)):
        done = compress(parsed.weights, parsed.output, ranks=ranks, keep=parsed.keep, trust=parsed.trust)
    table = Table("stage", "layer", "inputs", "outputs", "rank", "energy kept", "size")
    for row in done["layers"]:
        table.add_row(*(str(value) for value in row.values()))
    console = PlainConsole()
    console.print(table)
    before, after = done["parameters"]["before"], done["parameters"]["after"]
    console.print(f"{before / 1e6:.2f} M parameters before, {after / 1e6:.2f} M after", highlight=False)
    print(f"weights      {done['output']}")
    print(f"to measure the loss in accuracy: vistasks evaluate --config CONFIG --weights {parsed.output}")
    return 0
