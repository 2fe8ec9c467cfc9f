"""What a checkpoint decides and what not, key by key; `test_forged` tries the rest."""

from __future__ import annotations

import inspect
import json
import subprocess
import types
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vistasks
from tests.forged import BASES, CLASSES, Forge, Forgery, write_header
from vistasks.checkpoint import HEADER, checksum, read_checkpoint
from vistasks.checkpoint.foreign import FILES
from vistasks.cli import main
from vistasks.config import ProposalsConfig
from vistasks.inference.loaded import load_model
from vistasks.registry import BACKBONES, HEADS, NECKS, PROPOSALS, WEIGHTINGS

IMAGE = np.zeros((64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Forge:
    return Forge(tmp_path_factory.mktemp("forge"))


def forged(forge: Forge, tmp_path: Path, base: str = "align", **changes: Any) -> Path:
    keys = {key.replace("__", "."): value for key, value in changes.items()}
    return forge.write(Forgery(base, keys), tmp_path / "best.safetensors")


def program(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "run.sh"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return {"name": "peer", "python": str(path)}


def withheld_methods(tmp_path: Path) -> list[tuple[str, dict[str, Any]]]:
    peer, secret = program(tmp_path), tmp_path / "secret.json"
    secret.write_text('[{"image_id": "swordfish"}]')
    weights = {"name": "rpn", "weights": str(secret)}
    return [
        ("proposals.method.python", peer),
        ("proposals.method.path", {"name": "file", "path": str(secret)}),
        ("proposals.method.weights", weights),
        ("proposals.method.weights", {"name": "class_map", "weights": str(secret)}),
        ("proposals.method.methods.1.python", {"name": "union", "methods": [{"name": "grid"}, peer]}),
        (
            "proposals.method.methods.0.methods.0.weights",
            {"name": "union", "methods": [{"name": "union", "methods": [weights]}]},
        ),
    ]


@pytest.mark.parametrize("number", range(6))
def test_files_and_programs_of_proposals_are_withheld(
    forge: Forge, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, method = withheld_methods(tmp_path)[number]
    path = forged(forge, tmp_path, proposals__method=method)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(ValueError, match=rf"best\.safetensors: .*{key}=.*--trust.*trust=True") as told:
        vistasks.load(path)
    assert "swordfish" not in str(told.value)
    # whoever has a config decides by it
    own = ProposalsConfig(method={"name": "grid", "sizes": [0.5]}, cache=None)
    boxes = load_model(path, "cpu", proposals=own).propose(IMAGE)
    assert boxes is not None and len(boxes) > 1
    checkpoint = read_checkpoint(path)
    assert checkpoint.written.proposals.method == method and not checkpoint.trusted
    assert read_checkpoint(path, trust=True).config.proposals.method == method


def test_trust_lets_a_checkpoint_decide(forge: Forge, tmp_path: Path) -> None:
    boxes = tmp_path / "boxes.npz"
    np.savez(boxes, image=np.array([[1.0, 2, 30, 40]]))
    path = forged(forge, tmp_path, proposals__method={"name": "file", "path": str(boxes)})
    with pytest.raises(ValueError, match=r"proposals\.method\.path"):
        vistasks.load(path)
    assert vistasks.load(path, trust=True).propose(IMAGE).tolist() == [[1, 2, 30, 40]]


@pytest.mark.parametrize("command", ["infer", "inspect"])
def test_the_command_line_names_its_option(
    forge: Forge, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = forged(forge, tmp_path, proposals__method={"name": "file", "path": str(tmp_path / "gone.npz")})
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    source = {"infer": "--source", "inspect": "--image"}[command]
    arguments = [
        command,
        "--weights",
        str(path),
        source,
        str(tmp_path / "a.png"),
        "--output",
        str(tmp_path / "o"),
    ]
    assert main(arguments) == 1
    assert "proposals.method.path" in (told := capsys.readouterr().err) and "--trust" in told
    assert main([*arguments, "--trust"]) == 1
    assert "--trust" not in (told := capsys.readouterr().err) and "no such file" in told  # it was tried


def test_nothing_but_the_list_comes_through(forge: Forge, tmp_path: Path) -> None:
    path = forged(
        forge, tmp_path, output="elsewhere", seed=7, data__root="/etc", data__cache="disk", data__cache_folder="/x",
        augment=["x"], proposals__cache="/x", train__workers=99, evaluate__batch_size=4096, data__max_pixels=10**9,
        checkpoint__keep=3, model__backbone__weights="/etc/passwd.safetensors", input__min_side=96,
    )  # fmt: skip
    found = read_checkpoint(path)
    plain = read_checkpoint(forge.write(Forgery("align", {}), tmp_path / "plain.safetensors")).config
    expected = plain.model_copy(update={"seed": 7, "input": plain.input.model_copy(update={"min_side": 96})})
    assert found.config == expected
    assert found.withheld == {"model.backbone.weights": "/etc/passwd.safetensors"}
    assert found.written.data.root == "/etc" and found.written.proposals.cache == "/x"
    load_model(path, "cpu").propose(IMAGE)


def test_threads_are_the_users(forge: Forge, tmp_path: Path) -> None:
    method = {"name": "selective_search", "threads": 4096, "max_boxes": 30}
    path = forged(forge, tmp_path, proposals__method=method)
    assert read_checkpoint(path).config.proposals.method == {"name": "selective_search", "max_boxes": 30}


LARGE = [
    ("align", "input.min_side", 200_000),
    ("align", "input.max_side", 16_385),
    ("align", "proposals.method.max_boxes", 20_001),
    ("align", "model.heads.detection.align.size", 65),
    ("align", "model.heads.detection.decoding.passes", 11),
    ("align", "model.heads.detection.decoding.max_detections", "20001"),
    ("warp", "model.heads.detection.warp.crop", 1056),
    ("warp", "model.heads.detection.warp.crop", "200000"),
    ("rpn", "model.heads.detection.rpn.before_nms", 20_001),
    ("rpn", "model.heads.detection.rpn.keep", 20_001),
    ("rpn", "model.heads.detection.refine.keep", 1e308),
    ("aspp", "model.heads.segmentation.rates.1", 1001),
    ("aspp", "model.heads.segmentation.rates", [1] * 1001),
]


@pytest.mark.parametrize(("base", "key", "value"), LARGE)
def test_numbers_that_no_tensor_bounds_have_a_bound(
    forge: Forge, tmp_path: Path, base: str, key: str, value: Any
) -> None:
    changes = {"model.heads.segmentation.rates": [1, 2]} if key.endswith("rates.1") else {}
    path = forge.write(Forgery(base, {**changes, key: value}), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=rf"a\.safetensors: .*{key}.*--trust"):
        read_checkpoint(path)
    read_checkpoint(path, trust=True)


FITTING = [
    ("align", "model.heads.detection.hidden", [2_000_000, 2_000_000]),
    ("align", "model.heads.detection.hidden", [10**12, 10**12]),
    ("align", "model.heads.detection.hidden", [1] * 900),
    ("align", "model.backbone.width", 200),
    ("align", "model.neck", {"name": "fpn", "channels": 10**9}),
    ("lr_aspp", "model.heads.segmentation.channels", 10**9),
]


@pytest.mark.parametrize(("base", "key", "value"), FITTING)
def test_a_model_that_the_tensors_do_not_fill_is_not_allocated(
    forge: Forge, tmp_path: Path, base: str, key: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vistasks.models import building

    built, build = [], building.build_model

    def watched(*arguments: Any, **options: Any) -> Any:
        built.append(torch.empty(0).device.type)
        return build(*arguments, **options)

    monkeypatch.setattr(building, "build_model", watched)
    path = forge.write(Forgery(base, {key: value}), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"a\.safetensors|model\."):
        load_model(path, "cpu")
    assert built == ["meta"]


def test_layers_are_counted_while_they_are_built(forge: Forge, tmp_path: Path) -> None:
    from vistasks.models.building import at_most

    with (
        pytest.raises(ValueError, match=r"x: its config has more layers than its 0 tensors can fill"),
        at_most(0, "x"),
    ):
        torch.nn.Sequential(*[torch.nn.Identity()] * 10_001)
    with pytest.raises(ValueError, match="more parameters"), at_most(1, "x"):
        torch.nn.ParameterList(torch.zeros(1) for _ in range(1003))
    with at_most(1, "x"):
        torch.nn.Linear(2, 2)
    torch.nn.Sequential(*[torch.nn.Identity()] * 10_001)  # nobody counts any more


def test_enlarging_is_bounded_whatever_the_picture(forge: Forge, tmp_path: Path) -> None:
    """Within the bounds of the config, a picture of 1 x 3000 would still become one of 3,000 x 9,000,000."""
    loaded = load_model(forged(forge, tmp_path, input__min_side=3000), "cpu")
    with pytest.raises(ValueError, match=r"input\.min_side=3000.* 3000x1 to 9000000x3000"):
        loaded.make_batch([np.zeros((1, 3000, 3), np.uint8)], None)
    assert loaded.make_batch([np.zeros((64, 64, 3), np.uint8)], None).sizes == ((3000, 3000),)


def test_a_grid_of_a_thousandth_of_a_pixel(forge: Forge, tmp_path: Path) -> None:
    path = forged(forge, tmp_path, proposals__method={"name": "grid", "sizes": [1e-3], "stride": 1e-3})
    with pytest.raises(ValueError, match="grid: sizes, ratios and stride make more than 1,000,000 windows"):
        load_model(path, "cpu").propose(IMAGE)


def test_more_boxes_than_an_image_may_have(forge: Forge, tmp_path: Path) -> None:
    method = {"name": "grid", "sizes": [0.1], "stride": 0.1, "max_boxes": None}
    path = forged(forge, tmp_path, proposals__method=method)
    with pytest.raises(ValueError, match=r"proposals\.method gives .* boxes of one image.*--trust"):
        load_model(path, "cpu").propose(np.zeros((200, 200, 3), np.uint8))
    boxes = load_model(path, "cpu", trust=True).propose(np.zeros((200, 200, 3), np.uint8))
    assert boxes is not None and len(boxes) > 20_000


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ({"classes": {"detection": ["a", 1], "segmentation": []}}, "class names are not all text"),
        ({"classes": {"detection": [["a"]], "segmentation": []}}, "class names are not all text"),
        ({"classes": {"detection": ["a"] * 50_001, "segmentation": []}}, "50,001 classes"),
        ({"state": [1] * 1_000_000}, "more than 1,000,000 values"),
        ({"state": {"a": json.loads("[" * 40 + "]" * 40)}}, "30 levels"),
    ],
)
def test_headers_made_to_do_harm(forge: Forge, tmp_path: Path, header: dict[str, Any], told: str) -> None:
    good, tensors, content = forge.base("align")
    path = write_header(tmp_path / "a.safetensors", json.dumps(good | header), tensors, content)
    with pytest.raises(ValueError, match=rf"a\.safetensors: .*{told}"):
        read_checkpoint(path)


def test_a_header_nested_beyond_what_json_reads(forge: Forge, tmp_path: Path) -> None:
    _, tensors, content = forge.base("align")
    path = write_header(tmp_path / "a.safetensors", "[" * 200_000, tensors, content)
    with pytest.raises(ValueError, match=r"a\.safetensors: not a readable checkpoint"):
        read_checkpoint(path)


def test_a_missing_checksum_is_told(forge: Forge, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    good, tensors, _ = forge.base("align")
    save_file(tensors, tmp_path / "a.safetensors", {HEADER: json.dumps(good)})
    with pytest.warns(UserWarning, match=r"a\.safetensors: no checksum"):
        read_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t * float("nan"), "not all of its weights are finite numbers"),
        (lambda t: torch.full_like(t, float("inf")), "not all of its weights are finite numbers"),
        (lambda t: t.to(torch.int8), "other numbers .*int8 in the file, float32 in the model"),
        (lambda t: t.to(torch.complex64), "other numbers .*complex64 in the file"),
        (lambda t: t.to(torch.float8_e4m3fn), "other numbers .*float8_e4m3fn in the file"),
        (lambda t: t[..., None], "other shapes"),
    ],
)
def test_weights_that_are_none(forge: Forge, tmp_path: Path, change: Any, told: str) -> None:
    from safetensors.torch import save_file

    good, tensors, _ = forge.base("align")
    name = next(name for name in tensors if "classify.weight" in name)
    changed = {**tensors, name: change(tensors[name]).contiguous()}
    text = json.dumps(good)
    save_file(changed, tmp_path / "a.safetensors", {HEADER: text, "sha256": checksum(text, changed)})
    with pytest.raises(ValueError, match=rf"(?s)a\.safetensors: .*{told}.*"):
        load_model(tmp_path / "a.safetensors", "cpu")


def test_weights_in_16_bits_are_numbers(forge: Forge, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    good, tensors, _ = forge.base("align")
    small = {k: t.half() if t.is_floating_point() else t for k, t in tensors.items()}
    text = json.dumps(good)
    save_file(small, tmp_path / "a.safetensors", {HEADER: text, "sha256": checksum(text, small)})
    assert next(load_model(tmp_path / "a.safetensors", "cpu").model.parameters()).dtype == torch.float32


def test_weights_before_training_are_not_read_where_the_checkpoint_names_them(
    forge: Forge, tmp_path: Path
) -> None:
    from vistasks.inspection.inspect import inspect as inspect_model

    secret = tmp_path / "secret.safetensors"
    secret.write_bytes(b"swordfish")
    path = forged(forge, tmp_path, model__backbone__weights=str(secret))
    facts = inspect_model(load_model(path, "cpu"), IMAGE, tmp_path / "out", path="x", cells=0)
    assert "model.backbone.weights" in facts["filters_before"] and "swordfish" not in str(facts)


def _texts(kind: Any) -> bool:
    """Whether an option may be any text."""
    if kind is str:
        return True
    return any(_texts(part) for part in typing.get_args(kind)) and typing.get_origin(kind) in (
        types.UnionType, typing.Union, list, tuple, dict,
    )  # fmt: skip


KNOWN_TEXTS = {"model", "leave_out", "class_weights", "targets", "methods"}  # names, and parts within


def test_every_option_that_is_text_is_known_to_name_a_file_or_none() -> None:
    """A new part whose option names a file is seen here: it belongs to `FILES`."""
    found = set()
    for registry in (BACKBONES, NECKS, HEADS, PROPOSALS, WEIGHTINGS):
        for name in registry:
            part = registry[name]
            function = getattr(part, "func", part)
            hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
            skipped = {"return", "trunk", "classes", "in_channels", "tasks"}
            found |= {option for option, kind in hints.items() if option not in skipped and _texts(kind)}
    assert found == set(FILES) | KNOWN_TEXTS, found


def test_all_bases_of_the_forgeries_predict(forge: Forge, tmp_path: Path) -> None:
    for base in BASES:
        vistasks.load(forge.write(Forgery(base, {}), tmp_path / "a.safetensors"), device="cpu").predict(IMAGE)
    assert CLASSES.detection == ("red", "blue")
