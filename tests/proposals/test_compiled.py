"""Compilation: announced once, kept where possible, working where not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import vistasks

CODE = "import numpy as np; from vistasks.proposals.graph_segmentation import find_root; print(find_root(np.array([0, 0, 1]), 2))"


def _run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    return subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True, cwd=folder, env=variables
    )


def _copy(folder: Path) -> Path:
    shutil.copytree(
        Path(vistasks.__file__).parent, folder / "vistasks", ignore=shutil.ignore_patterns("__pycache__")
    )
    return folder


def test_announced_at_the_first_call_of_an_installation_only(tmp_path: Path) -> None:
    folder = _copy(tmp_path)
    first, second = _run(folder), _run(folder)
    assert first.stdout == second.stdout == "0\n"
    assert (
        first.stderr.startswith("compiling selective search once (about ") and first.stderr.count("\n") == 1
    )
    assert second.stderr == ""


def test_works_where_no_cache_can_be_written(tmp_path: Path) -> None:
    folder = _copy(tmp_path)
    # files in the way of the cache folders: this holds for root too, unlike missing rights
    (folder / "vistasks" / "proposals" / "__pycache__").write_text("")
    (folder / "home").write_text("")
    home = str(folder / "home")
    for _ in range(2):
        result = _run(folder, HOME=home, XDG_CACHE_HOME=home, NUMBA_CACHE_DIR="")
        assert result.stdout == "0\n" and "compiling" in result.stderr
