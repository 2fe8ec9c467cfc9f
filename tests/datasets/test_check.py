"""`check`: all faults in one pass, and the right counts."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from tests.paths import shared
from vistasks.datasets import load_dataset
from vistasks.datasets.check import CheckReport, check, failed
from vistasks.datasets.problems import DataFaults
from vistasks.types import ClassNames, Labelled, Sample

CLASSES = ClassNames(("cat", "dog", "owl"), ("background", "cat"))


def sample_of(name: str, boxes: list[list[float]], labels: list[int], **changes: object) -> Sample:
    values = {
        "image": np.zeros((100, 200, 3), np.uint8),
        "boxes": np.array(boxes, dtype=np.float32).reshape(-1, 4),
        "labels": np.array(labels, dtype=np.int64),
        "labelled": Labelled(frozenset({0, 1, 2}), frozenset({0, 1})),
        **changes,
    }
    return Sample(image_id=name, path=f"{name}.jpg", **values)  # type: ignore[arg-type]


class Samples:
    """A data set of ready samples; an exception in the list is raised on reading."""

    def __init__(self, *items: Sample | Exception) -> None:
        self.items, self.classes = items, CLASSES
        self.ids = [str(index) for index in range(len(items))]
        self.paths = [
            item.path if isinstance(item, Sample) else f"bad{i}.jpg" for i, item in enumerate(items)
        ]
        self.notes = ["2 boxes dropped"]
        self.skipped: list[str] = []

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Sample:
        item = self.items[index]
        if isinstance(item, Exception):
            raise item
        return item


def printed(report: CheckReport) -> str:
    text = io.StringIO()
    report.show(Console(file=text, width=200))
    return text.getvalue()


def test_counts() -> None:
    mask = np.zeros((100, 200), np.uint8)
    mask[:50], mask[90:] = 1, 255
    report = check(
        Samples(
            sample_of(
                "a",
                [[0, 0, 10, 10], [0, 0, 50, 50]],
                [0, 1],
                difficult=np.array([True, False]),
                segmentation=mask,
            ),
            sample_of("b", [[0, 0, 200, 100]], [1], crowd=np.array([True])),
            sample_of("empty", [], []),
            sample_of("unlabelled", [], [], labelled=Labelled(), image=np.zeros((300, 60, 3), np.uint8)),
        ),
        progress=False,
    )
    assert report.good and report.notes == ["2 boxes dropped"]
    assert report.labels["detection"] == {"cat": 1, "dog": 2, "owl": 0}
    assert report.labels["segmentation"] == {"background": 40 * 200, "cat": 50 * 200}
    assert report.counts == {
        "images": 4,
        "read": 4,
        "without_objects": 1,
        "not_labelled": 1,
        "objects": 3,
        "difficult": 1,
        "crowd": 1,
        "small": 1,
        "medium": 1,
        "large": 1,
        "pixels": 200 * 100,
        "ignored_pixels": 10 * 200,
    }
    assert report.warnings == ["no object of the class 'owl'"]
    text = printed(report)
    for expected in (
        "good",
        "60 to 200 px, median 200",
        "3, 1 difficult, 1 crowds",
        "10.0 %",
        "66.7",
        "55.6",
        "2 boxes dropped",
    ):
        assert expected in text


def test_every_bad_file_is_named_and_the_rest_still_read() -> None:
    report = check(
        Samples(
            ValueError("bad0.jpg: cut short"),
            sample_of("good", [[0, 0, 10, 10]], [0]),
            OSError("cannot identify image"),
            KeyError("a bug of the reader"),
        ),
        progress=False,
    )
    assert not report.good
    expected = [
        "bad0.jpg: cut short",
        "bad2.jpg: cannot identify image",
        "bad3.jpg: KeyError: 'a bug of the reader'",
    ]
    assert report.problems == expected
    assert report.counts["read"] == 1 and report.labels["detection"]["cat"] == 1
    text = printed(report)
    assert (
        "3 problems" in text
        and "4, 3 unreadable" in text
        and all(problem in text for problem in report.problems)
    )


def test_ids_without_a_name() -> None:
    mask = np.full((100, 200), 9, np.uint8)
    report = check(Samples(sample_of("a", [[0, 0, 9, 9]], [7], segmentation=mask)), progress=False)
    assert report.problems == [
        "a.jpg: class id 7 in detection, which has only 3 classes",
        "a.jpg: class id 9 in segmentation, which has only 2 classes",
    ]


def test_duplicate_objects_are_worth_a_look() -> None:
    boxes = [[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10]]
    report = check(Samples(sample_of("a", boxes, [1, 1, 0])), progress=False)
    assert report.good
    assert "a.jpg: dog at [0.0, 0.0, 10.0, 10.0] stands 2 times" in report.warnings


def test_a_set_that_cannot_be_opened() -> None:
    faults = [f"{number}.xml: bad" for number in range(50)]
    report = failed(DataFaults("50 problems", faults), name="train")
    assert report.problems == faults and not report.good
    assert all(
        fault in printed(report) for fault in faults
    )  # the exception's own text has the first ones only
    assert failed(ValueError("no such folder")).problems == ["no such folder"]
    text = printed(failed(ValueError("no such [folder]")))
    assert "1 problem\n" in text and "no such [folder]" in text


def test_a_folder_with_broken_files(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name in ("good", "cut", "value"):
        cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), np.full((20, 30, 3), 90, np.uint8))
        cv2.imwrite(
            str(tmp_path / "masks" / f"{name}.png"), np.full((20, 30), 7 if name == "value" else 1, np.uint8)
        )
    cut = tmp_path / "images" / "cut.png"
    cut.write_bytes(cut.read_bytes()[:60])
    folders = {"root": str(tmp_path), "images": "images", "masks": "masks"}
    dataset = load_dataset({"format": "mask_folder", **folders, "mask_values": {0: "sky", 1: "road"}})
    report = check(dataset, progress=False)
    assert len(report.problems) == 2 and report.counts["read"] == 1
    assert "cut.png" in report.problems[0] and "value.png" in report.problems[1] and "7" in report.problems[1]


def test_real_blood_cells(capsys: pytest.CaptureFixture[str]) -> None:
    root = shared("bccd")
    dataset = load_dataset(
        {"format": "voc", "root": str(root), "split": "test", "classes": ["RBC", "WBC", "Platelets"]}
    )
    report = check(dataset)
    assert report.good and report.counts["images"] == 72
    assert sum(report.labels["detection"].values()) == report.counts["objects"] == 945
    assert "reading data" not in capsys.readouterr().out  # the bar goes to stderr
