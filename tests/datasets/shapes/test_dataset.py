from __future__ import annotations

import json
import pickle
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vistasks.datasets.shapes.dataset as shapes_module
from vistasks.datasets import load_dataset
from vistasks.datasets.shapes.dataset import STAMP, generate_shapes
from vistasks.datasets.shapes.drawing import CLASSES, Shape, Texture, draw_scene, footprint, signed_distance
from vistasks.datasets.shapes.scenes import clip_frames, clip_scenes, scene_mask, scene_objects, still_scene
from vistasks.datasets.shapes.writers import voc_palette, write_clip

SMALL = {"train_images": 14, "val_images": 2, "test_images": 1, "height": 96, "width": 128, "seed": 4}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "shapes"
    load_dataset({"format": "shapes", "root": str(path), **SMALL})
    return path


def load(root: Path, **options: object) -> Any:
    return load_dataset({"format": "shapes", "root": str(root), **SMALL, **options})


def test_the_three_readers_agree(root: Path) -> None:
    """The same scenes through VOC xml and palette masks, COCO json and RLE, and index masks."""
    both = ["detect", "segment"]
    voc, coco = load(root, layout="voc", tasks=both), load(root, layout="coco", tasks=both)
    folder = load(root, layout="mask_folder", tasks=["segment"])
    assert voc.ids == coco.ids == folder.ids and len(voc) == 14
    assert voc.classes == coco.classes and voc.classes.segmentation == folder.classes.segmentation
    assert voc.classes.segmentation == ("background", *voc.classes.detection) == ("background", *CLASSES)
    assert voc.notes == coco.notes == folder.notes == []
    objects = difficult = empty = 0
    for index in range(len(voc)):
        first, second, third = voc[index], coco[index], folder[index]
        for name in ("image", "boxes", "labels", "difficult", "crowd", "segmentation"):
            assert np.array_equal(getattr(first, name), getattr(second, name)), (index, name)
            assert getattr(first, name).dtype == getattr(second, name).dtype
        assert np.array_equal(first.image, third.image) and np.array_equal(
            first.segmentation, third.segmentation
        )
        assert (
            first.labelled == second.labelled and third.labelled.segmentation == first.labelled.segmentation
        )
        assert voc.annotation(index).size == coco.annotation(index).size == first.size == (96, 128)
        objects, difficult = objects + len(first.labels), difficult + int(first.difficult.sum())
        empty += len(first.labels) == 0
    assert objects > 25 and difficult > 0 and empty > 0  # the comparison has something to compare


@pytest.mark.parametrize("layout", ["voc", "coco", "mask_folder"])
def test_readers_travel_to_spawned_workers(root: Path, layout: str) -> None:
    dataset = load(root, layout=layout, tasks=["segment"])
    again = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(again[1].segmentation, dataset[1].segmentation) and again.ids == dataset.ids


def test_images_are_the_same_files(root: Path) -> None:
    for name in ("voc/JPEGImages", "coco/train", "mask_folder/train"):
        assert (root / name / "train_0000.jpg").read_bytes() == (
            root / "voc/JPEGImages/train_0000.jpg"
        ).read_bytes()


def test_boxes_enclose_their_pixels_and_areas_count_them(root: Path) -> None:
    coco = load(root, layout="coco", tasks=["detect", "segment"])
    for index in range(len(coco)):
        sample = coco[index]
        for (x1, y1, x2, y2), label, area in zip(
            sample.boxes.astype(int), sample.labels, sample.areas, strict=True
        ):
            inside = sample.segmentation[y1:y2, x1:x2] == label + 1
            assert inside.any(axis=0)[[0, -1]].all() and inside.any(axis=1)[[0, -1]].all()  # the box is tight
            assert 40 <= area <= inside.sum()


def test_the_coco_file_has_the_warts_of_coco(root: Path) -> None:
    file = json.loads((root / "coco" / "annotations" / "instances_train.json").read_text())
    ids = [category["id"] for category in file["categories"]]
    assert ids != list(range(1, 7)) and len(ids) == 6
    assert {type(found["segmentation"]["counts"]) for found in file["annotations"]} == {str, list}
    assert {found["image_id"] for found in file["annotations"]} < {image["id"] for image in file["images"]}


