"""Other libraries' selective search as a proposal method, with a library that is played by a small module."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from vistasks.build import build_proposals
from vistasks.config import ProposalsConfig
from vistasks.proposals import CachedProposals, PeerProposals
from vistasks.types import Sample

DLIB = """
class Rectangle:
    def __init__(self, right): self.end = right
    def left(self): return 2
    def top(self): return 3
    def right(self): return self.end
    def bottom(self): return 40
def find_candidate_object_locations(image, found): found.extend(Rectangle(10 + i) for i in range(5))
"""


def _sample(value: int = 0) -> Sample:
    return Sample("a", "a.png", np.full((30, 50, 3), value, np.uint8))


def test_boxes_of_the_other_library_inside_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dlib.py").write_text(DLIB)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    method = PeerProposals(sys.executable, method="dlib", max_boxes=3)
    copy = pickle.loads(pickle.dumps(method))  # as a data worker gets it
    for each in (method, copy):
        boxes = each(_sample())
        assert boxes.dtype == np.float32
        assert boxes.tolist() == [[2, 3, 11 + i, 30] for i in range(3)]
        each.close()


def test_with_a_full_cache_the_other_python_is_not_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dlib.py").write_text(DLIB)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    method = CachedProposals(there := PeerProposals(sys.executable, method="dlib"), tmp_path / "cache")
    kept = method(_sample())
    there.close()
    options = {"name": "peer", "python": "/nowhere/python", "method": "dlib"}
    elsewhere = build_proposals(ProposalsConfig(method=options, cache=str(tmp_path / "cache")))
    assert elsewhere(_sample()).tolist() == kept.tolist()
    with pytest.raises(
        ValueError, match=r"/nowhere/python: cannot be run .*pip install opencv-contrib-python"
    ):
        elsewhere(_sample(9))
