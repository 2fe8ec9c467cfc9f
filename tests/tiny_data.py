"""Data sets of a few small pictures, written by the tests themselves, and a config for each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vistasks.config import Config, parse_config

COLOURS = {"red": (220, 40, 30), "blue": (30, 60, 220)}
CLASSES = tuple(COLOURS)


def scene(
    index: int, *, side: int = 64, objects: int = 2
) -> tuple[np.ndarray, np.ndarray, list[tuple[str, list[int]]]]:
    """Picture (H, W, 3), mask (H, W) with 0 = background and i + 1 = class i, and (class, [x1, y1, x2, y2])
    of each rectangle.
    """
    generator = np.random.default_rng(index)
    image = generator.integers(90, 130, (side, side, 3), dtype=np.uint8)
    mask = np.zeros((side, side), dtype=np.uint8)
    found = []
    for number in range(objects):
        name = CLASSES[(index + number) % len(CLASSES)]
        width, height = generator.integers(side // 4, side // 2, 2)
        half = side // 2 * number  # one rectangle left, one right, so that none hides another
        x, y = (
            half + int(generator.integers(0, side // 2 - width + 1)),
            int(generator.integers(0, side - height + 1)),
        )
        box = [x, y, x + int(width), y + int(height)]
        image[box[1] : box[3], box[0] : box[2]] = COLOURS[name]
        mask[box[1] : box[3], box[0] : box[2]] = CLASSES.index(name) + 1
        found.append((name, box))
    return image, mask, found


def write_voc(
    root: Path, *, count: int = 6, masks: bool = True, empty: tuple[int, ...] = (), first: int = 0
) -> Path:
    """A VOC folder; the lists "train" and "val" both name all pictures. Pictures in ``empty`` have no
    object.
    """
    mask_folders = ["SegmentationClass", "ImageSets/Segmentation"] if masks else []
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main", *mask_folders):
        (root / folder).mkdir(parents=True, exist_ok=True)
    names = [f"scene_{first + index}" for index in range(count)]
    for index, name in enumerate(names):
        image, mask, objects = scene(first + index, objects=0 if index in empty else 2)
        Image.fromarray(image).save(root / "JPEGImages" / f"{name}.png")
        if masks:
            Image.fromarray(mask).save(root / "SegmentationClass" / f"{name}.png")
        (root / "Annotations" / f"{name}.xml").write_text(voc_xml(f"{name}.png", image.shape, objects))
    for split in ("train", "val"):
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
        if masks:
            (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(names) + "\n")
    return root


def voc_xml(filename: str, shape: tuple[int, ...], objects: list[tuple[str, list[int]]]) -> str:
    """VOC's file, whose corners are 1-based and inclusive."""
    parts = [
        f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, (x1, y1, x2, y2) in objects
    ]
    size = f"<size><width>{shape[1]}</width><height>{shape[0]}</height><depth>3</depth></size>"
    return f"<annotation><filename>{filename}</filename>{size}{''.join(parts)}</annotation>"


def write_mask_folder(root: Path, *, count: int = 6, first: int = 0) -> Path:
    """``images`` and ``masks`` with 0 = background, 1 = red, 2 = blue."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for index in range(first, first + count):
        image, mask, _ = scene(index)
        Image.fromarray(image).save(root / "images" / f"scene_{index}.png")
        Image.fromarray(mask).save(root / "masks" / f"scene_{index}.png")
    return root


def voc_data(root: Path) -> dict[str, Any]:
    """The data section for `write_voc`."""
    return {
        "format": "voc",
        "root": str(root),
        "classes": list(CLASSES),
        "train": {"split": "train"},
        "val": {"split": "val"},
    }


def mask_data(root: Path) -> dict[str, Any]:
    """The data section for `write_mask_folder`."""
    folders = {"images": "images", "masks": "masks"}
    values = {0: "background", 1: "red", 2: "blue"}
    return {
        "format": "mask_folder",
        "root": str(root),
        "mask_values": values,
        "train": folders,
        "val": folders,
    }


DETECTION = {
    "name": "region_classifier",
    "align": {"stride": 8, "size": 3},
    "hidden": [32],
    "sampling": {"per_image": 32, "foreground_fraction": 0.5, "background_iou": [0.0, 0.5]},
}
SEGMENTATION = {"name": "segnet"}
BACKBONE = {"name": "vgg11_bn", "width": 0.1}
GRID = {"method": {"name": "grid", "sizes": [0.5, 0.35], "stride": 0.5}, "cache": None}


def config_values(output: Path, data: Mapping[str, Any], *tasks: str, **train: Any) -> dict[str, Any]:
    """A config of a few seconds as plain values; ``train`` are values of its train section."""
    heads = {"detection": DETECTION, "segmentation": SEGMENTATION}
    settings: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 3,
        "workers": 0,
        "optimizer": {"lr": 2e-3},
        "schedule": {"name": "constant", "warmup_steps": 0},
        "accelerator": "cpu",
        "preflight": "none",
    }
    return {
        "output": str(output),
        "data": dict(data),
        "proposals": GRID,
        "model": {"backbone": BACKBONE, "heads": {task: heads[task] for task in tasks}},
        "train": settings | train,
    }


def tiny_config(output: Path, data: Mapping[str, Any], *tasks: str, **train: Any) -> Config:
    """`config_values`, checked."""
    return parse_config(config_values(output, data, *tasks, **train))
