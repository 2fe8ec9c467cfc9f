"""docs/architecture.md names the rooms in the order of the imports, and functions that exist."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from tests.test_imports import ROOMS

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
ROWS = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
NAMES = sorted(set(re.findall(r"`((?:[a-z_]+\.)+[A-Za-z_.]+)`", PAGE)) - {"docs/architecture.md"})


def test_it_lists_the_rooms_in_the_order_of_the_imports() -> None:
    assert [*re.findall(r"`(\w+)`", " ".join(ROWS)), "__init__"] == ROOMS


def test_it_names_functions() -> None:
    assert len(NAMES) > 30


@pytest.mark.parametrize("name", NAMES)
def test_what_it_names_exists(name: str) -> None:
    module, rest = "vistasks", name.split(".")
    while rest and importlib.util.find_spec(f"{module}.{rest[0]}") is not None:
        module = f"{module}.{rest.pop(0)}"
        if not hasattr(importlib.import_module(module), "__path__"):
            break
    found: object = importlib.import_module(module)
    for part in rest:
        found = getattr(found, part)
