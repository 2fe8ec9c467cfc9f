"""Predict, update, compute: counts, protocols, and the model as it was before."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny_data import config_values, mask_data, tiny_config, voc_data, write_mask_folder, write_voc
from vistasks.build import build_dataset, build_pipeline
from vistasks.checkpoint import save_checkpoint
from vistasks.config import Config, parse_config
from vistasks.evaluation.loop import build_metrics, evaluate, evaluate_model, headline
from vistasks.heads.test_time import parse_views
from vistasks.inference.ensemble import load_models
from vistasks.inference.loaded import load_model
from vistasks.models import MultiTaskModel
from vistasks.models.building import build_model
from vistasks.task import task_of
from vistasks.types import ClassNames, Detections, Prediction, SegmentationMap

JOINT = ("detection", "segmentation")


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_voc(tmp_path_factory.mktemp("voc"), count=5, empty=(2,))


def save_random(folder: Path, config: Config) -> Path:
    """A checkpoint of weights that have learnt nothing."""
    folder.mkdir(exist_ok=True)
    classes = build_dataset(config, "train").classes
    torch.manual_seed(1)
    tensors = {
        f"model.{name}": value for name, value in build_model(config.model, classes).state_dict().items()
    }
    path = folder / "best.safetensors"
    save_checkpoint(path, tensors, config=config, classes=classes, state={})
    return path


def comparable(report: dict) -> dict:
    return {
        key: value
        for key, value in json.loads(json.dumps(report)).items()
        if key != "model_seconds_per_image"
    }


def test_a_report_counts_every_picture_once_whatever_the_batches(tmp_path: Path, voc: Path) -> None:
    config = tiny_config(tmp_path, voc_data(voc), *JOINT)
    path = save_random(tmp_path, config)
    reports = []
    for size in (1, 2, 5):
        sized = config.model_copy(
            update={"evaluate": config.evaluate.model_copy(update={"batch_size": size})}
        )
        reports.append(comparable(evaluate(sized, str(path), device="cpu")))
    assert reports[0]["images"] == 5 and reports[0]["weights"] == str(path)
    assert reports[0]["data"]["split"] == "val"
    assert sum(row["pixels"] for row in reports[0]["iou"]["per_class"].values()) == 5 * 64 * 64
    numbers = [{name: value or 0.0 for name, value in report["headline"].items()} for report in reports]
    for other in numbers[1:]:  # all pictures have one size, so that nothing but rounding may differ
        assert numbers[0] == pytest.approx(other, abs=1e-6)


def test_the_scale_that_is_predicted_at(tmp_path: Path, voc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the training's config, or from the evaluation's where that has one; training itself stays as it
    was.
    """
    plain = tiny_config(tmp_path, voc_data(voc), *JOINT)
    larger = plain.model_copy(update={"input": plain.input.model_copy(update={"predict_scale": 1.5})})
    path = save_random(tmp_path, plain)
    trained_so = save_random(tmp_path / "larger", larger)
    seen: list[tuple[int, int]] = []
    predict = MultiTaskModel.predict
    monkeypatch.setattr(
        MultiTaskModel, "predict", lambda self, batch: [seen.extend(batch.sizes), predict(self, batch)][1]
    )
    for config, weights, side in ((plain, path, 64), (larger, path, 96), (plain, trained_so, 96)):
        evaluate(config, str(weights), device="cpu")
        assert set(seen) == {(side, side)}
        seen.clear()
    data = build_dataset(larger, "train")
    assert build_pipeline(larger, data, training=True)[0, 0][0].size == (64, 64)
    assert build_pipeline(larger, data, training=False)[0, 0][0].size == (96, 96)
    picture, none = [data[0].image], [np.zeros((0, 4), np.float32)]
    assert load_model(trained_so, "cpu").make_batch(picture, none).sizes == ((96, 96),)
    both = load_models([path, trained_so], "cpu")
    assert [batch.sizes for batch in both.make_batch(picture, none)] == [((64, 64),), ((96, 96),)]
    both.predict_at(1.5)
    assert [batch.sizes for batch in both.make_batch(picture, none)] == [((96, 96),)] * 2


def test_averaging_over_views_is_in_the_report(tmp_path: Path) -> None:
    data = write_mask_folder(tmp_path / "data", count=2)
    config = tiny_config(tmp_path, mask_data(data), "segmentation")
    path = save_random(tmp_path, config)
    report = evaluate(config, str(path), device="cpu", test_time=parse_views("flip,1.5", window=64))
    fusion = {"iou": 0.55, "score": "mean", "agreement": "sources"}
    assert report["test_time"] == {
        "scales": (1.5,),
        "flip": True,
        "window": 64,
        "overlap": 0.25,
        "fusion": fusion,
    }
    assert 0 <= report["headline"]["mIoU"] <= 1
    assert "test_time" not in evaluate(config, str(path), device="cpu")


