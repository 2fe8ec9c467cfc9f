"""The config file: values, overrides, and every message that a wrong one gets."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vistasks.config import Config, apply_override, load_config, parse_config, read_config, to_yaml

MINIMAL = """\
output: runs/x
data:
  format: voc
  root: data/x
  mask_values: {0: sky, 1: road}
model:
  backbone: {name: resnet18}
  heads:
    segmentation: {name: fcn8s}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def message(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ValueError) as caught:
        load_config(write(folder, text), overrides)
    return str(caught.value)


def test_defaults_and_values(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL + "train: {epochs: 3, optimizer: {lr: 1e-4}}\n"))
    assert (config.train.epochs, config.train.optimizer.lr, config.train.batch_size) == (3, 1e-4, 4)
    assert config.data.source("train") == {
        "format": "voc",
        "root": "data/x",
        "mask_values": {0: "sky", 1: "road"},
    }


@pytest.mark.parametrize(
    "text, value", [("1e-3", 1e-3), ("1E5", 1e5), ("-2.5e3", -2500.0), (".5e3", 500.0), ("1.e2", 100.0)]
)
def test_exponents_are_numbers(text: str, value: float) -> None:
    values: dict[str, Any] = {}
    apply_override(values, f"x={text}")
    assert values["x"] == value and isinstance(values["x"], float)


@pytest.mark.parametrize("text", ["1e", "e5", "1e-", "v1e3", "'1e3'"])
def test_what_is_no_number_stays_text(text: str) -> None:
    values: dict[str, Any] = {}
    apply_override(values, f"x={text}")
    assert values["x"] == text.strip("'")


def test_an_rpn_that_is_nowhere(tmp_path: Path) -> None:
    text = MINIMAL.replace("segmentation: {name: fcn8s}", "detection: {name: region_classifier}")
    for method in ("{name: rpn}", "{name: union, methods: [{name: grid}, {name: rpn}]}"):
        expected = f"{tmp_path / 'experiment.yaml'}: proposals.method 'rpn'"
        assert message(tmp_path, text, f"proposals.method={method}").startswith(expected)
    load_config(write(tmp_path, text), ["proposals.method={name: rpn, weights: runs/x}"])
    load_config(
        write(tmp_path, text), ["proposals.method.name=rpn", "model.heads.detection.rpn={stride: [16]}"]
    )


def test_every_shipped_config_reads_and_prints_itself(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    paths = [*sorted((root / "configs").glob("*.yaml")), *sorted((root / "vistasks").glob("*.yaml"))]
    assert paths
    for path in paths:
        config = load_config(path)
        assert load_config(write(tmp_path, to_yaml(config))) == config, path.name


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=8) | st.sampled_from(
    ["1e5", "yes", "null", "12", "~", "1:30", ".5e3", "2012-01-01", "- x", "a: b", "#"]
)


@settings(deadline=None, max_examples=60)
@given(value=st.recursive(texts | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.none(),
                          lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts | st.integers(), inner, max_size=3),
                          max_leaves=6))  # fmt: skip
def test_any_option_survives_printing(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    values = yaml.safe_load(MINIMAL)
    values["data"]["train"] = {"option": value}
    config = parse_config(values)
    path = write(tmp_path_factory.getbasetemp(), to_yaml(config))
    assert parse_config(read_config(path)[0]).data.train["option"] == value


LAUGHS = [
    "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    + "".join(
        f"{n}: &{n} [{', '.join([f'*{before}'] * 10)}]\n" for before, n in itertools.pairwise("abcdefghij")
    ),
    "a: &a {x: 1}\n"
    + "".join(
        f"{n}: &{n} {{<<: [{', '.join([f'*{before}'] * 10)}]}}\n"
        for before, n in itertools.pairwise("abcdefghij")
    ),
]


@pytest.mark.parametrize("text", LAUGHS)
def test_anchors_that_multiply(tmp_path: Path, text: str) -> None:
    told = message(tmp_path, MINIMAL + text)
    assert "experiment.yaml: not readable as YAML: " in told and "1,000,000" in told
    assert "anchors" in message(tmp_path, MINIMAL, "data.x={" + text.replace("\n", ", ").rstrip(", ") + "}")


def test_an_anchor_within_itself(tmp_path: Path) -> None:
    assert "anchor (&name)" in message(tmp_path, MINIMAL + "x: &a [*a]\n")


