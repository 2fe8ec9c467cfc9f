"""``vistasks summary``."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from vistasks.commands.arguments import config_arguments


def add(parser: argparse.ArgumentParser) -> None:
    config_arguments(parser)
    parser.add_argument("--size", default="480x640", metavar="HxW", help="input size (default: 480x640)")
    parser.add_argument(
        "--classes", type=int, metavar="N", help="number of classes, instead of reading the data"
    )
    parser.add_argument(
        "--proposals", type=int, default=300, help="number of region proposals (default: 300)"
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="also list layers without parameters or kernels (activations, dropout)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the summary as JSON here")
    parser.set_defaults(run=_summary)


def _summary(parsed: argparse.Namespace) -> int:
    from vistasks.config import load_config

    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", parsed.size)
    if match is None:
        raise ValueError(f"--size: expected HEIGHTxWIDTH, such as 480x640; received '{parsed.size}'")
    if parsed.proposals < 1 or (parsed.classes is not None and parsed.classes < 1):
        raise ValueError("--proposals and --classes must be at least 1")
    config = load_config(parsed.config, parsed.overrides)
    from vistasks.build import build_dataset
    from vistasks.inspection.summary import summarise
    from vistasks.models.building import build_model
    from vistasks.system.atomic import write_text
    from vistasks.types import ClassNames

    if parsed.classes is None:
        classes = build_dataset(config, "train").classes
    else:
        names = tuple(f"class {number}" for number in range(parsed.classes))
        classes = ClassNames(names, ("background", *names))
    model = build_model(config.model, classes, pretrained=False)
    found = summarise(model, classes, (int(match[1]), int(match[2])), proposals=parsed.proposals)
    _print(found, everything=parsed.all)
    if parsed.json:
        write_text(Path(parsed.json), json.dumps(found, indent=1))
        print(f"summary: {Path(parsed.json).resolve()}")
    return 0


def _print(found: dict[str, Any], *, everything: bool) -> None:
    devices = list(found["seconds"])
    print(f"image {found['padded'][0]}x{found['padded'][1]} (padded); output: height x width x channels; by the formula: "
          "the width by (W - F + 2P)/S + 1, rounded down; sees: receptive field in pixels")  # fmt: skip
    header = [
        "layer",
        "kind",
        "output",
        "by the formula",
        "kernel",
        "stride",
        "parameters",
        "M mult-adds",
        "MiB",
        "sees",
    ]
    table = [[*header, *(f"{device} %" for device in devices)]]
    for layer in found["layers"]:
        if not (everything or layer["kernel"] or layer["multiply_adds"]):
            continue
        shares = [f"{100 * layer['seconds'][device] / found['seconds'][device]:.1f}" for device in devices]
        sees = "" if layer["receptive_field"] is None else str(layer["receptive_field"])
        numbers = [
            f"{layer['parameters']:,}",
            f"{layer['multiply_adds'] / 1e6:,.1f}",
            f"{layer['memory_mib']:.2f}",
            sees,
        ]
        table.append(
            [
                *(layer[key] for key in ("name", "kind", "output", "formula", "kernel", "stride")),
                *numbers,
                *shares,
            ]
        )
    _print_table(table, left=4)
    totals = [["part", "parameters", "M mult-adds", "MiB of maps", *(f"{device} s" for device in devices)]]
    for part, total in [*found["parts"].items(), ("total", found["total"])]:
        numbers = [
            f"{total['parameters']:,}",
            f"{total['multiply_adds'] / 1e6:,.1f}",
            f"{total['memory_mib']:.1f}",
        ]
        totals.append([part, *numbers, *(f"{total['seconds'][device]:.4f}" for device in devices)])
    print()
    _print_table(totals, left=1)
    for device in devices:
        whole, layers = found["seconds"][device], found["total"]["seconds"][device]
        print(
            f"{device}: {whole:.4f} s a pass, {found['proposals']} proposals; {whole - layers:.4f} s of it outside of layers"
        )
    for task, strides in found["strides"].items():
        print(
            f"{task} reads strides {', '.join(map(str, strides)) or 'none: it passes crops through the backbone'}"
        )


def _print_table(table: list[list[str]], *, left: int) -> None:
    """Plain lines of one row each, so that they can be piped; the first ``left`` columns are aligned to the
    left.
    """
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        cells = [text.ljust(w) if i < left else text.rjust(w) for i, (text, w) in enumerate(zip(row, widths))]
        print("  ".join(cells).rstrip())
