"""Where tests find the real data that lies beside the checkout; tests skip with a reason where it is
missing.
"""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared(name: str) -> Path:
    """The folder (or file) ``name`` of the shared data sets, or a skip that says what is missing."""
    path = SHARED_DATA / name
    if not path.exists():
        pytest.skip(f"the data set {name} is not there: expected at {path}")
    return path
