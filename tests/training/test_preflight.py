"""What is tried before the first step: all problems at once, nothing written, nothing changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

import vistasks.training.preflight as preflight
from tests.tiny_data import config_values, voc_data, voc_xml, write_voc
from vistasks.checkpoint import read_checkpoint
from vistasks.cli import main
from vistasks.config import parse_config
from vistasks.loading.loader import Pipeline
from vistasks.models import MultiTaskModel
from vistasks.training.loop import train
from vistasks.training.skipped import explained


def command(tmp_path: Path, values: dict[str, Any], *more: str) -> list[str]:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return ["train", "--config", str(path), *more]


def plant(root: Path) -> dict[str, str]:
    """Eleven faults in a VOC folder of thirteen pictures; what must be told of each."""
    xml, pictures, masks = (root / name for name in ("Annotations", "JPEGImages", "SegmentationClass"))

    def objects(number: int, name: str, box: list[int], side: int = 64) -> None:
        (xml / f"scene_{number}.xml").write_text(
            voc_xml(f"scene_{number}.png", (side, side, 3), [(name, box)])
        )

    (xml / "scene_0.xml").write_text((xml / "scene_0.xml").read_text()[:120])
    objects(1, "red", [10, 10, 90, 30])
    objects(2, "red", [40, 10, 20, 30])
    objects(3, "gren", [10, 10, 30, 30])
    (pictures / "scene_4.png").write_bytes((pictures / "scene_4.png").read_bytes()[:2000])
    (pictures / "scene_5.png").write_bytes(b"")
    (pictures / "scene_6.png").unlink()
    objects(7, "red", [10, 10, 30, 30], side=128)
    Image.new("L", (64, 64), 77).save(masks / "scene_8.png")
    (masks / "scene_9.png").unlink()
    (xml / "scene_10.xml").write_text(voc_xml("../../../scene_10.png", (64, 64, 3), []))
    return {
        "scene_0.xml": "not well-formed XML",
        "scene_1.xml object 1 'red'": "overhangs the 64x64 image by 26 pixels",
        "scene_2.xml object 1 'red'": "is inverted",
        "scene_3.xml object 1 'gren'": "the class 'gren' (1 objects) is not in classes",
        "scene_4.png": "truncated",
        "scene_5.png": "the file is empty",
        "scene_6": "no image of this name",
        "scene_7.xml": "<size> says 128x128, but",
        "scene_8.png": "mask value 77 (4096 pixels) is not in mask_values",
        "scene_9.png": "missing, though the Segmentation list names",
        "scene_10.xml": "points outside the data folder",
    }


def test_ten_planted_faults_and_more_are_told_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_voc(tmp_path / "data", count=13)
    expected = plant(root)
    values = config_values(
        tmp_path / "run", {**voc_data(root), "classes": ["red", "blue", "black"]}, "detection", "segmentation"
    )
    values["train"]["monitor"] = "mIuO"
    values["augment"] = [{"HorizontalFlipp": {}}]
    assert main(command(tmp_path, values, "--dry-run")) == 1
    printed = capsys.readouterr().out
    told = printed[printed.index("problems before the first step") :]
    lines = [line for line in told.splitlines()[1:] if line.startswith("  ")]
    for place, what in expected.items():
        assert sum(place in line and what in line for line in lines) == 1, f"{place}: {what}\n{printed}"
    assert any("train.monitor: 'mIuO'" in line for line in lines) and any(
        "HorizontalFlipp" in line for line in lines
    )
    assert (
        "note         no training image contains an object of: black" in printed
        and len(lines) == len(expected) + 2
    ), told
    assert (
        "\nbad_boxes: drop (or clip) leaves out" in told and told.count("other_classes: drop leaves out") == 1
    )
    assert not (tmp_path / "run").exists()
    # the training itself tells the same before it begins
    values["train"] |= {"monitor": None, "preflight": "sample"}
    values["augment"] = []
    with pytest.raises(preflight.PreflightFaults, match=r"11 problems before the first step") as caught:
        train(parse_config(values))
    assert len(caught.value.problems) == 11 and not (tmp_path / "run").exists()


def test_a_good_run_passes_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_voc(tmp_path / "data", count=5)
    values = config_values(tmp_path / "run", voc_data(root), "detection", "segmentation")
    assert main(command(tmp_path, values, "--dry-run", "train.preflight=full")) == 0
    printed = capsys.readouterr().out
    told = [
        "train files  5 of 5 images read, 0 unreadable",
        "objects      red 5, blue 5",
        "first batch  detection/",
        "memory",
    ]
    for part in [
        *told,
        "time         about",
        "disk",
        "all checks passed",
        "5 images are in both",
    ]:
        assert part in printed, printed
    assert not (tmp_path / "run").exists()


def test_the_preflight_does_not_change_the_training(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "data", count=4)
    weights = []
    for level in ("none", "sample"):
        values = config_values(
            tmp_path / level, voc_data(root), "detection", epochs=1, preflight=level, threads=1
        )
        train(parse_config(values))
        weights.append(read_checkpoint(tmp_path / level / "last.safetensors").tensors)
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.fixture
def default_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No number of threads is given, and the one that a run sets is undone."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_fastest_number_of_threads_is_taken_said_and_kept(
    tmp_path: Path,
    default_threads: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("vistasks.training.trial.seconds_by_threads", lambda step: {2: 0.5, 3: 0.25})
    data = voc_data(write_voc(tmp_path / "data", count=3, masks=False))

    def trained(name: str, resume: bool = False, **options: Any) -> int | None:
        torch.set_num_threads(1)
        values = config_values(tmp_path / name, data, "detection", preflight="sample", **options)
        train(parse_config(values), resume=resume)
        kept = read_checkpoint(tmp_path / name).written.train.threads
        assert torch.get_num_threads() == (kept or 1)
        return kept

    assert trained("measured", epochs=1) == 3
    assert "\nthreads      3 for PyTorch" in capsys.readouterr().out
    monkeypatch.setattr("vistasks.training.trial.seconds_by_threads", lambda step: {2: 0.1, 3: 0.2})
    assert trained("measured", resume=True, epochs=2) == 3  # other digits would come of another number
    assert trained("given", epochs=1, threads=4) == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert trained("environment", epochs=1) is None
    assert "\nthreads " not in capsys.readouterr().out


def test_the_time_is_estimated_without_what_is_compiled_and_with_what_a_cache_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3 s for a first picture, .2 s for one without cached proposals, .02 s for one with them; no time for the
    model.
    """
    clock, read = [0.0], list[str]()
    original = Pipeline.__getitem__

    def reading(self: Pipeline, key: tuple[int, int]) -> Any:
        path = self.dataset.paths[key[1]]
        clock[0] += 3.0 if not read else 0.02 if path in read else 0.2
        read.append(path)
        return original(self, key)

    monkeypatch.setattr("vistasks.training.trial.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr(Pipeline, "__getitem__", reading)
    data = voc_data(write_voc(tmp_path / "data", count=8, masks=False))
    values = config_values(tmp_path / "run", data, "detection", epochs=101, batch_size=2)
    values["proposals"] = {**values["proposals"], "cache": str(tmp_path / "cache")}
    told = preflight.dry_run(parse_config(values)).facts["time"]
    # 4 steps of 2 pictures: 1.6 s in the first epoch, .16 s in each of the others
    assert told.startswith("about 18 s ") and ".40 s to read it in one process, 0.04 s again" in told


def test_what_does_not_fit_is_told_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_voc(tmp_path / "data", count=3, masks=False)
    config = parse_config(config_values(tmp_path / "run", voc_data(root), "detection"))
    monkeypatch.setattr(preflight, "available_memory", lambda: 1000)
    monkeypatch.setattr(preflight, "free_disk", lambda folder: 1000)
    monkeypatch.setattr(
        MultiTaskModel, "loss", lambda self, batch: {"detection/box": next(self.parameters()).sum() * 0 + 1}
    )
    told = "\n".join(preflight.dry_run(config).problems)
    assert "memory: " in told and "0 MB are free" in told and "train.batch_size" in told
    assert "disk: " in told and "choose another folder by output=" in told
    monkeypatch.setattr(
        MultiTaskModel,
        "loss",
        lambda self, batch: {"detection/box": next(self.parameters()).sum() * torch.nan},
    )
    (problem,) = preflight.dry_run(config).problems
    assert (
        "the loss of the first batch is not finite (detection/box = nan); its images: " in problem
        and "scene_" in problem
    )


def test_a_machine_or_a_model_that_is_not_there_is_one_problem_among_others(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "data", count=3, masks=False)
    values = config_values(tmp_path / "run", voc_data(root), "detection", accelerator="cuda", devices=99)
    values["model"]["backbone"] = {"name": "resnet81"}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.safetensors").touch()
    look = preflight.dry_run(parse_config(values))
    told = "\n".join(look.problems)
    assert (
        "unknown backbone 'resnet81'" in told and "train.devices=99" in told and "already holds a run" in told
    )
    assert "no trial batch: data or model could not be built" in look.notes
    values["data"]["root"] = str(tmp_path / "nowhere")
    look = preflight.dry_run(parse_config(values))
    assert (
        "nowhere does not exist" in "\n".join(look.problems)
        and "the train images were not checked" in look.notes[0]
    )


def test_damaged_pictures_are_skipped_counted_and_listed_by_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_voc(tmp_path / "data", count=6, masks=False)
    for number in (1, 4):
        path = root / "JPEGImages" / f"scene_{number}.png"
        path.write_bytes(path.read_bytes()[:2000])
    (root / "Annotations" / "scene_5.xml").write_text("<annotation>")
    values = config_values(
        tmp_path / "run", {**voc_data(root), "on_error": "skip"}, "detection", epochs=1, preflight="sample"
    )
    assert main(command(tmp_path, values)) == 0
    printed = capsys.readouterr().out
    assert "1 faults skipped: " in printed and "scene_5.xml" in printed
    assert "2 unreadable images, 1 faults found before (data.on_error: skip)" in printed
    skipped = json.loads((tmp_path / "run" / "skipped.json").read_text())
    assert [Path(path).name for path in skipped["reading"]] == ["scene_1.png", "scene_4.png"]
    assert len(skipped["opening"]) == 1 and "scene_5.xml" in skipped["opening"][0]
    assert json.loads((tmp_path / "run" / "report.json").read_text())["images"] == 3


def test_training_on_nothing_is_refused_unless_insisted(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "data", count=4)
    for path in (root / "Annotations").glob("*.xml"):
        path.write_text(voc_xml(f"{path.stem}.png", (64, 64, 3), []))
    for path in (root / "SegmentationClass").glob("*.png"):
        mask = Image.open(path)
        mask.paste(255, (0, 0, 64, 64))
        mask.save(path)
    values = config_values(tmp_path / "run", voc_data(root), "detection", "segmentation")
    values["train"] |= {"preflight": "sample"}
    with pytest.raises(preflight.PreflightFaults) as caught:
        train(parse_config(values))
    told = caught.value.problems
    assert len(told) == 2 and all("data.allow_empty=true" in fault for fault in told)
    assert "no object at all" in told[0] and "only ignored pixels (255)" in told[1]
    values["data"]["allow_empty"] = True
    look = preflight.dry_run(parse_config(values))
    assert not look.problems and sum("data.allow_empty" in note for note in look.notes) >= 2


def test_a_picture_that_ends_a_training_names_the_ways_out(tmp_path: Path) -> None:
    config = parse_config(
        config_values(tmp_path / "run", voc_data(write_voc(tmp_path / "data")), "detection")
    )
    told = str(explained(ValueError("a.png: truncated"), config))
    assert told.startswith("a.png: truncated") and "data.on_error=skip" in told and "full" in told
