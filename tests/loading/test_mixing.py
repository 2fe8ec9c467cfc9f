"""Pictures made of several: every box, proposal and mask pixel stays with its colour."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.tiny_data import tiny_config, voc_data, write_voc
from vistasks.build import build_dataset, build_proposals
from vistasks.config import InputConfig
from vistasks.loading.augment import Augment
from vistasks.loading.loader import Pipeline
from vistasks.loading.mixing import CopyPaste, MixUp, Mosaic
from vistasks.types import Labelled, Sample

EVERYTHING = Labelled(frozenset({0, 1}), frozenset({0, 1, 2}))


def picture(colour: int, boxes: list[list[int]], size: tuple[int, int] = (60, 80)) -> Sample:
    """A grey picture whose objects have a colour of their own; the proposals are the objects and one over
    all.
    """
    image, mask = np.full((*size, 3), 5, np.uint8), np.zeros(size, np.uint8)
    for x1, y1, x2, y2 in boxes:
        image[y1:y2, x1:x2], mask[y1:y2, x1:x2] = colour, 1
    objects = np.array(boxes, np.float32).reshape(-1, 4)
    proposals = np.concatenate([objects, np.array([[0, 0, size[1], size[0]]], np.float32)])
    labels = np.zeros(len(boxes), np.int64)
    return Sample(
        "a", "a.png", image, objects, labels, segmentation=mask, proposals=proposals, labelled=EVERYTHING
    )


def colours_in(sample: Sample, boxes: np.ndarray) -> list[set[int]]:
    return [
        set(np.unique(sample.image[round(y1) : round(y2), round(x1) : round(x2)]))
        for x1, y1, x2, y2 in boxes.astype(float)
    ]


FOUR = [picture(colour, [[10, 10, 40, 30], [50, 35, 70, 55]]) for colour in (60, 110, 160, 210)]


@pytest.mark.parametrize("seed", range(8))
def test_mosaic(seed: int) -> None:
    mixed = Mosaic(scale=1)(
        FOUR[0], FOUR[1:], np.random.default_rng(seed)
    )  # not scaled, so that colours stay exact
    assert mixed.size == (60, 80) and mixed.segmentation is not None and mixed.proposals is not None
    assert all(len(colours) == 1 and 5 not in colours for colours in colours_in(mixed, mixed.boxes))
    covered = np.zeros((60, 80), bool)
    for x1, y1, x2, y2 in mixed.boxes.astype(int):
        covered[y1:y2, x1:x2] = True
    np.testing.assert_array_equal(
        mixed.image[..., 0] != 5, covered
    )  # every object has its box, however little is left
    np.testing.assert_array_equal(mixed.segmentation == 1, covered)
    whole = mixed.boxes[~mixed.difficult]
    assert all((mixed.proposals == box).all(axis=1).any() for box in whole)
    assert mixed.areas.tolist() == pytest.approx([(b[2] - b[0]) * (b[3] - b[1]) for b in mixed.boxes])


def test_mosaic_scales_and_labels_what_all_label() -> None:
    partly = replace(FOUR[1], labelled=Labelled(frozenset({1}), frozenset()))
    mixed = Mosaic(scale=0.5)(
        FOUR[0], [partly, FOUR[2], picture(9, [], size=(20, 20))], np.random.default_rng(0)
    )
    assert mixed.labelled == Labelled(frozenset({1}), frozenset()) and mixed.size == (60, 80)
    without = Mosaic()(FOUR[0], [replace(s, segmentation=None) for s in FOUR[1:]], np.random.default_rng(0))
    assert without.segmentation is not None and set(np.unique(without.segmentation)) == {0, 1, 255}


def test_mix_up_has_the_objects_of_both() -> None:
    other = picture(200, [[0, 0, 40, 40]], size=(120, 160))
    mixed = MixUp()(FOUR[0], [other], np.random.default_rng(0))
    assert mixed.boxes.tolist() == [[10, 10, 40, 30], [50, 35, 70, 55], [0, 0, 20, 20]]
    assert mixed.proposals is not None and len(mixed.proposals) == 5
    np.testing.assert_array_equal(mixed.segmentation, FOUR[0].segmentation)
    share = (float(mixed.image[20, 30, 0]) - 5) / 55  # 60 of the first over 5 of the second
    assert 0.5 <= share < 1


@pytest.mark.parametrize("seed", range(8))
def test_copy_paste_covers_nothing(seed: int) -> None:
    other = picture(200, [[0, 0, 15, 12], [30, 30, 42, 40]])
    mixed = CopyPaste(objects=2)(FOUR[0], [other], np.random.default_rng(seed))
    assert len(mixed.boxes) >= 2 and mixed.boxes[:2].tolist() == FOUR[0].boxes.tolist()
    assert colours_in(mixed, mixed.boxes[2:]) == [{200}] * (len(mixed.boxes) - 2)
    assert mixed.proposals is not None
    for box in mixed.boxes:
        assert (mixed.proposals == box).all(axis=1).any()
    full = CopyPaste()(picture(60, [[0, 0, 80, 60]]), [other], np.random.default_rng(seed))
    assert len(full.boxes) == 1  # no place is free


def test_the_loader_takes_other_pictures_and_the_same_ones_again(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, voc_data(write_voc(tmp_path, count=6)), "detection")
    data = build_dataset(config, "train")

    def pipeline(*transforms: object) -> Pipeline:
        return Pipeline(
            data,
            build_proposals(config.proposals),
            Augment(list(transforms), where="augment"),
            InputConfig(),
            0,
        )  # type: ignore[arg-type]

    mixed = pipeline(
        {"Mosaic": {"p": 1}}, {"MixUp": {"p": 1}}, {"CopyPaste": {"p": 1}}, {"HorizontalFlip": {"p": 1}}
    )
    first, again, plain = mixed[2, 1][0], mixed[2, 1][0], pipeline({"HorizontalFlip": {"p": 1}})[2, 1][0]
    np.testing.assert_array_equal(first.image, again.image)
    assert first.proposals is not None and len(first.boxes) > len(plain.boxes)
    assert (mixed[3, 1][0].image != first.image).any()
    np.testing.assert_array_equal(
        pipeline({"Mosaic": {"p": 0}}, {"HorizontalFlip": {"p": 1}})[2, 1][0].image, plain.image
    )
