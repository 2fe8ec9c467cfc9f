"""From a config and weights to a list and a page; which models can be asked what; and faults that were
planted.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO

from tests.tiny_data import (
    CLASSES,
    config_values,
    mask_data,
    scene,
    tiny_config,
    voc_data,
    write_mask_folder,
    write_voc,
)
from vistasks.benchmarks import audit as planted_faults
from vistasks.build import build_dataset
from vistasks.checkpoint import save_checkpoint
from vistasks.cli import main
from vistasks.config import Config, parse_config
from vistasks.evaluation.audit import audit
from vistasks.evaluation.audit.areas import map_evidence
from vistasks.evaluation.audit.evidence import AuditModel
from vistasks.evaluation.audit.findings import FAULTS, MISSING, SPURIOUS, WRONG, Finding, judge_all
from vistasks.evaluation.audit.places import DETECTED, LABELLED, PictureEvidence, Places, vocabulary
from vistasks.loading.batching import collate
from vistasks.models.building import build_model
from vistasks.types import ClassNames, Detections, Labelled, Sample

JOINT = ("detection", "segmentation")


def _save_random(folder: Path, config: Config) -> Path:
    """Weights that have learnt nothing, so that much is suspicious."""
    classes = build_dataset(config, "train").classes
    torch.manual_seed(1)
    tensors = {
        f"model.{name}": value for name, value in build_model(config.model, classes).state_dict().items()
    }
    save_checkpoint(folder / "best.safetensors", tensors, config=config, classes=classes, state={})
    return folder / "best.safetensors"


@pytest.mark.parametrize("tasks", [JOINT, ("detection",), ("segmentation",)])
def test_a_list_and_a_page(
    tasks: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "detection" in tasks:
        data = voc_data(write_voc(tmp_path / "data", count=3, empty=(2,)))
    else:
        data = mask_data(write_mask_folder(tmp_path / "data", count=3))
    config = tiny_config(tmp_path, data, *tasks)
    output = tmp_path / "out"
    found = audit(config, str(_save_random(tmp_path, config)), output, split="val", top=4, device="cpu")
    written = COCO(str(output / "audit.json"))
    content = json.loads((output / "audit.json").read_text())
    assert found.pictures == 3 == len(content["images"]) and sorted(i["rank"] for i in content["images"]) == [
        1,
        2,
        3,
    ]
    assert {c["name"] for c in content["categories"]} == set(CLASSES)
    assert all((tmp_path / "data" / image["file_name"]).is_file() for image in content["images"])
    entries = [*found.judgement.faults, *found.judgement.disagreements]
    assert found.judgement.faults and len(written.anns) == len(entries)
    for annotation, entry in zip(content["annotations"], entries):
        image = written.imgs[annotation["image_id"]]
        x, y, width, height = annotation["bbox"]
        assert (
            x >= 0 and y >= 0 and x + width <= image["width"] + 0.01 and y + height <= image["height"] + 0.01
        )
        assert (
            annotation["reason"].startswith(f"{entry.kind}: ") and annotation["category_id"] in written.cats
        )
        assert 0.5 <= annotation["score"] <= 1 or entry.kind not in FAULTS
    page = (output / "audit.html").read_text()
    shown = min(4, len(found.judgement.faults)) + min(1, len(found.judgement.disagreements))
    assert page.count("data:image/jpeg;base64,") == shown
    assert not re.search("https?:", page)
    assert any("No segmentation map" in note for note in found.notes) == (tasks == ("detection",))
    assert any("No detector" in note for note in found.notes) == (tasks == ("segmentation",))
    assert capsys.readouterr().err == ""


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    values = config_values(tmp_path / "run", voc_data(write_voc(tmp_path / "data", count=2)), *JOINT)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(values))
    weights = _save_random(tmp_path, parse_config(values))
    paths = [
        "--config",
        str(tmp_path / "c.yaml"),
        "--weights",
        str(weights),
        "--output",
        str(tmp_path / "out"),
    ]
    given = ["audit", *paths, "--device", "cpu"]
    assert main(given) == 0
    text = capsys.readouterr().out
    assert (
        "  1. " in text
        and "images most worth annotating next" in text
        and "data.folds={count: 5, fold: 0}" in text
    )
    assert main([*given, "data.val={}", "--split", "val"]) == 1
    assert "--split val: data.val is empty" in capsys.readouterr().err
    assert main([*given, "--top", "-1"]) == 1
    assert "--top and --print must be 0 or more" in capsys.readouterr().err


def _sample(boxes: list[list[float]], labels: list[int], **more: object) -> Sample:
    return Sample(
        "0", "0.png", scene(0)[0], np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64),
        labelled=Labelled(frozenset({0, 1}), frozenset({0, 1, 2})), **more,  # type: ignore[arg-type]
    )  # fmt: skip


def _asked(sample: Sample, found: list[tuple[list[float], float, int]], tmp_path: Path) -> Places:
    """The places of a picture whose detections are given."""
    config = tiny_config(tmp_path, voc_data(tmp_path), *JOINT)
    classes = ClassNames(CLASSES, ("background", *CLASSES))
    torch.manual_seed(0)
    model = build_model(config.model, classes).eval()
    witness = AuditModel(model, vocabulary(classes, JOINT))
    boxes = np.array([box for box, _, _ in found], np.float32).reshape(-1, 4)
    scores, labels = (
        np.array([s for _, s, _ in found], np.float32),
        np.array([k for _, _, k in found], np.int64),
    )
    assert witness.detector is not None
    witness.detector.predict = lambda *_: [Detections(boxes, scores, labels, CLASSES)]  # type: ignore[method-assign]
    (evidence,) = witness(
        collate([sample], [sample.size], classes=classes, divisor=model.divisor), [sample], [7]
    )
    assert evidence.index == 7 and evidence.boxes is not None and evidence.areas is None
    return evidence.boxes


def test_where_a_label_could_be_missing(tmp_path: Path) -> None:
    """Not on a label, not within one of its class, not in a crowd, and not where a label of the class should
    rather be.
    """
    crowd = np.array([False, True, False])
    sample = _sample([[0, 0, 30, 30], [40, 0, 60, 20], [0, 40, 20, 60]], [0, 1, 1], crowd=crowd)
    found = [
        ([1, 1, 30, 30], 0.9, 0),
        ([5, 5, 15, 15], 0.9, 0),
        ([5, 5, 15, 15], 0.9, 1),
        ([42, 2, 58, 18], 0.9, 0),
        ([12, 40, 32, 60], 0.9, 1),
        ([12, 40, 32, 60], 0.9, 0),
        ([40, 40, 60, 60], 0.1, 0),
    ]
    places = _asked(sample, found, tmp_path)
    detected = places.source == DETECTED
    assert detected.sum() == 6  # the last is too unsure to be looked at
    assert places.judged[detected].tolist() == [False, False, True, False, False, True]
    labelled = places.source == LABELLED
    assert places.judged[labelled].tolist() == [True, False, True]
    assert places.given[labelled].tolist() == [0, 1, 1] and (places.given[~labelled] == 2).all()
    assert places.placed[0] >= 29 * 29 / 900 and places.moved[0].tolist() == [1, 1, 30, 30]
    assert np.isfinite(places.scores).all() and np.allclose(places.scores.sum(axis=1), 1, atol=1e-5)


def test_what_the_labelled_mask_has_in_a_box(tmp_path: Path) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[0:10, 0:20], mask[10:20, 0:20] = 1, 255
    places = _asked(_sample([[0, 0, 20, 20], [20, 20, 40, 40]], [0, 1], segmentation=mask), [], tmp_path)
    assert places.marked[:2].tolist() == [[1, 0], [0, 0]] and np.isfinite(places.seen).all()


def test_areas_of_a_class_map() -> None:
    """One area that the mask lacks, one of another class, one that the map does not see."""
    classes = ClassNames((), ("background", *CLASSES))
    truth, maps = np.zeros((64, 64), np.uint8), np.full((3, 64, 64), 0.02, np.float32)
    maps[0] = 0.96
    right = [(slice(0, 16), slice(16 * k, 16 * k + 12), 1 + k % 2) for k in range(4)]
    for rows, columns, label in right:
        truth[rows, columns] = label
    truth[20:36, 0:16], truth[20:36, 20:36] = 1, 2
    for rows, columns, label in [*right, (slice(20, 36), slice(0, 16), 2), (slice(40, 60), slice(30, 50), 1)]:
        maps[:, rows, columns], maps[label, rows, columns] = 0.02, 0.96
    sample = Sample(
        "0", "0.png", np.zeros((128, 128, 3), np.uint8), labelled=Labelled(frozenset(), frozenset({0, 1, 2}))
    )
    words = vocabulary(classes, ("segmentation",))
    areas, unsure = map_evidence(maps, truth, sample, words)
    assert areas is not None and unsure == pytest.approx(6 * 4 * 0.96 * 0.04, rel=1e-4)
    found = judge_all(
        [PictureEvidence(0, "0.png", (128, 128), None, areas, (0.0, 0), True, unsure)], (), words.areas
    ).faults
    assert {(entry.kind, entry.given, entry.suggested, *entry.box.astype(int)) for entry in found} == {
        (WRONG, "red", "blue", 0, 40, 32, 72),
        (SPURIOUS, "blue", "", 40, 40, 72, 72),
        (MISSING, "", "red", 60, 80, 100, 120),
    }
    assert next(e for e in found if e.kind == WRONG).reason.startswith(
        "labelled red; the segmentation map says blue (0.96; usually"
    )
    assert map_evidence(maps, None, sample, words)[0] is None


def test_planted_faults_are_in_boxes_and_masks_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planted_faults, "SPLITS", {"train": 4, "test": 1})
    planted = planted_faults.plant(tmp_path / "damaged", data_seed=8, removed=2, changed=3, seed=0)
    assert [bool(fault.given) for fault in planted] == [False, False, True, True, True]
    assert all(fault.given != fault.name for fault in planted)
    assert planted == planted_faults.plant(tmp_path / "again", data_seed=8, removed=2, changed=3, seed=0)
    options = {
        "format": "voc",
        "split": "train",
        "classes": list(planted_faults.CLASSES),
        "tasks": ["detect", "segment"],
    }
    from vistasks.datasets import load_dataset

    data = load_dataset({**options, "root": str(tmp_path / "damaged" / "voc")})
    samples = {sample.image_id: sample for sample in data}  # type: ignore[attr-defined] # Dataset has __len__ and __getitem__
    for fault in planted:
        sample = samples[fault.picture]
        same = (sample.boxes == np.array(fault.box)).all(axis=1)
        x1, y1, x2, y2 = fault.box
        inside = set(np.unique(sample.segmentation[y1:y2, x1:x2]))  # type: ignore[index]
        assert same.any() == bool(fault.given)
        if fault.given:
            label = planted_faults.CLASSES.index(fault.given)
            assert sample.labels[same].tolist() == [label] and label + 1 in inside
    with pytest.raises(
        ValueError, match=r"--removed and --changed: from 1 to \d+ labels together; received 900 and 0"
    ):
        planted_faults.plant(tmp_path / "again", data_seed=8, removed=900, changed=0, seed=0)


def test_precision_and_recall_of_the_top() -> None:
    planted = [
        planted_faults.Planted("a", (0, 0, 10, 10), "star", ""),
        planted_faults.Planted("a", (50, 0, 60, 10), "star", "ring"),
        planted_faults.Planted("b", (0, 0, 10, 10), "ring", ""),
    ]

    def entry(picture: str, x: float, suggested: str, kind: str = MISSING) -> Finding:
        return Finding(
            kind,
            0,
            f"x/{picture}.jpg",
            np.array([x, 0, x + 10, 10], np.float32),
            "",
            suggested,
            0.9,
            True,
            "",
        )

    faults = [entry("a", 1, "star"), entry("a", 2, "star"), entry("a", 50, "cross", WRONG)]
    faults += [entry("b", 30, "ring"), entry("b", 0, "ring")]
    found = planted_faults.score(faults, planted, top=4)
    assert (found["precision"], found["recall"]) == (0.5, pytest.approx(2 / 3))
    assert found["removed_found"] == found["changed_found"] == found["true_class_suggested"] == 1
    assert found["false_entries"] == {MISSING: 2} and found["found_as"] == {MISSING: 1, WRONG: 1}
    assert planted_faults.score([], planted, top=4)["precision"] == 0