def test_anchors_are_otherwise_as_good_as_written_out(tmp_path: Path) -> None:
    text = MINIMAL + "evaluate: &e {batch_size: 3}\n"
    assert load_config(write(tmp_path, text)).evaluate.batch_size == 3
    values, where = read_config(write(tmp_path, "a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: *a\n"))
    assert values == {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": {"x": 1}} and where(("b", "y")).endswith(
        ":2"
    )


def test_long_values_are_told_by_their_begin(tmp_path: Path) -> None:
    told = message(tmp_path, MINIMAL, f"train.epochs=[{', '.join(['1'] * 5000)}]")
    assert "train.epochs: Input should be a valid integer; received [1, 1" in told and len(told) < 20_000
    assert told.endswith("...")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "data.folds={cuont: 5}",
            "data.folds.cuont: unknown key. Did you mean 'count'? Known: count, fold, seed",
        ),
        ("train.stages=[{taks: [detection]}]", "train.stages.0.taks: unknown key. Did you mean 'tasks'?"),
    ],
)
def test_unknown_keys_of_sections_within_others(tmp_path: Path, override: str, expected: str) -> None:
    assert expected in message(tmp_path, MINIMAL, override)


def test_unknown_key_names_line_path_and_nearest(tmp_path: Path) -> None:
    text = MINIMAL + "train:\n  epochs: 3\n  optimiser: {lr: 1}\n"
    found = message(tmp_path, text)
    assert (
        f"{tmp_path / 'experiment.yaml'}:12: train.optimiser: unknown key. Did you mean 'optimizer'? Known: epochs,"
        in found
    )


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    text = MINIMAL.replace("output: runs/x\n", "") + "train: {epochs: 0, batch_size: two}\nseeed: 1\n"
    lines = message(tmp_path, text).splitlines()
    assert len(lines) == 4
    assert any("experiment.yaml: output is missing" in line for line in lines)
    assert any(":9: train.epochs: Input should be greater than 0; received 0" in line for line in lines)
    assert any(":9: train.batch_size:" in line and "received 'two'" in line for line in lines)
    assert any(":10: seeed: unknown key. Did you mean 'seed'?" in line for line in lines)


@pytest.mark.parametrize(
    "override, expected",
    [
        ("model.heads={}", "model.heads: heads must name one or more of detection, segmentation; received: none"),
        ("model.heads={depth: {name: x}}", "received: depth"),
        ("model.loss_weights={detection: 2}", "loss_weights: no head 'detection'"),
        ("train.schedule.milestones=[30, 60]", "milestones: expected shares"),
        ("train.optimizer.lr=.inf", "train.optimizer.lr: Input should be a finite number"),
        ("train.optimizer.lr=.nan", "train.optimizer.lr: Input should be"),
        ("train.ema=1", "train.ema: Input should be less than 1"),
        ("train.precision=fp16", "'32-true', 'bf16-mixed' or '16-mixed'; received 'fp16'"),
        ("seed=4294967296", "seed: Input should be less than 4294967296"),
        ("input.min_side=0", "input.min_side: Input should be greater than 0"),
        ("train.optimizer=", "train.optimizer: Input should be a valid dictionary"),
    ],
)  # fmt: skip
def test_wrong_values(tmp_path: Path, override: str, expected: str) -> None:
    found = message(tmp_path, MINIMAL, override)
    assert expected in found and found.startswith(f"command line, {override}: ")


def test_a_fault_is_where_it_was_written_last(tmp_path: Path) -> None:
    text = MINIMAL + "train: {epochs: 3}\n"
    assert message(tmp_path, text, "train={epochs: -1}").startswith(
        "command line, train={epochs: -1}: train.epochs:"
    )
    assert message(tmp_path, text, "train.epochs=-1", "train.epochs=-2").startswith(
        "command line, train.epochs=-2:"
    )
    assert "experiment.yaml:10: train.epochs" in message(
        tmp_path, MINIMAL + "train: {epochs: -3}\n", "train.batch_size=2"
    )


