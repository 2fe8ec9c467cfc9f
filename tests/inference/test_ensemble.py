"""Several models that answer as one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.evaluation.test_loop import comparable
from tests.tiny_data import COLOURS, config_values, mask_data, scene, voc_data, write_mask_folder, write_voc
from vistasks import load
from vistasks.build import build_dataset
from vistasks.checkpoint import save_checkpoint
from vistasks.cli import main
from vistasks.config import Config, parse_config
from vistasks.evaluation.loop import evaluate
from vistasks.heads.segmentation import SegmentationHead
from vistasks.heads.test_time import parse_views
from vistasks.inference.ensemble import Ensemble, EnsembleModel, load_models
from vistasks.inference.images import infer
from vistasks.inference.loaded import load_model
from vistasks.models.building import build_model
from vistasks.ops.box_fusion import BoxFusion, fuse_detections
from vistasks.types import Batch, ClassNames

JOINT = ("detection", "segmentation")


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_voc(tmp_path_factory.mktemp("voc"), count=3)


def save_model(path: Path, data: dict, *tasks: str, seed: int = 0, **sections: object) -> tuple[Path, Config]:
    """A checkpoint of weights that have learnt nothing, and its config; each seed finds something else."""
    config = parse_config(config_values(path.parent, data, *tasks) | sections)
    torch.manual_seed(seed)
    classes = build_dataset(config, "train").classes
    tensors = {
        f"model.{name}": value for name, value in build_model(config.model, classes).state_dict().items()
    }
    save_checkpoint(path, tensors, config=config, classes=classes, state={})
    return path, config


def test_boxes_are_fused_and_maps_averaged(tmp_path: Path, voc: Path) -> None:
    """Each member sees the picture at its own size."""
    first, _ = save_model(tmp_path / "a.safetensors", voc_data(voc), *JOINT)
    second, _ = save_model(
        tmp_path / "b.safetensors", voc_data(voc), *JOINT, seed=1, input={"min_side": 96, "max_side": 200}
    )
    image = scene(0)[0]
    both = load([first, second], "cpu", score=0.0)
    found = both.predict(image)
    alone = [load(path, "cpu", score=0.0) for path in (first, second)]
    boxes = [one.predict(image).detections for one in alone]
    expected = fuse_detections(boxes, BoxFusion(), limit=100)
    assert len(expected) and np.array_equal(found.detections.boxes, expected.boxes)
    assert np.array_equal(found.detections.scores, expected.scores)
    proposals = [alone[0].backend.propose(image)]
    seen = [
        one.backend.model.opinions(one.backend.make_batch([image], proposals))[0]["segmentation"]
        for one in alone
    ]
    large = [
        torch.nn.functional.interpolate(p, size=(64, 64), mode="bilinear", align_corners=False) for p in seen
    ]
    assert seen[1].shape[2:] == (96, 96)
    assert np.array_equal(found.segmentation.labels, sum(large)[0].argmax(0).numpy())


def test_votes(tmp_path: Path, voc: Path) -> None:
    paths = [
        save_model(tmp_path / f"{seed}.safetensors", voc_data(voc), *JOINT, seed=seed)[0] for seed in range(2)
    ]
    image = scene(0)[0]
    alone = [load(path, "cpu", score=0.0) for path in paths]
    found = load(paths, "cpu", score=0.0, votes=[3, 1]).predict(image)
    expected = fuse_detections(
        [one.predict(image).detections for one in alone], BoxFusion(), limit=100, votes=[3, 1]
    )
    assert np.array_equal(found.detections.scores, expected.scores) and np.array_equal(
        found.detections.boxes, expected.boxes
    )
    proposals = [alone[0].backend.propose(image)]
    seen = [
        one.backend.model.opinions(one.backend.make_batch([image], proposals))[0]["segmentation"]
        for one in alone
    ]
    large = [
        torch.nn.functional.interpolate(p, size=(64, 64), mode="bilinear", align_corners=False) for p in seen
    ]
    assert np.array_equal(found.segmentation.labels, (3 * large[0] + large[1])[0].argmax(0).numpy())


@pytest.mark.parametrize("votes", [[1], [1, 0], [1, -2], [1, float("nan")], [1, float("inf")]])
def test_votes_that_are_none(tmp_path: Path, voc: Path, votes: list[float]) -> None:
    path, _ = save_model(tmp_path / "a.safetensors", voc_data(voc), "detection")
    with pytest.raises(
        ValueError, match="votes: expected a number over 0 for each of the 2 models; received 1"
    ):
        load_models([path, path], "cpu", votes=votes)


def test_a_detector_and_a_segmenter_together_say_what_each_says(tmp_path: Path, voc: Path) -> None:
    detector, _ = save_model(tmp_path / "d.safetensors", voc_data(voc), "detection")
    masks = mask_data(write_mask_folder(tmp_path / "masks", count=2))
    segmenter, _ = save_model(tmp_path / "s.safetensors", masks, "segmentation")
    both = load([detector, segmenter], "cpu", score=0.0)
    assert both.classes.detection == tuple(COLOURS) and both.classes.segmentation == (
        "background",
        "red",
        "blue",
    )
    image = scene(1)[0]
    found, labels = both.predict(image), load(segmenter, "cpu").predict(image)
    boxes = load(detector, "cpu", score=0.0).predict(image)
    assert np.array_equal(found.detections.boxes, boxes.detections.boxes)
    assert np.array_equal(found.segmentation.labels, labels.segmentation.labels)
    both.look(parse_views("flip", window=32))  # windows for the segmenter alone
    assert both.predict(image).detections is not None


def test_one_model_twice_is_that_model(tmp_path: Path, voc: Path) -> None:
    path, config = save_model(tmp_path / "a.safetensors", voc_data(voc), *JOINT)
    one = comparable(evaluate(config, str(path), device="cpu"))
    two = comparable(evaluate(config, [str(path), str(path)], device="cpu"))
    assert two["weights"] == [str(path)] * 2 and two["fusion"]["iou"] == 0.55 and "fusion" not in one
    numbers = {name: value for name, value in one["headline"].items() if value is not None}
    assert numbers and {name: two["headline"][name] for name in numbers} == pytest.approx(numbers, abs=1e-6)
    assert comparable(evaluate(config, [str(path)], device="cpu")) == one


def test_what_each_model_takes_as_proposals(tmp_path: Path, voc: Path) -> None:
    own = config_values(tmp_path, voc_data(voc), "detection")["model"]
    heads = {"detection": {**own["heads"]["detection"], "rpn": {"stride": [8]}}}
    faster = {"model": {**own, "heads": heads}, "proposals": {"method": {"name": "rpn"}}}
    first, _ = save_model(tmp_path / "f.safetensors", voc_data(voc), "detection", **faster)
    second, _ = save_model(tmp_path / "g.safetensors", voc_data(voc), "detection", seed=1)
    image = scene(0)[0]
    both = load_models([first, second], "cpu")
    proposals = both.propose(image)
    assert proposals is not None and len(proposals) > 20  # of the second: the first has its own
    batches = both.make_batch([image], [proposals])
    assert len(batches[0].proposals[0]) == 0 and len(batches[1].proposals[0]) == len(proposals)
    assert len(load_models([first, first], "cpu").propose(image)) == 0


def test_models_of_other_classes_are_refused_by_name(tmp_path: Path, voc: Path) -> None:
    first, _ = save_model(tmp_path / "a.safetensors", voc_data(voc), "detection")
    swapped = voc_data(voc) | {"classes": ["blue", "red"]}
    second, _ = save_model(tmp_path / "b.safetensors", swapped, "detection")
    told = (
        r"a\.safetensors and .*b\.safetensors cannot answer together: the detection classes of the first are red, blue, those of "
        r"the other blue, red; they must be the same, in the same order"
    )
    with pytest.raises(ValueError, match=told):
        load([first, second], "cpu")
    with pytest.raises(ValueError, match="no weights are given"):
        load([], "cpu")
    with pytest.raises(
        ValueError,
        match=r"a\.safetensors: --window",
    ):
        Ensemble([load_model(first, "cpu")] * 2).look(parse_views("", window=64))


def test_the_commands_take_several_weights(
    tmp_path: Path, voc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, config = save_model(tmp_path / "a.safetensors", voc_data(voc), *JOINT)
    second, _ = save_model(tmp_path / "b.safetensors", voc_data(voc), "detection", seed=1)
    path = tmp_path / "config.yaml"
    path.write_text(config.model_dump_json())  # JSON is YAML
    weights = ["--weights", str(first), str(second)]
    report = tmp_path / "report.json"
    assert (
        main(["evaluate", "--config", str(path), "--json", str(report), *weights, "evaluate.batch_size=1"])
        == 0
    )
    shown = capsys.readouterr().out
    assert str(first) in shown and str(second) in shown and "3 images" in shown
    page = ["--report", str(tmp_path / "page")]
    assert (
        main(
            [
                "evaluate",
                "--config",
                str(path),
                "--json",
                str(report),
                *page,
                "--gain",
                "--tta",
                "flip",
                *weights,
            ]
        )
        == 0
    )
    assert "<h2>Gain and cost</h2>" in (tmp_path / "page" / "report.html").read_text()
    shown = capsys.readouterr().out
    assert "gain and cost" in shown and "all 2, --tta flip" in shown
    rows = json.loads(report.read_text())["gain"]
    assert [row["name"] for row in rows] == [str(first), str(second), "all 2, --tta flip"]
    assert rows[1]["numbers"].keys() < rows[0]["numbers"].keys() and all(row["seconds"] > 0 for row in rows)
    assert rows[0]["numbers"] == evaluate(config, str(first), device="cpu")["headline"]
    assert main(["evaluate", "--config", str(path), "--gain", "--weights", str(first)]) == 1
    assert "--gain: " in capsys.readouterr().err
    assert main(["evaluate", "--config", str(path), "--votes", "3,x", *weights]) == 1
    assert "--votes" in capsys.readouterr().err
    assert main(["evaluate", "--config", str(path), "--gain", "--votes", "3,1", *weights]) == 0
    assert "all 2, --votes 3,1" in capsys.readouterr().out
    summary = infer(
        load([first, second], "cpu", score=0.1), voc / "JPEGImages", tmp_path / "out", progress=False
    )
    assert summary.pictures == 3 and summary.detections
    picture = str(voc / "JPEGImages" / "scene_0.png")
    arguments = [
        "--source",
        picture,
        "--output",
        str(tmp_path / "o"),
        "--fusion-score",
        "max",
        "--tta",
        "flip",
    ]
    assert main(["infer", *weights, *arguments]) == 0
    assert (tmp_path / "o" / "scene_0.jpg").is_file()


class SureHead:
    classes = ("a", "b")
    averaged = SegmentationHead.averaged
    elected = SegmentationHead.elected


class Sure(torch.nn.Module):
    """A segmenter that gives both classes the same probabilities at every pixel."""

    def __init__(self, first: float) -> None:
        super().__init__()
        self.heads = {"segmentation": SureHead()}
        self.first = first

    def opinions(self, batch: list[Batch], *, decided: Sequence[str]) -> list[dict[str, torch.Tensor]]:
        said = torch.tensor([self.first, 1 - self.first]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
        return [{"segmentation": said}]


def test_votes_decide_a_class_map() -> None:
    members = [SimpleNamespace(model=Sure(first)) for first in (0.6, 0.3)]
    for votes, expected in (([1, 1], 1), ([3, 1], 0), ([1, 3], 1)):  # .9 against 1.1, 2.1 against 1.9, ...
        both = EnsembleModel(members, ClassNames((), ("a", "b")), BoxFusion(), votes)
        (prediction,) = both.predict([SimpleNamespace(original_sizes=((4, 4),))] * 2)
        assert (prediction.segmentation.labels == expected).all()