def test_a_detector_is_averaged_over_views_but_not_over_windows(tmp_path: Path, voc: Path) -> None:
    config = tiny_config(tmp_path, voc_data(voc), "detection")
    path = save_random(tmp_path, config)
    assert evaluate(config, str(path), device="cpu", test_time=parse_views("flip"))["test_time"]["flip"]
    with pytest.raises(
        ValueError,
        match=r"best\.safetensors: --window",
    ):
        evaluate(config, str(path), device="cpu", test_time=parse_views("flip", window=64))


def test_the_config_says_how_to_decode(tmp_path: Path, voc: Path) -> None:
    path = save_random(tmp_path, tiny_config(tmp_path, voc_data(voc), "detection"))
    values = config_values(tmp_path, voc_data(voc), "detection")
    head = values["model"]["heads"]["detection"]
    found = []
    for decoding in ({"score": 0.0}, {"score": 1.0}):
        values["model"]["heads"]["detection"] = {**head, "decoding": decoding}
        found.append(evaluate(parse_config(values), str(path), device="cpu")["coco"]["AR100"])
    assert found[0] > found[1] == 0
    values["model"]["heads"]["detection"] = {**head, "decoding": {"scroe": 1.0}}
    with pytest.raises(
        ValueError, match=r"model\.heads\.detection\.decoding\.scroe: unknown option\. Did you mean 'score'\?"
    ):
        evaluate(parse_config(values), str(path), device="cpu")


def test_both_engines_agree(tmp_path: Path, voc: Path) -> None:
    config = tiny_config(tmp_path, voc_data(voc), "detection")
    path = save_random(tmp_path, config)
    found = {}
    for engine in ("hotcoco", "pycocotools"):
        chosen = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"engine": engine})})
        found[engine] = evaluate(chosen, str(path), device="cpu")["coco"]
    for name, value in found["hotcoco"].items():
        if isinstance(value, float):
            assert value == pytest.approx(found["pycocotools"][name], abs=1e-9), name


def test_every_headline_number_names_a_number_of_its_metric() -> None:
    metrics = build_metrics(ClassNames(("a",), ("x",)), JOINT, "hotcoco")
    report = {key: metric.compute() for key, metric in metrics.items()}
    assert list(headline(report)) == [*task_of("detection").headline, *task_of("segmentation").headline]
    assert all("protocol" in value for value in report.values())
    assert list(headline({"iou": report["iou"]})) == list(task_of("segmentation").headline)
    assert set(build_metrics(ClassNames(("a",), ()), ["detection"], "hotcoco")) == {
        "coco",
        "voc_2007",
        "voc_area",
    }


def test_a_model_that_knows_everything_scores_one(
    voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop hands each prediction to the metrics with its own sample, in original pixels."""
    data = build_dataset(tiny_config(tmp_path, voc_data(voc), *JOINT), "val")

    class Oracle(torch.nn.Module):
        def predict(self, batch: list[int]) -> list[Prediction]:
            assert not self.training
            answers = []
            for index in batch:
                sample = data[index]
                scores = np.ones(len(sample.labels), dtype=np.float32)
                assert sample.segmentation is not None
                answers.append(
                    Prediction(
                        Detections(sample.boxes, scores, sample.labels, data.classes.detection),
                        SegmentationMap(sample.segmentation, data.classes.segmentation),
                    )
                )
            return answers

    oracle = Oracle().train()
    metrics = build_metrics(data.classes, JOINT, "hotcoco")
    batches = [([0, 1, 2], [data[0], data[1], data[2]]), ([3, 4], [data[3], data[4]])]
    monkeypatch.setattr("vistasks.evaluation.loop.to_device", lambda batch, device: batch)
    counts = evaluate_model(oracle, batches, metrics, torch.device("cpu"))  # type: ignore[arg-type]
    assert counts["images"] == 5 and oracle.training  # put back as it was
    numbers = headline({key: metric.compute() for key, metric in metrics.items()})
    assert numbers == pytest.approx(dict.fromkeys(numbers, 1.0))


def test_data_with_a_class_that_the_weights_do_not_know(tmp_path: Path, voc: Path) -> None:
    config = tiny_config(tmp_path, voc_data(voc), "detection")
    path = save_random(tmp_path, config)
    other = tiny_config(tmp_path, voc_data(voc) | {"classes": ["red", "blue", "green"]}, "detection")
    with pytest.raises(
        ValueError, match=r"detection: .* lacks: green\. The data's: red, blue, green; the model's: red, blue"
    ):
        evaluate(other, str(path), device="cpu")


def test_the_weights_decide_the_tasks(tmp_path: Path, voc: Path) -> None:
    path = save_random(tmp_path, tiny_config(tmp_path, voc_data(voc), "segmentation"))
    report = evaluate(tiny_config(tmp_path, voc_data(voc), *JOINT), str(path), device="cpu")
    assert "iou" in report and "coco" not in report


def test_a_mask_folder_is_evaluated_too(tmp_path: Path) -> None:
    root = write_mask_folder(tmp_path / "m", count=2)
    config = tiny_config(tmp_path, mask_data(root), "segmentation")
    report = evaluate(config, str(save_random(tmp_path, config)), device="cpu")
    assert json.loads(json.dumps(report))["data"]["mask_values"]["0"] == "background"
    assert 0 <= report["headline"]["pixel_accuracy"] <= 1
