"""Every value of a file replaced by one of every other type: told in a line that names the file, or harmless.

The default suite tries a sample, ``pytest -m slow`` all of them.
"""

from __future__ import annotations

import copy
import json
import resource
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.fuzz import Case, coco_cases, state_cases
from tests.test_fuzz import judged
from tests.tiny_data import config_values, voc_data, write_voc
from vistasks.config import load_config, parse_config

# by type, and within a type what has broken readers: beyond float, beyond int64, no text, nested
VALUES: list[Any] = [None, True, 0, -1, 2**63, 10**400, 1.5, 1e308, "", "x", "\udce9", "\x1b[2J", [], [0], [[[]]], ["x", None],
                     {}, {"cuont": 5}, {"name": []}, {"id": {}}]  # fmt: skip
DEEP: Any = None
for _ in range(300):
    DEEP = [DEEP]


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to each value, the whole first; of a long list its first two."""
    yield at
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*at, key))
    elif isinstance(value, list):
        for index in range(min(2, len(value))):
            yield from places(value[index], (*at, index))


def replaced(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    if not at:
        return new
    changed = node = copy.deepcopy(value)
    for key in at[:-1]:
        node = node[key]
    node[at[-1]] = new
    return changed


def changes(value: Any) -> list[tuple[tuple[Any, ...], Any]]:
    """(place, new value) of all that is tried."""
    return [(at, new) for at in places(value) for new in (*VALUES, DEEP)]


def as_bytes(path: Path, value: Any) -> bytes:
    if path.suffix == ".yaml":
        return yaml.safe_dump(value, sort_keys=False).encode("utf-8", "surrogatepass")
    return json.dumps(value).encode()


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    root = tmp_path_factory.mktemp("structure")
    found = {**coco_cases(root / "coco"), **state_cases(root / "state")}
    config = root / "config.yaml"
    values = config_values(root / "run", voc_data(write_voc(root / "voc", count=2)), "detection")
    config.write_text(yaml.safe_dump(parse_config(values).model_dump(), sort_keys=False))

    def read() -> list[str]:
        load_config(config)
        return []

    kinds = ("json", "json skipped", "panoptic json", "state json", "space")
    return {**{kind: found[kind] for kind in kinds}, "config": Case(config, read)}


def tried(cases: dict[str, Case], share: float) -> Counter[str]:
    """Counts by outcome, over a share of all changes."""
    counts: Counter[str] = Counter()
    wrong, draw, longest = [], np.random.default_rng(0), 0.0
    for kind, case in cases.items():
        text = case.path.read_text()
        value = yaml.safe_load(text) if case.path.suffix == ".yaml" else json.loads(text)
        for at, new in changes(value):
            if draw.random() >= share:
                continue
            what = f"{kind}: {'.'.join(map(str, at))} = {str(new)[:30]}"
            start = time.perf_counter()
            try:
                counts[f"{kind}: {judged(case, as_bytes(case.path, replaced(value, at, new)), what)}"] += 1
            except AssertionError as error:
                wrong.append(str(error))
            longest = max(longest, time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{sum(counts.values())} cases, {len(wrong)} wrong, {peak:.0f} MB at most, longest {longest:.2f} s",
        dict(counts),
    )
    assert not wrong, "\n".join([f"{len(wrong)} of {sum(counts.values()) + len(wrong)}", *wrong])
    return counts


def test_a_sample_of_wrong_types(cases: dict[str, Case]) -> None:
    counts = tried(cases, 0.05)
    assert all(counts[f"{kind}: told"] + counts[f"{kind}: skipped"] for kind in cases), counts


@pytest.mark.slow
def test_every_wrong_type_at_every_key(cases: dict[str, Case]) -> None:
    assert sum(tried(cases, 1.0).values()) > 3000


@pytest.mark.parametrize("folds", [{"cuont": 5}, {"count": 5, "flod": 0}, [], "x"])
def test_folds_that_are_none(tmp_path: Path, folds: Any) -> None:
    values = config_values(tmp_path / "run", voc_data(tmp_path), "detection")
    values["data"]["folds"] = folds
    with pytest.raises(ValueError, match=r"data\.folds"):
        parse_config(values)
