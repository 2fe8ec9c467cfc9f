"""The readers on other people's files, flaws and all."""

from __future__ import annotations

import numpy as np
import pytest

from tests.paths import shared
from vistasks.datasets import load_dataset

VOC_CLASSES = [
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *(
        "diningtable",
        "dog",
        "horse",
        "motorbike",
        "person",
        "pottedplant",
        "sheep",
        "sofa",
        "train",
        "tvmonitor",
    ),
]
CAMVID_CLASSES = [
    *("Sky", "Building", "Pole", "Road", "Pavement", "Tree"),
    *("SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist"),
]


def test_bccd() -> None:
    root = shared("bccd")
    options = {"format": "voc", "root": str(root), "classes": ["RBC", "WBC", "Platelets"]}
    with pytest.raises(
        ValueError, match=r"BloodImage_00343\.xml object 4 'RBC': box \[181, 329, 181, 329\] has zero area"
    ):
        load_dataset({**options, "split": "train"})
    total, notes = np.zeros(3, dtype=int), []
    for split, count in (("train", 205), ("val", 87), ("test", 72)):
        dataset = load_dataset({**options, "split": split, "bad_boxes": "drop"})
        assert len(dataset) == count
        total += sum(np.bincount(dataset.annotation(index).labels, minlength=3) for index in range(count))
        notes += dataset.notes
    assert total.tolist() == [4155 - 2, 372, 361]
    assert len(notes) == 2 and all(note.startswith("1 box dropped: ") for note in notes)
    sample = dataset[0]
    assert sample.image.shape == (480, 640, 3) and len(sample.boxes) == len(dataset.annotation(0).boxes)


def test_voc2012_100() -> None:
    root = shared("voc2012_100")
    options = {"format": "voc", "root": str(root), "classes": VOC_CLASSES, "tasks": ["detect", "segment"]}
    objects = difficult = masks = 0
    for split in ("train", "val"):
        dataset = load_dataset({**options, "split": split})
        assert len(dataset) == 50 and dataset.notes == []
        for index in range(len(dataset)):
            found = dataset.annotation(index)
            objects, difficult = (
                objects + int((~found.difficult).sum()),
                difficult + int(found.difficult.sum()),
            )
            masks += bool(found.labelled.segmentation)
    assert (objects, difficult, masks) == (235, 38, 93)
    for index in range(0, 50, 10):
        sample = dataset[index]
        assert sample.segmentation is not None
        for box, label in zip(sample.boxes.astype(int), sample.labels, strict=True):
            # where a box is, its class is among the pixels: names, ids, order and mask values belong together
            assert (sample.segmentation[box[1] : box[3], box[0] : box[2]] == label + 1).any()


def test_voc2012_animals() -> None:
    root = shared("voc2012_animals")
    options = {"format": "voc", "root": str(root), "classes": VOC_CLASSES, "tasks": ["detect", "segment"]}
    dataset = load_dataset({**options, "split": "val"})
    assert len(dataset) == 280 and all(
        dataset.annotation(index).labelled.segmentation for index in range(280)
    )
    animals = ["bird", "cat", "cow", "dog", "horse", "sheep"]
    marked = {"labelled_classes": animals, "classes": animals, "other_classes": "drop", "tasks": ["detect"]}
    few = load_dataset({**options, **marked, "split": "val"})
    assert (
        few.annotation(0).labelled.detection == set(range(6))
        and "objects of other classes left out" in few.notes[0]
    )


def test_camvid() -> None:
    root = shared("camvid")
    values = {**dict(enumerate(CAMVID_CLASSES)), 11: "ignore"}
    counts = np.zeros(256, dtype=np.int64)
    for split, count in (("train", 367), ("val", 101), ("test", 233)):
        dataset = load_dataset(
            {"format": "mask_folder", "root": str(root), "split": split, "mask_values": values}
        )
        assert len(dataset) == count and dataset.classes.segmentation == tuple(CAMVID_CLASSES)
        for index in range(0, count, 40):
            counts += np.bincount(np.ravel(dataset[index].segmentation), minlength=256)
    assert (counts[:11] > 0).all() and counts[11:255].sum() == 0 and counts[255] > 0
    assert CAMVID_CLASSES[int(counts[:11].argmax())] in ("Road", "Building")


def test_coco_mini() -> None:
    root = shared("coco_mini")
    crowds = 0
    for split, count in (("train", 20), ("val", 24)):
        dataset = load_dataset(
            {"format": "coco", "root": str(root), "split": split, "tasks": ["detect", "segment"]}
        )
        assert (
            len(dataset) == count
            and len(dataset.classes.detection) == 80
            and len(dataset.classes.segmentation) == 81
        )
        for index in range(count):
            found = dataset.annotation(index)
            crowds += int(found.crowd.sum())
            if found.crowd.any():
                assert (np.ravel(dataset[index].segmentation) == 255).any()
        sample = dataset[0]
        assert sample.segmentation is not None and set(sample.labels[~sample.crowd] + 1) & set(
            np.unique(sample.segmentation)
        )
    assert crowds == 5
