"""Trains, evaluates and infers as a system without Unix's own calls would: `python -m tests.system.without_unix FOLDER`.

Data workers import this file, too.
"""

from __future__ import annotations

import asyncio  # noqa: F401 - on Unix it needs fcntl itself
import multiprocessing
import os
import sys
from pathlib import Path

import filelock  # noqa: F401 - Windows has locks of its own, which it takes there

for module in ("resource", "fcntl"):
    sys.modules[module] = None  # type: ignore[assignment]
for call in ("memfd_create", "fork"):
    if hasattr(os, call):
        delattr(os, call)
multiprocessing.get_all_start_methods = lambda: ["spawn"]
multiprocessing.set_start_method("spawn", force=True)


def main(base: Path) -> int:
    import yaml

    from tests.tiny_data import config_values, voc_data, write_voc
    from vistasks.cli import main as vistasks

    root = write_voc(base / "voc", count=2)
    values = config_values(base / "run", voc_data(root), "detection", "segmentation", epochs=1, workers=1)
    (base / "config.yaml").write_text(yaml.safe_dump(values))
    config, weights = ["--config", str(base / "config.yaml")], ["--weights", str(base / "run")]
    infer = ["infer", *weights, "--source", str(root / "JPEGImages"), "--output", str(base / "out")]
    return (
        vistasks(["train", *config, "data.val={}"])
        or vistasks(["evaluate", *config, *weights, "train.workers=0", "--report", str(base / "report")])
        or vistasks([*infer, "--score", "0"])
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