def test_the_xml_and_the_palette_are_voc_s(root: Path) -> None:
    tags = {
        leaf.tag: leaf.text
        for path in (root / "voc" / "Annotations").iterdir()
        for leaf in ElementTree.parse(path).getroot().iter()
    }
    assert {"truncated", "occluded", "difficult", "xmin", "segmented", "depth"} <= tags.keys()
    with Image.open(root / "voc" / "SegmentationClass" / "train_0000.png") as mask:
        assert mask.mode == "P" and mask.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]  # type: ignore[index]
    assert voc_palette()[15 * 3 : 16 * 3] == [192, 128, 128] and voc_palette()[-3:] == [224, 224, 192]


def test_scenes_come_from_the_seed_alone() -> None:
    arguments: dict[str, Any] = {"split": "train", "index": 5, "height": 64, "width": 80}
    first, again = still_scene(seed=1, **arguments), still_scene(seed=1, **arguments)
    assert np.array_equal(first.image, again.image) and np.array_equal(first.owners, again.owners)
    for other in ({"seed": 2}, {"seed": 1, "split": "val"}, {"seed": 1, "index": 6}):
        assert not np.array_equal(first.image, still_scene(**{**arguments, **other}).image)


def test_a_set_is_made_once(root: Path) -> None:
    before = (
        (root / STAMP).stat().st_mtime_ns,
        (root / "voc" / "JPEGImages" / "train_0000.jpg").stat().st_mtime_ns,
    )
    assert load(root, split="val").ids == ["val_0000", "val_0001"] and load(root, split="test").ids == [
        "test_0000"
    ]
    assert before == (
        (root / STAMP).stat().st_mtime_ns,
        (root / "voc" / "JPEGImages" / "train_0000.jpg").stat().st_mtime_ns,
    )


TINY: dict[str, Any] = {"counts": {"train": 1, "val": 1, "test": 1}, "height": 32, "width": 40, "seed": 0}


def test_other_parameters_make_it_anew(tmp_path: Path) -> None:
    root = generate_shapes(tmp_path / "deep" / "shapes", **TINY)
    (root / "voc" / "left_over.txt").touch()
    picture = (root / "coco" / "train" / "train_0000.jpg").read_bytes()
    generate_shapes(root, **{**TINY, "seed": 1})
    assert (root / "coco" / "train" / "train_0000.jpg").read_bytes() != picture
    assert not (root / "voc" / "left_over.txt").exists()
    assert [path.name for path in root.parent.iterdir()] == ["shapes"]  # nothing half-made is left beside it


def test_an_empty_folder_is_filled_and_a_link_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "shapes").symlink_to(tmp_path / "elsewhere")
    generate_shapes(tmp_path / "shapes", **TINY)
    assert (tmp_path / "shapes").is_symlink() and (tmp_path / "elsewhere" / STAMP).is_file()


