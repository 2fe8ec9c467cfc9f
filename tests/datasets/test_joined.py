"""Several data sets as one: ids by name, what is labelled, unique image ids."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vistasks.datasets.annotations import NO_OBJECTS, Annotation, AnnotationTable, Dataset, ImageObjects
from vistasks.datasets.joined import JoinedDataset, joined_classes
from vistasks.types import IGNORE_INDEX, ClassNames, Labelled, Sample


class Memory:
    """A data set in memory: one object of each detection class, a mask with one pixel of each class and one
    ignored.
    """

    def __init__(
        self, ids: list[str], detection: tuple[str, ...] = (), segmentation: tuple[str, ...] = ()
    ) -> None:
        self.classes, self.ids = ClassNames(detection, segmentation), ids
        self.paths = [f"/data/{image_id}.png" for image_id in ids]
        self.notes = [f"{len(ids)} read"]
        self.skipped: list[str] = []
        count = len(detection)
        row = ImageObjects(np.tile(np.array([[0, 0, 2, 2]], np.float32), (count, 1)), range(count), [False] * count,
                           [False] * count, None, (4, 40)) if count else NO_OBJECTS  # fmt: skip
        self.table = AnnotationTable([row] * len(ids))
        self.labelled = Labelled(frozenset(range(count)), frozenset(range(len(segmentation))))

    def __len__(self) -> int:
        return len(self.ids)

    def annotation(self, index: int) -> Annotation:
        return self.table.row(index, self.labelled)

    def __getitem__(self, index: int) -> Sample:
        return self.sample(index, np.zeros((4, 40, 3), np.uint8))

    def sample(self, index: int, image: np.ndarray) -> Sample:
        mask = None
        if self.classes.segmentation:
            mask = np.full((4, 40), IGNORE_INDEX, dtype=np.uint8)
            mask[0, : len(self.classes.segmentation)] = np.arange(len(self.classes.segmentation))
        found = self.annotation(index)
        return Sample(
            self.ids[index], self.paths[index], image, boxes=found.boxes, labels=found.labels,
            segmentation=mask, labelled=found.labelled,
        )  # fmt: skip


names = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=5).map(tuple)


@given(st.lists(st.tuples(names, names), min_size=1, max_size=4))
def test_every_id_keeps_its_name(parts: list[tuple[tuple[str, ...], tuple[str, ...]]]) -> None:
    sets = [Memory([f"{number}a", f"{number}b"], *classes) for number, classes in enumerate(parts)]
    joined = JoinedDataset(sets)
    assert joined.classes == joined_classes([s.classes for s in sets])
    assert len(joined) == 2 * len(sets) and isinstance(joined, Dataset)
    for index in range(len(joined)):
        source = sets[index // 2]
        sample, inner, annotation = joined[index], source[index % 2], joined.annotation(index)
        assert [joined.classes.detection[i] for i in sample.labels] == [
            source.classes.detection[i] for i in inner.labels
        ]
        assert np.array_equal(annotation.labels, sample.labels) and annotation.labelled == sample.labelled
        assert {joined.classes.detection[i] for i in sample.labelled.detection} == set(
            source.classes.detection
        )
        assert {joined.classes.segmentation[i] for i in sample.labelled.segmentation} == set(
            source.classes.segmentation
        )
        if inner.segmentation is None:
            assert sample.segmentation is None
        else:
            assert sample.segmentation is not None
            assert np.array_equal(sample.segmentation == IGNORE_INDEX, inner.segmentation == IGNORE_INDEX)
            row = sample.segmentation[0][inner.segmentation[0] != IGNORE_INDEX]
            assert tuple(joined.classes.segmentation[i] for i in row) == source.classes.segmentation


def test_names_keep_the_order_of_their_first_appearance() -> None:
    joined = JoinedDataset([Memory(["a"], ("dog", "cat")), Memory(["b"], ("cow", "dog"), ("sky",))])
    assert joined.classes == ClassNames(("dog", "cat", "cow"), ("sky",))
    assert joined.paths == ["/data/a.png", "/data/b.png"] and joined.notes == ["1 read", "1 read"]


def test_given_classes_are_kept_in_their_order() -> None:
    classes = ClassNames(("cow", "cat", "dog"), ())
    joined = JoinedDataset([Memory(["a"], ("dog", "cat"))], classes)
    assert joined.classes is classes and joined[0].labels.tolist() == [2, 1]


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_a_class_that_the_model_lacks_shows_both_lists(task: str) -> None:
    given = ClassNames(("dog",), ("dog",))
    data = Memory(["a"], ("dog", "cat")) if task == "detection" else Memory(["a"], (), ("dog", "cat"))
    expected = (
        rf"{task}: the data has 1 classes that the model lacks: cat\. The data's: dog, cat; the model's: dog"
    )
    with pytest.raises(ValueError, match=expected):
        JoinedDataset([data], given)
    with pytest.raises(ValueError, match="the model's: none"):
        JoinedDataset([data], ClassNames())


@given(
    st.lists(
        st.lists(st.sampled_from(["a", "b", "0/a", "1/a", "0/0/a"]), unique=True, min_size=1),
        min_size=1,
        max_size=3,
    )
)
def test_image_ids_are_unique(ids: list[list[str]]) -> None:
    joined = JoinedDataset([Memory(part) for part in ids])
    assert len(set(joined.ids)) == len(joined) == sum(map(len, ids))
    assert [joined[index].image_id for index in range(len(joined))] == joined.ids
    flat = [image_id for part in ids for image_id in part]
    if len(set(flat)) == len(flat):
        assert joined.ids == flat


def test_samples_are_checked_again() -> None:
    """What comes out is a Sample, so a reader that went wrong is found, with the file's name."""
    data = Memory(["a"], ("dog",))
    broken = data[0]
    data.__class__ = type("Broken", (Memory,), {"__getitem__": lambda self, index: broken})
    object.__setattr__(broken, "boxes", broken.boxes + 100)
    with pytest.raises(ValueError, match=r"/data/a\.png: boxes\[0\]"):
        JoinedDataset([data])[0]
    assert replace(broken, boxes=broken.boxes - 100).boxes.min() == 0
