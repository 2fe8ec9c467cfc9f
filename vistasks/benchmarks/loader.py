"""Memory of the loader with and without workers, over a generated COCO-sized index, each case in a process of
its own.

What counts is the proportional set size (PSS, from Linux's ``smaps_rollup``) of the process and all its
descendants: a page that several share counts in parts, so that the sum is what the machine really holds."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_SIDE = 64  # of the pictures, which are all the same few files: the index is what is measured
_LINKS = 50_000  # names of one file; file systems allow some 65,000


def benchmark(*, images: int = 118_000, boxes: int = 860_000, workers: int = 8) -> dict[str, Any]:
    """PSS in MB with 0 and with ``workers`` workers, over the whole index and over one of 64 images.

    ``index`` is what the large index takes beyond the small one: the part that grows with the data.
    """
    if not Path("/proc/self/smaps_rollup").exists():
        raise OSError("benchmark loader: needs Linux's /proc/PID/smaps_rollup")
    found: dict[str, Any] = {"images": images, "boxes": boxes, "workers": workers}
    with tempfile.TemporaryDirectory(prefix="vistasks-loader-") as folder:
        for name, size in (("small", (64, 64 * boxes // images)), ("large", (images, boxes))):
            root = Path(folder) / name
            write_index(root, images=size[0], boxes=size[1])
            for count in (0, workers):
                found[f"{name}, {count} workers"] = _in_new_process(root, count)
    total = {key: found[key]["total_mb"] for key in found if key.endswith("workers") and key != "workers"}
    index = {
        count: total[f"large, {count} workers"] - total[f"small, {count} workers"] for count in (0, workers)
    }
    found["index_mb"] = {str(count): round(value, 1) for count, value in index.items()}
    found["index_ratio"] = round(index[workers] / index[0], 3)
    found["total_ratio"] = round(total[f"large, {workers} workers"] / total["large, 0 workers"], 3)
    return found


def write_index(root: Path, *, images: int, boxes: int, seed: int = 0) -> None:
    """A COCO folder: ``a.json`` and ``train`` with as many names of a few small pictures."""
    rng = np.random.default_rng(seed)
    (root / "train").mkdir(parents=True)
    pixels = Image.fromarray(rng.integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8))
    names = [f"{number:012d}.jpg" for number in range(images)]
    for number, name in enumerate(names):
        path = root / "train" / name
        if number % _LINKS == 0:
            pixels.save(path)
            source = path
        else:
            os.link(source, path)
    corners = rng.uniform(0, _SIDE / 2, (boxes, 2)).round(2)
    sides = rng.uniform(1, _SIDE / 2, (boxes, 2)).round(2)
    rows = zip(
        rng.integers(0, images, boxes).tolist(),
        rng.integers(1, 81, boxes).tolist(),
        corners.tolist(),
        sides.tolist(),
    )
    content = {
        "images": [
            {"id": i, "file_name": name, "height": _SIDE, "width": _SIDE} for i, name in enumerate(names)
        ],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "bbox": [*corner, *side],
                "area": 100.0,
                "iscrowd": 0,
            }
            for number, (image, category, corner, side) in enumerate(rows)
        ],
        "categories": [{"id": number, "name": f"class {number}"} for number in range(1, 81)],
    }
    (root / "a.json").write_text(json.dumps(content), encoding="utf-8")


def _in_new_process(root: Path, workers: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "vistasks.benchmarks.loader", str(root), str(workers)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(root: Path, workers: int) -> dict[str, Any]:
    """Opens the index, loads batches until every worker has worked, and weighs this process and its
    descendants.
    """
    from vistasks.config import InputConfig
    from vistasks.datasets import load_dataset
    from vistasks.loading.loader import EpochOrder, Pipeline, batches

    start = time.perf_counter()
    data = load_dataset(
        {"format": "coco", "root": str(root), "images": "train", "annotations": "a.json", "tasks": ["detect"]}
    )
    opened = time.perf_counter() - start
    gc.collect()
    order = EpochOrder(len(data), batch_size=2, shuffle=True, seed=0)
    loader = batches(
        Pipeline(data, None, None, InputConfig(), 0), order, classes=data.classes, divisor=32, workers=workers
    )
    for number, _ in enumerate(loader):
        if number == 4 * max(1, workers):  # the batches come from the workers in turn
            break
    parts = {process: _pss(process) for process in _family(os.getpid())}
    main = parts.pop(os.getpid())
    mega = {
        "main_mb": main / 1024,
        "workers_mb": sum(parts.values()) / 1024,
        "total_mb": (main + sum(parts.values())) / 1024,
    }
    return {name: round(value, 1) for name, value in {**mega, "seconds_to_open": opened}.items()} | {
        "processes": 1 + len(parts)
    }


def _pss(process: int) -> int:
    """In KiB."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _family(process: int) -> list[int]:
    """The process and all its descendants."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (
                    (entry / "stat").read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()
                )
            except OSError:  # it has just ended
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [process]
    for member in found:
        found += parents.get(member, [])
    return found


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
