"""Batches from workers where shared memory or open files are scarce."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vistasks.loading import handover
from vistasks.loading.handover import Packed, packed_if_needed

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Thing:
    images: Tensor
    boxes: list[Tensor]
    more: dict[str, Tensor]


def thing() -> Thing:
    return Thing(torch.ones(10, 100), [torch.arange(4), torch.zeros(0)], {"a": torch.ones(3)})


@pytest.mark.parametrize(
    ("free", "files", "reason"),
    [
        (None, None, ""),
        (10**9, 1024, ""),
        (3 * 4000, 1024, "/dev/shm"),  # 4,044 bytes for each of three
        (10**9, 64 + 4 * 6 - 1, "ulimit"),
        (10**9, 64 + 4 * 6, ""),
    ],
)
def test_a_batch_takes_the_pipe_where_there_is_too_little(
    monkeypatch: pytest.MonkeyPatch, free: int | None, files: int | None, reason: str
) -> None:
    monkeypatch.setattr(handover, "_free_shared_memory", lambda: free)
    monkeypatch.setattr(handover, "open_files_limit", lambda: files)
    given = thing()
    found = packed_if_needed(given, workers=2)
    if not reason:
        assert found is given
        return
    assert isinstance(found, Packed) and reason in found.reason
    again = pickle.loads(pickle.dumps(found)).unpacked()
    assert torch.equal(again.images, given.images) and torch.equal(again.boxes[0], given.boxes[0])


TRAIN = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]),) * 2)
from vistasks.cli import main
sys.exit(main(["train", "--config", sys.argv[2]]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no limit of open files")
@pytest.mark.parametrize(("limit", "code"), [(100, 0), (20, 1)])
def test_few_open_files(tmp_path: Path, limit: int, code: int) -> None:
    """A run with workers goes on, or ends with one line; it never waits for a batch that is lost."""
    from tests.tiny_data import tiny_config, voc_data, write_voc
    from vistasks.config import to_yaml

    data = voc_data(write_voc(tmp_path / "data", count=6))
    config = tiny_config(tmp_path / "run", data, "detection", workers=2, epochs=1, samples=0)
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    command = [sys.executable, "-c", TRAIN, str(limit), str(tmp_path / "config.yaml")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=900, check=False, cwd=ROOT
    )
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    assert "ulimit -n" in done.stderr and "network" not in done.stdout + done.stderr
