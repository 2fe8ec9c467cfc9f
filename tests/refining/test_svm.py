"""R-CNN's machines: the fit against scikit-learn's, what is an example, and the command on a checkpoint with
random weights.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tests.models.test_trained_proposals import saved
from tests.tiny_data import config_values, voc_data, write_voc
from vistasks.checkpoint import read_checkpoint
from vistasks.cli import main
from vistasks.config import Config, parse_config
from vistasks.inference.loaded import load_model
from vistasks.refining import svm
from vistasks.types import Batch


def clouds(positives: int, negatives: int, width: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return (
        torch.randn(positives, width, generator=draw) + 0.8,
        torch.randn(negatives, width, generator=draw) - 0.3,
    )


@pytest.mark.parametrize("cost", [1e-3, 0.1])
def test_the_fit_is_that_of_scikit_learn(cost: float) -> None:
    linear = pytest.importorskip("sklearn.svm")
    positive, negative = clouds(60, 500)
    x, y = torch.cat([positive, negative]).numpy(), np.repeat([1, 0], [60, 500])
    referee = linear.LinearSVC(
        C=cost,
        class_weight={1: svm.POSITIVE_WEIGHT},
        intercept_scaling=svm.BIAS_SCALE,
        dual=False,
        tol=1e-8,
        max_iter=10000,
    ).fit(x, y)
    weight, bias = svm.fit(positive, negative, cost)
    assert weight.tolist() == pytest.approx(referee.coef_[0].tolist(), abs=1e-4)
    assert bias == pytest.approx(referee.intercept_[0], abs=1e-4)


def test_mining_finds_what_all_examples_together_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svm, "NEW", 150)
    positive, negative = clouds(60, 3000)
    whole, bias = svm.fit(positive, negative, 0.01)
    machine = svm.LinearSvm(0.01)
    for near, far in zip(positive.chunk(20), negative.chunk(20)):
        machine.add(near, far)
    machine.refit()
    assert machine.weight is not None and machine.seen == 3000 and machine.examples[1] < 1500
    margins = torch.cat([positive, negative])
    assert (machine.margins(margins) - (margins @ whole + bias)).abs().max() < 0.15


def batch(**changes: object) -> Batch:
    box = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10]])
    plain = Batch(
        images=torch.zeros(1, 3, 32, 32, dtype=torch.uint8),
        sizes=((32, 32),),
        original_sizes=((32, 32),),
        boxes=(box,),
        labels=(torch.tensor([0, 1]),),
        ignored=(torch.tensor([[0.0, 20, 10, 30]]),),
        proposals=(torch.zeros(0, 4),),
        segmentation=None,
        detection_labelled=torch.tensor([[True, True]]),
        segmentation_labelled=torch.zeros(1, 0, dtype=torch.bool),
        image_ids=("a",),
        paths=("a.png",),
    )
    return replace(plain, **changes)


def test_what_is_an_example_of_which_class() -> None:
    proposals = torch.tensor(
        [[0.0, 0, 10, 5], [5, 0, 15, 10], [8, 0, 18, 10], [0, 20, 10, 30]]
    )  # IoU .5, .33, .11
    found = svm.examples(batch(), 0, proposals)
    assert found.regions.shape == (6, 4)
    assert found.sides.T.tolist() == [
        [1, -1, 0, 0, -1, 0],
        [-1, 1, -1, -1, -1, 0],
    ]  # the last one is in an ignored area
    found = svm.examples(batch(detection_labelled=torch.tensor([[False, True]])), 0, proposals)
    assert found.sides.T.tolist()[0] == [0] * 6
    nothing = batch(boxes=(torch.zeros(0, 4),), labels=(torch.zeros(0, dtype=torch.int64),))
    assert svm.examples(nothing, 0, proposals).sides.tolist() == [[-1, -1]] * 3 + [[0, 0]]


def prepared(folder: Path, **head: object) -> tuple[Config, Path, Path]:
    """A config on a small data set, its file, and weights of its model."""
    run = saved(folder / "run", "detection", **head)
    values = config_values(folder, voc_data(write_voc(folder / "data")), "detection")
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    return parse_config(values), folder / "config.yaml", run


def test_the_machines_stand_in_the_classifiers_place(tmp_path: Path) -> None:
    config, _, run = prepared(tmp_path)
    done = svm.train_svms(config, str(run), tmp_path / "out", cost=1.0)
    assert [(row["class"], row["objects"]) for row in done["classes"]] == [("red", 6), ("blue", 6)]
    before, after = read_checkpoint(run).part("model"), read_checkpoint(tmp_path / "out").part("model")
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert [name.split("classify.")[1] for name in changed] == ["bias", "weight"]
    loaded = load_model(tmp_path / "out", "cpu")
    head, machines, scale = (
        loaded.model.heads["detection"],
        *svm._mined(loaded, svm._head(loaded), config, 1.0, list),
    )
    for machine in machines:
        machine.refit()
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    one = loaded.make_batch([picture], [np.array([[4, 4, 40, 40], [10, 20, 60, 60]], np.float32)])
    features = loaded.model.features(one)
    with torch.no_grad():
        logits, _ = head(features, list(one.proposals), loaded.model.encode)
        vectors = svm._vectors(loaded, head, features, list(one.proposals)) * scale
    expected = torch.stack([svm.SHARPNESS * machine.margins(vectors) for machine in machines], dim=1)
    torch.testing.assert_close(logits, torch.cat([expected, torch.zeros(2, 1)], dim=1), atol=1e-4, rtol=1e-3)


def test_the_command_and_what_it_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, path, run = prepared(tmp_path)
    command = ["svm", "--config", str(path), "--weights", str(run), "--output", str(tmp_path / "out")]
    assert main(command) == 0
    assert (
        "red" in (said := capsys.readouterr().out)
        and f"weights      {tmp_path / 'out' / 'best.safetensors'}" in said
    )
    assert main(command) == 1 and "choose another folder" in capsys.readouterr().err
    command[-1] = str(tmp_path / "other")
    assert main([*command, "--cost", "0"]) == 1 and "the cost C must be above 0" in capsys.readouterr().err
    assert main([*command, "data.classes=[red, blue, green]"]) == 1
    cascade = saved(tmp_path / "cascade", "detection", refine={"foreground_iou": [0.6]})
    command[4] = str(cascade)
    assert main(command) == 1 and "has 2 stages (refine)" in capsys.readouterr().err
    command[4] = str(saved(tmp_path / "map", "segmentation"))
    assert main(command) == 1 and "no region_classifier" in capsys.readouterr().err


def test_a_class_without_an_object_is_named(tmp_path: Path) -> None:
    config, _, run = prepared(tmp_path)
    write_voc(tmp_path / "data", empty=tuple(range(6)))
    with pytest.raises(ValueError, match="no example of, or none against, red, blue"):
        svm.train_svms(config, str(run), tmp_path / "out")
