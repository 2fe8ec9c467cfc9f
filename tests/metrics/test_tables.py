from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from tests.metrics.scenes import NAMES, random_scenes
from vistasks.metrics import (
    CocoAveragePrecision,
    MeanIoU,
    VocAveragePrecision,
    detection_table,
    report_tables,
    segmentation_table,
)


def text(table: Table) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def row(shown: str, name: str) -> list[str]:
    (line,) = [line for line in shown.splitlines() if line.startswith(f"│ {name}")]
    return [cell.strip() for cell in line.strip("│").split("│")]


def computed(metric: CocoAveragePrecision | VocAveragePrecision | MeanIoU) -> dict:
    for prediction, sample in random_scenes(21):
        metric.update(prediction, sample)
    return metric.compute()


def test_coco_table() -> None:
    result = computed(CocoAveragePrecision(NAMES))
    shown = text(detection_table(result))
    first = result["per_class"]["RBC"]
    assert row(shown, "RBC") == [
        "RBC",
        *(f"{first[key]:.3f}" for key in ("AP", "AP50", "AP75")),
        str(first["objects"]),
    ]
    assert row(shown, "never there") == ["never there", "-", "-", "-", "0"]
    total = sum(values["objects"] for values in result["per_class"].values())
    assert row(shown, "all classes") == [
        "all classes",
        *(f"{result[key]:.3f}" for key in ("AP", "AP50", "AP75")),
        str(total),
    ]
    flat = " ".join(shown.split())
    assert f"AR100={result['AR100']:.3f}" in flat and "COCO box AP by hotcoco" in flat


def test_voc_table() -> None:
    result = computed(VocAveragePrecision(NAMES))
    shown = text(detection_table(result))
    assert row(shown, "all classes")[1] == f"{result['mAP']:.3f}"
    assert "VOC box AP at IoU" in shown


def test_segmentation_table() -> None:
    result = computed(MeanIoU(NAMES))
    shown = text(segmentation_table(result))
    expected = [
        "all classes",
        f"{result['mIoU']:.3f}",
        f"{result['mean_class_accuracy']:.3f}",
        f"{result['pixels']:,}",
    ]
    assert row(shown, "all classes") == expected
    assert f"pixel_accuracy={result['pixel_accuracy']:.3f}" in shown and "one confusion matrix" in shown


@pytest.mark.parametrize("metric", [CocoAveragePrecision(NAMES), VocAveragePrecision(NAMES), MeanIoU(NAMES)])
def test_tables_of_an_empty_data_set(metric: CocoAveragePrecision | VocAveragePrecision | MeanIoU) -> None:
    (table,) = report_tables({"images": 0, "result": metric.compute()})
    assert row(text(table), "all classes")[1] == "-"


def test_report_has_a_table_per_metric() -> None:
    report = {
        "images": 12,
        "coco": computed(CocoAveragePrecision(NAMES)),
        "iou": computed(MeanIoU(NAMES)),
        "headline": {},
    }
    assert [table.title for table in report_tables(report)] == ["coco", "iou"]
