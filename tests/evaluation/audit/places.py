"""Places of pictures that do not exist, with what a model says of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from vistasks.evaluation.audit.places import DETECTED, LABELLED, PictureEvidence, Places

NAMES = ("cat", "dog")


def places(*rows: dict[str, Any]) -> Places:
    """One place a row: given (2: nothing is labelled), scores of cat, dog and none, and what else is not as
    usual.
    """
    columns: dict[str, list[Any]] = {}
    for number, row in enumerate(rows):
        box = row.get("box", [100 * number, 0, 100 * number + 50, 50])
        full = {
            "source": LABELLED if row["given"] < 2 else DETECTED,
            "claimed": row["given"] if row["given"] < 2 else int(np.argmax(row["scores"][:2])),
            "seen": [np.nan, np.nan],
            "marked": [np.nan, np.nan],
            "placed": 0.9 if row["given"] < 2 else np.nan,
            "moved": box,
            "judged": True,
            **row,
            "boxes": box,
        }
        full.pop("box", None)
        for key, value in full.items():
            columns.setdefault(key, []).append(value)
    kinds = {"source": np.int64, "given": np.int64, "claimed": np.int64, "judged": np.bool_}
    return Places(**{key: np.array(values, kinds.get(key, np.float32)) for key, values in columns.items()})


def picture(
    found: Places | None, *, index: int = 0, areas: Places | None = None, unsure: float = 0.0
) -> PictureEvidence:
    return PictureEvidence(index, f"pictures/{index}.jpg", (100, 1000), found, areas, (9.9, 10), True, unsure)