def test_overrides_reach_nested_values_and_lists(tmp_path: Path) -> None:
    text = MINIMAL + "augment:\n  - HorizontalFlip: {p: 0.5}\n"
    overrides = [
        "augment.0.HorizontalFlip.p=0.1",
        "model.heads.segmentation.hidden=0",
        "data.mask_values.1=grass",
    ]
    config = load_config(write(tmp_path, text), [*overrides, "train.optimizer.lr=1e-2", "output=runs/y=z"])
    assert config.augment == [{"HorizontalFlip": {"p": 0.1}}]
    assert config.model.heads["segmentation"] == {"name": "fcn8s", "hidden": 0}
    assert (config.train.optimizer.lr, config.output) == (1e-2, "runs/y=z")
    assert config.data.source("val")["mask_values"] == {0: "sky", 1: "grass"}


@pytest.mark.parametrize(
    "override, expected",
    [
        ("epochs", "expected key.path=value, received 'epochs'"),
        ("=3", "expected key.path=value, received '=3'"),
        ("train..epochs=3", "expected key.path=value, received 'train..epochs=3'"),
        ("train.epochs=[", "the value is not readable as YAML"),
        ("output.folder=x", "output is a single value and has no key 'folder'"),
        ("augment.2=Blur", "augment is a list of 1; '2' must be 0 to 0"),
        ("augment.first=Blur", "augment is a list of 1; 'first' must be 0 to 0"),
        ("data.also.0.root=x", "data.also is a list of 0; '0' is not in it"),
    ],
)
def test_wrong_overrides(tmp_path: Path, override: str, expected: str) -> None:
    text = MINIMAL.replace("  root: data/x\n", "  root: data/x\n  also: []\n") + "augment: [Blur]\n"
    found = message(tmp_path, text, override)
    assert expected in found and found.startswith("command line")


def test_repeated_key(tmp_path: Path) -> None:
    found = message(tmp_path, MINIMAL + "seed: 1\nseed: 2\n")
    assert found.endswith("experiment.yaml:11: not readable as YAML: duplicate key 'seed'")


def test_yaml_faults_name_the_line(tmp_path: Path) -> None:
    assert "experiment.yaml:11: not readable as YAML" in message(
        tmp_path, MINIMAL + "train: {epochs: 3\nseed: 1\n"
    )
    assert "not readable as YAML" in message(tmp_path, MINIMAL + "\x00")


def test_anchors_and_merges_are_plain_yaml(tmp_path: Path) -> None:
    text = MINIMAL + "train:\n  optimizer: &o {lr: 1e-4}\ndata2: 1\n".replace("data2: 1\n", "")
    merged = text.replace("{name: resnet18}", "{<<: {name: resnet18}, weights: x}")
    assert load_config(write(tmp_path, merged)).model.backbone == {"name": "resnet18", "weights": "x"}


def test_not_a_mapping(tmp_path: Path) -> None:
    assert "expected keys and values (output, data, model, ...), received list" in message(tmp_path, "- a\n")
    assert "received NoneType" in message(tmp_path, "")


def test_not_text(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"output: \xff\xfe\n")
    with pytest.raises(ValueError, match=r"x\.yaml: not readable as YAML: 'utf-8' codec"):
        load_config(path)


def test_missing_file_suggests_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, MINIMAL)
    with pytest.raises(ValueError, match=r"no such config file\. Did you mean 'experiment\.yaml'\?"):
        load_config(tmp_path / "experimant.yaml")
    with pytest.raises(ValueError, match="no such config file"):
        load_config(tmp_path / "nowhere" / "experiment.yaml")


def test_configs_cannot_be_changed(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL))
    with pytest.raises(ValueError, match="frozen"):
        config.train.epochs = 5  # type: ignore[misc]


def test_plain_values_are_placed_too() -> None:
    with pytest.raises(ValueError, match="config: output is missing"):
        parse_config({k: v for k, v in yaml.safe_load(MINIMAL).items() if k != "output"})
    assert isinstance(parse_config(yaml.safe_load(MINIMAL)), Config)


def test_null_takes_a_head_away() -> None:
    path = Path(__file__).resolve().parents[2] / "configs" / "shapes_joint.yaml"
    assert list(load_config(path, ["model.heads.segmentation=null"]).model.heads) == ["detection"]
    with pytest.raises(
        ValueError, match="heads must name one or more of detection, segmentation; received: none"
    ):
        load_config(path, ["model.heads.segmentation=null", "model.heads.detection=null"])
