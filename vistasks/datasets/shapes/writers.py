"""Scenes of shapes -> the three layouts (VOC, COCO, mask folder), as other people's tools write them; and
clips.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from vistasks.datasets.shapes.drawing import CLASSES, Scene
from vistasks.datasets.shapes.scenes import SceneObject, clip_frames, scene_mask, scene_objects

JPEG_QUALITY = 92
CATEGORY_IDS = (3, 7, 8, 21, 44, 90)  # with gaps and not from 1, as COCO's own are


def voc_palette() -> list[int]:
    """The 256 RGB colours of VOC's masks, flat: the bits of the index dealt to the channels from the top."""
    indices = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.int64)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (indices >> (3 * bit + channel) & 1) << (7 - bit)
    return [int(value) for value in colours.reshape(-1)]


class ShapesWriter:
    """Writes one scene after another under ``root/voc``, ``root/coco`` and ``root/mask_folder``; `finish`
    writes the lists.
    """

    def __init__(self, root: Path) -> None:
        self._voc, self._coco, self._folder = root / "voc", root / "coco", root / "mask_folder"
        for name in (
            "Annotations",
            "JPEGImages",
            "SegmentationClass",
            "ImageSets/Main",
            "ImageSets/Segmentation",
        ):
            (self._voc / name).mkdir(parents=True)
        (self._coco / "annotations").mkdir(parents=True)
        self._names: dict[str, list[str]] = {}
        self._instances: dict[str, dict[str, Any]] = {}

    def add(self, split: str, name: str, scene: Scene) -> None:
        """One scene in all three layouts, the picture's bytes the same in each."""
        if split not in self._names:
            for folder in (self._coco / split, self._folder / split, self._folder / f"{split}annot"):
                folder.mkdir(parents=True)
        self._names.setdefault(split, []).append(name)
        objects = scene_objects(scene)
        buffer = io.BytesIO()
        Image.fromarray(scene.image).save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
        for folder in (self._voc / "JPEGImages", self._coco / split, self._folder / split):
            (folder / f"{name}.jpg").write_bytes(buffer.getvalue())
        mask = Image.fromarray(scene_mask(scene))
        mask.save(self._folder / f"{split}annot" / f"{name}.png")
        mask.putpalette(voc_palette())
        mask.save(self._voc / "SegmentationClass" / f"{name}.png")
        _write_xml(self._voc / "Annotations" / f"{name}.xml", scene, objects)
        self._add_instances(split, name, scene, objects)

    def _add_instances(self, split: str, name: str, scene: Scene, objects: Iterable[SceneObject]) -> None:
        file = self._instances.setdefault(split, _empty_instances())
        height, width = scene.owners.shape
        image_id = 1000 + 7 * len(file["images"])
        file["images"].append({"id": image_id, "file_name": f"{name}.jpg", "height": height, "width": width})
        for found in objects:
            x1, y1, x2, y2 = found.box
            number = len(file["annotations"]) + 1
            file["annotations"].append(
                {
                    "id": number,
                    "image_id": image_id,
                    "category_id": CATEGORY_IDS[found.label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": int(found.mask.sum()),
                    "iscrowd": 0,
                    "segmentation": _rle(found.mask, compressed=number % 2 == 0),
                    "difficult": int(found.difficult),  # not COCO's; our reader takes it, others pass it by
                }
            )

    def finish(self) -> None:
        """The split lists and the json files."""
        for split, names in self._names.items():
            for task in ("Main", "Segmentation"):
                (self._voc / "ImageSets" / task / f"{split}.txt").write_text(
                    "".join(f"{name}\n" for name in names), encoding="utf-8"
                )
            (self._coco / "annotations" / f"instances_{split}.json").write_text(
                json.dumps(self._instances[split]), encoding="utf-8"
            )


def _empty_instances() -> dict[str, Any]:
    categories = [
        {"id": number, "name": name, "supercategory": "shape"}
        for number, name in zip(CATEGORY_IDS, CLASSES, strict=True)
    ]
    return {"images": [], "annotations": [], "categories": categories}


def _rle(mask: np.ndarray, *, compressed: bool) -> dict[str, Any]:
    """COCO's run lengths down the columns, as compressed text or as plain counts."""
    if compressed:
        encoded = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
        return {"size": list(mask.shape), "counts": encoded["counts"].decode("ascii")}
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, len(flat)]).tolist()
    return {
        "size": list(mask.shape),
        "counts": [0, *counts] if flat[0] else counts,
    }  # the first run is of zeros


def _write_xml(path: Path, scene: Scene, objects: Iterable[SceneObject]) -> None:
    root = ElementTree.Element("annotation")
    _leaf(root, "folder", "JPEGImages")
    _leaf(root, "filename", f"{path.stem}.jpg")
    size = ElementTree.SubElement(root, "size")
    height, width = scene.owners.shape
    for tag, value in (("width", width), ("height", height), ("depth", 3)):
        _leaf(size, tag, value)
    _leaf(root, "segmented", 1)
    for found in objects:
        element = ElementTree.SubElement(root, "object")
        for tag, text in (("name", CLASSES[found.label]), ("pose", "Unspecified")):
            _leaf(element, tag, text)
        for tag, flag in (
            ("truncated", found.truncated),
            ("occluded", found.occluded),
            ("difficult", found.difficult),
        ):
            _leaf(element, tag, int(flag))
        box = ElementTree.SubElement(element, "bndbox")
        x1, y1, x2, y2 = found.box
        # VOC's corners count from 1 and belong to the box
        for tag, value in (("xmin", x1 + 1), ("ymin", y1 + 1), ("xmax", x2), ("ymax", y2)):
            _leaf(box, tag, value)
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(path, encoding="utf-8")


def _leaf(parent: ElementTree.Element, tag: str, value: object) -> None:
    ElementTree.SubElement(parent, tag).text = str(value)


def write_clip(
    path: str | Path,
    *,
    seed: int = 7,
    frames: int = 75,
    height: int = 240,
    width: int = 320,
    shapes: int = 5,
    fps: int = 25,
) -> Path:
    """Writes `clip_frames` and returns the path.

    A path that ends in .mp4, .mkv or .mov becomes an H.264 video (sides must be even), any other path a
    folder with 0000.png, 0001.png, ...; a folder that holds anything already is a ``ValueError``."""
    target = Path(path)
    pictures = clip_frames(seed=seed, frames=frames, height=height, width=width, shapes=shapes)
    if target.suffix.lower() in (".mp4", ".mkv", ".mov"):
        target.parent.mkdir(parents=True, exist_ok=True)
        _write_video(target, pictures, height, width, fps)
        return target
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise ValueError(
            f"{target} is not empty; give a new folder for the clip's frames, or a path that ends in .mp4"
        )
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(target / f"{number:04d}.png")
    return target


def _write_video(path: Path, pictures: Iterable[np.ndarray], height: int, width: int, fps: int) -> None:
    import av  # loads FFmpeg's libraries, which readers of pictures do not need

    if height % 2 or width % 2:
        raise ValueError(f"{path}: H.264 needs even sides, not {width}x{height}")
    with av.open(str(path), mode="w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
