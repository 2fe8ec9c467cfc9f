"""The worker-memory benchmark: what it writes, what it weighs, and the figure that it is for."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from vistasks.benchmarks.loader import _family, _pss, benchmark, write_index
from vistasks.datasets import load_dataset

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")


def test_the_index_is_a_coco_data_set(tmp_path: Path) -> None:
    write_index(tmp_path / "a", images=30, boxes=200)
    data = load_dataset(
        {"format": "coco", "root": str(tmp_path / "a"), "images": "train", "annotations": "a.json"}
    )
    assert len(data) == 30 and sum(len(data.annotation(index).labels) for index in range(30)) == 200
    assert (
        data[29].size == (64, 64)
        and len(json.loads((tmp_path / "a" / "a.json").read_text())["categories"]) == 80
    )


def test_this_process_weighs_something_and_has_a_family() -> None:
    assert (
        _pss(os.getpid()) > 10_000
        and os.getpid() in _family(os.getppid())
        and _family(os.getpid())[0] == os.getpid()
    )


@pytest.mark.slow
def test_workers_hardly_add_to_the_memory_of_the_index() -> None:
    found = benchmark(images=60_000, boxes=430_000, workers=8)
    assert found["index_ratio"] <= 1.3, found