@pytest.mark.parametrize("stamp", [None, "not json", "[]"])
def test_foreign_folders_are_left_alone(tmp_path: Path, stamp: str | None) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    if stamp is not None:
        (tmp_path / STAMP).write_text(stamp)
    with pytest.raises(
        ValueError,
        match=r"holds something that the shapes generator did not make .*give a new or an empty folder",
    ):
        generate_shapes(tmp_path, **TINY)
    assert (tmp_path / "precious.txt").read_text() == "mine"
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="holds something"):
        generate_shapes(tmp_path / "file", **TINY)


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("disk full")

    monkeypatch.setattr(shapes_module, "still_scene", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        generate_shapes(tmp_path / "shapes", **TINY)
    assert not any(tmp_path.iterdir())


def _racing(action: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets ``action`` happen while the set is being written."""
    drawn = still_scene

    def draw(**arguments: Any) -> Any:
        monkeypatch.setattr(shapes_module, "still_scene", drawn)
        action()
        return drawn(**arguments)

    monkeypatch.setattr(shapes_module, "still_scene", draw)


def test_two_processes_may_start_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "shapes"
    _racing(lambda: generate_shapes(root, **TINY), monkeypatch)
    generate_shapes(root, **TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["shapes"] and (root / STAMP).is_file()


def test_the_mask_folder_layout_has_no_boxes(root: Path) -> None:
    with pytest.raises(
        ValueError, match=r"layout: mask_folder has masks only; give tasks: \[segment\], not \['detect'\]"
    ):
        load(root, layout="mask_folder")


@pytest.mark.parametrize(
    "option", [{"split": "all"}, {"layout": "yolo"}, {"train_images": 0}, {"height": 8}, {"seed": -1}]
)
def test_bad_options_name_themselves(tmp_path: Path, option: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=rf"data\.{next(iter(option))}: "):
        load_dataset({"format": "shapes", "root": str(tmp_path), **option})


LOOK = Texture("plain", (np.array([1.0, 0, 0]), np.array([0, 1.0, 0])), 2.0, 0.0, 0)


@pytest.mark.parametrize("kind", range(len(CLASSES)))
def test_masks_turn_and_move_with_the_shape(kind: int) -> None:
    upright = Shape(kind, 30.0, 30.0, 20.0, 0.0, LOOK)
    mask, area = footprint(upright, 60, 60)
    turned, _ = footprint(replace(upright, angle=np.pi / 2), 60, 60)
    assert area == mask.sum() and np.array_equal(turned, np.rot90(mask, -1))
    moved, same_area = footprint(replace(upright, x=35.0), 60, 60)
    assert np.array_equal(moved[:, 5:], mask[:, :-5]) and same_area == area
    _, twice = footprint(replace(upright, radius=40.0), 60, 60)
    assert twice == pytest.approx(4 * area, rel=0.08)  # parts outside the picture count
    corner = signed_distance(kind, np.array([5.0]), np.array([5.0]))
    assert corner > 1


def test_the_front_shape_owns_the_pixels() -> None:
    shapes = [
        Shape(0, 20.0, 20.0, 15.0, 0.0, LOOK),
        Shape(1, 20.0, 20.0, 8.0, 0.3, LOOK),
        Shape(2, 200.0, 20.0, 8.0, 0.0, LOOK),
    ]
    scene = draw_scene(np.zeros((40, 40, 3), np.float32), shapes)
    assert set(np.unique(scene.owners)) == {-1, 0, 1} and scene.owners[20, 20] == 1
    back, front = scene_objects(scene)  # the third lies outside
    assert back.occluded and not front.occluded and not back.mask[20, 20] and front.mask[20, 20]
    assert np.array_equal(scene_mask(scene), np.where(front.mask, 2, np.where(back.mask, 1, 0)))


def test_mostly_hidden_objects_are_difficult_and_cut_ones_truncated() -> None:
    hidden = [
        Shape(0, 20.0, 20.0, 10.0, 0.0, LOOK),
        Shape(0, 23.0, 20.0, 11.0, 0.0, LOOK),
        Shape(0, 60.0, 2.0, 8.0, 0.0, LOOK),
    ]
    back, front, cut = scene_objects(draw_scene(np.zeros((40, 80, 3), np.float32), hidden))
    assert (back.difficult, back.truncated, back.occluded) == (True, False, True)
    assert (front.difficult, front.truncated, front.occluded) == (False, False, False)
    assert (cut.difficult, cut.truncated, cut.occluded) == (False, True, False)


def test_clips_move_smoothly_and_repeat() -> None:
    scenes = list(clip_scenes(seed=4, frames=30, height=64, width=96))
    assert scenes[0].image.shape == (64, 96, 3) and len(scenes) == 30
    places = np.array([[(shape.x, shape.y) for shape in scene.shapes] for scene in scenes])
    steps = np.abs(np.diff(places, axis=0))
    assert 0 < steps.max() < 0.02 * 64 * 1.5
    assert (places >= 0).all() and (places <= [96, 64]).all()
    again = list(clip_frames(seed=4, frames=3, height=64, width=96))
    assert all(np.array_equal(scene.image, frame) for scene, frame in zip(scenes[:3], again, strict=True))


def test_a_clip_as_pictures_and_as_video(tmp_path: Path) -> None:
    import av

    folder = write_clip(tmp_path / "frames", seed=1, frames=3, height=48, width=64)
    assert [path.name for path in sorted(folder.iterdir())] == ["0000.png", "0001.png", "0002.png"]
    with pytest.raises(
        ValueError, match=r"frames is not empty; give a new folder .* or a path that ends in \.mp4"
    ):
        write_clip(folder, frames=1)
    video = write_clip(tmp_path / "deep" / "clip.mp4", seed=1, frames=8, height=48, width=64)
    with av.open(str(video)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    expected = list(clip_frames(seed=1, frames=8, height=48, width=64))
    assert len(frames) == 8 and np.abs(frames[4].astype(int) - expected[4]).mean() < 12
    with pytest.raises(ValueError, match=r"H\.264 needs even sides, not 63x48"):
        write_clip(tmp_path / "odd.mp4", frames=1, height=48, width=63)
