"""The table of proposal methods: what every one must do, and each one's own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vistasks.proposals import ProposalMethod
from vistasks.proposals.methods import File, Grid, GroundTruthJitter, clipped
from vistasks.registry import PROPOSALS
from vistasks.types import Sample

BOXES = np.array([[3, 4, 40, 50], [60, 10, 100, 70]], np.float32)


def _sample(height: int = 80, width: int = 100, image_id: str = "cat") -> Sample:
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3)).astype(np.uint8)
    boxes = BOXES if (height, width) == (80, 100) else np.zeros((0, 4), np.float32)
    return Sample(image_id, f"{image_id}.jpg", image, boxes, np.arange(len(boxes)))


def _build(name: str, folder: Path) -> ProposalMethod:
    options: dict[str, object] = {"name": name}
    if name == "file":
        np.savez(folder / "boxes.npz", cat=BOXES)
        options["path"] = str(folder / "boxes.npz")
    if name == "union":
        options["methods"] = [{"name": "grid"}, {"name": "selective_search"}]
    return PROPOSALS.build(options, where="proposals.method")


@pytest.mark.parametrize(
    "name", [name for name in PROPOSALS if name not in ("peer", "class_map")]
)  # tested elsewhere
@pytest.mark.parametrize("size", [(80, 100), (1, 1), (3, 200)])
def test_every_method_gives_valid_boxes_and_the_same_ones_again(
    name: str, size: tuple[int, int], tmp_path: Path
) -> None:
    method = _build(name, tmp_path)
    assert isinstance(method, ProposalMethod)
    sample = _sample(*size)
    boxes = method(sample)
    Sample(sample.image_id, sample.path, sample.image, proposals=boxes)  # refuses what is not valid
    np.testing.assert_array_equal(method(sample), boxes)
    np.testing.assert_array_equal(_build(name, tmp_path)(sample), boxes)
    assert method.key == _build(name, tmp_path).key


def test_keys_tell_options_apart() -> None:
    keys = {
        PROPOSALS.build(options, where="proposals.method").key
        for options in (
            {"name": "selective_search"},
            {"name": "selective_search", "mode": "quality"},
            {"name": "selective_search", "seed": 1},
            {"name": "selective_search", "max_boxes": 100},
            {"name": "selective_search", "min_size": 100},
            {"name": "selective_search", "min_side": 10},
            {"name": "grid"},
            {"name": "grid", "stride": 0.5},
        )
    }
    assert len(keys) == 8
    assert (
        PROPOSALS.build({"name": "selective_search", "threads": 2}, where="p").key in keys
    )  # the same boxes


def test_grid_covers_the_picture_and_begins_with_the_largest() -> None:
    boxes = Grid(max_boxes=None)(_sample())
    assert boxes[0].tolist() == [0, 0, 100, 80]
    inside = np.zeros((80, 100), bool)
    for x1, y1, x2, y2 in boxes[1:].round().astype(int):
        inside[y1:y2, x1:x2] = True
    assert inside.all()
    np.testing.assert_array_equal(Grid(max_boxes=7)(_sample()), boxes[:7])


@pytest.mark.parametrize("options", [{"sizes": ()}, {"sizes": (0.0,)}, {"ratios": (-1.0,)}, {"stride": 0.0}])
def test_grid_refuses_bad_options(options) -> None:
    with pytest.raises(ValueError, match="grid: sizes, ratios and stride must be > 0"):
        Grid(**options)


def test_jitter_begins_with_the_objects_and_stays_near_them() -> None:
    boxes = GroundTruthJitter(30, strength=0.2)(_sample())
    assert len(boxes) == 62
    np.testing.assert_array_equal(boxes[:2], BOXES)
    copies = boxes[2:].reshape(30, 2, 4)
    sides = np.tile(BOXES[:, 2:] - BOXES[:, :2], 2)
    assert (np.abs(copies - BOXES) <= 0.2 * sides + 1e-4).all()
    assert not np.array_equal(
        GroundTruthJitter(30)(_sample(image_id="dog")), GroundTruthJitter(30)(_sample())
    )


@pytest.mark.parametrize("options", [{"copies": -1}, {"strength": 0.5}])
def test_jitter_refuses_bad_options(options) -> None:
    with pytest.raises(ValueError, match="ground_truth_jitter: expected copies >= 0"):
        GroundTruthJitter(**options)


def test_clipped_drops_what_is_outside_empty_or_not_finite() -> None:
    boxes = [[-5, -5, 4, 4], [10, 10, 20, 20], [5, 5, 5, 9], [np.nan, 0, 1, 1], [2, 2, 1, 3]]
    assert clipped(np.array(boxes), 8, 8).tolist() == [[0, 0, 4, 4]]
    assert clipped(np.zeros((0, 4)), 8, 8).shape == (0, 4)


def test_file_reads_npz_and_coco_results(tmp_path: Path) -> None:
    np.savez(tmp_path / "boxes.npz", cat=[[0, 0, 500, 500], [1, 2, 3, 4]])
    assert File(str(tmp_path / "boxes.npz"))(_sample()).tolist() == [[0, 0, 100, 80], [1, 2, 3, 4]]
    results = [
        {"image_id": "cat", "bbox": [1, 2, 2, 2], "score": 0.1},
        {"image_id": "cat", "bbox": [5, 5, 10, 20], "score": 0.9},
        {"image_id": 7, "bbox": [5, 5, 10, 20]},
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(results))
    method = File(str(tmp_path / "boxes.json"), max_boxes=1)
    assert method(_sample()).tolist() == [[5, 5, 15, 25]]
    assert method(_sample(image_id="7")).shape == (1, 4)


def test_file_names_what_is_wrong(tmp_path: Path) -> None:
    def fails(name: str, content: bytes, message: str) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            File(str(tmp_path / name))
        assert name in str(caught.value)

    with pytest.raises(ValueError, match=r"nowhere\.npz: there is no such file"):
        File("nowhere.npz")
    fails("boxes.txt", b"1 2 3 4", r"expected an \.npz or a \.json file")
    fails("boxes.npz", b"PK nonsense", r"not a readable \.npz file")
    fails("broken.json", b"[{", "not a JSON file")
    fails("object.json", b'{"a": 1}', "entry 0 is 'a'; expected .*bbox")
    fails("short.json", b'[{"image_id": 1, "bbox": [1, 2, 3]}]', "entry 0 is .*; expected .*bbox")
    np.savez(tmp_path / "flat.npz", cat=np.zeros(4))
    with pytest.raises(ValueError, match=r"flat\.npz: 'cat' must be \(P, 4\) numbers, not \(4,\)"):
        File(str(tmp_path / "flat.npz"))
    np.savez(tmp_path / "dog.npz", dog=BOXES)
    with pytest.raises(
        ValueError, match=r"no proposals for image 'cat' \(cat\.jpg\); it has, for example: dog"
    ):
        File(str(tmp_path / "dog.npz"))(_sample())


def test_a_json_file_nested_without_end_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match=r"a\.json: not a JSON file"):
        File(str(tmp_path / "a.json"))
