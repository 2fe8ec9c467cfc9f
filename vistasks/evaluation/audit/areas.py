"""Connected areas of a class map and of a labelled mask, as places: what can be judged where there are no
boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from vistasks.evaluation.audit.places import LABELLED, MAPPED, Places, Vocabulary
from vistasks.types import IGNORE_INDEX, Sample

LEAST_AREA = 0.002  # of the picture, of an area that is judged
MOSTLY, HARDLY = 0.8, 0.1  # shares of an area's pixels


@dataclass(frozen=True, eq=False)
class Component:
    """``label``: which entry of the asked columns; box (4,) float32 x1, y1, x2, y2; mask (H, W) bool."""

    label: int
    box: np.ndarray
    mask: np.ndarray


Components = list[Component]


def components(maps: np.ndarray, columns: Sequence[int], background: int) -> Components:
    """The connected areas of the classes at ``columns`` in the likeliest classes of (S, h, w)
    probabilities.
    """
    return _components(maps.argmax(axis=0), columns, background)


def _components(labels: np.ndarray, columns: Sequence[int], background: int) -> Components:
    found = []
    least = max(16, LEAST_AREA * labels.size)
    for label, column in enumerate(columns):
        if column < 0 or column == background:
            continue
        count, owners, facts, _ = cv2.connectedComponentsWithStats(
            (labels == column).astype(np.uint8), connectivity=8
        )
        for number in range(1, count):
            x, y, width, height, area = (int(value) for value in facts[number])
            if area >= least:
                found.append(
                    Component(label, np.array([x, y, x + width, y + height], np.float32), owners == number)
                )
    return found


def map_evidence(
    maps: np.ndarray, truth: np.ndarray | None, sample: Sample, words: Vocabulary
) -> tuple[Places | None, float]:
    """The areas of one picture, and how many of them the map is unsure about.

    Args:
        maps: (S, h, w) probabilities.
        truth: (h, w) or larger, padded, labels of the same pixels; None where there is no mask.
        sample: the picture as its file has it.
        words: the classes that are judged as areas.
    """
    mapped = components(maps, words.of_areas, words.background)
    own = np.array([maps[words.of_areas[part.label]][part.mask].mean() for part in mapped])
    unsure = float((4 * own * (1 - own)).sum())
    if truth is None or not sample.labelled.segmentation:
        return None, unsure
    height, width = maps.shape[1:]
    truth = truth[:height, :width]
    labelled = _components(truth, words.of_areas, words.background)
    free = [part for part in mapped if _unlabelled(part, truth, words)]
    return _places(maps, labelled, free, sample, words), unsure


def _unlabelled(part: Component, truth: np.ndarray, words: Vocabulary) -> bool:
    """Whether an area of the map lies where the mask says background, or nothing that counts against it."""
    values = truth[part.mask]
    return bool(
        words.background >= 0
        and (values == words.background).mean() >= MOSTLY
        and (values == IGNORE_INDEX).mean() <= HARDLY
        and (values == words.of_areas[part.label]).mean() <= HARDLY
    )


def _places(
    maps: np.ndarray, labelled: Components, free: Components, sample: Sample, words: Vocabulary
) -> Places:
    classes, parts = len(words.areas), [*labelled, *free]
    height, width = maps.shape[1:]
    scale = np.array([sample.size[1] / width, sample.size[0] / height] * 2, np.float32)
    claimed = np.array([part.label for part in parts], np.int64)
    given = claimed.copy()
    given[len(labelled) :] = classes
    scores = np.zeros((len(parts), classes + 1), np.float32)
    for row, part in enumerate(parts):
        means = maps[:, part.mask].mean(axis=1)
        scores[row, :classes] = means[list(words.of_areas)]
        scores[row, classes] = means[words.background] if words.background >= 0 else 0.0
    boxes = np.array([part.box for part in parts], np.float32).reshape(-1, 4) * scale
    nothing = np.full((len(parts), classes), np.nan, np.float32)
    covered = np.isin(np.array(words.of_areas, np.int64)[claimed], list(sample.labelled.segmentation))
    return Places(
        boxes=boxes,
        source=np.repeat([LABELLED, MAPPED], [len(labelled), len(free)]),
        given=given,
        claimed=claimed,
        scores=scores,
        seen=nothing,
        marked=nothing,
        placed=np.full(len(parts), np.nan, np.float32),
        moved=boxes,
        judged=covered,
    )
