"""Writes small VOC folders for the tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

Box = tuple[object, object, object, object]
Object = tuple[str, Box]

HEIGHT, WIDTH = 40, 60


def write_image(path: Path, *, height: int = HEIGHT, width: int = WIDTH) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(path)


def write_mask(path: Path, values: np.ndarray | int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.fromarray(np.broadcast_to(np.asarray(values, dtype=np.uint8), (HEIGHT, WIDTH)).copy())
    mask.putpalette([17] * 768)
    mask.save(path)


def xml_text(
    objects: Sequence[Object],
    *,
    filename: str | None = "a.jpg",
    size: tuple[int, int] | None = (HEIGHT, WIDTH),
    extra: str = "",
) -> str:
    parts = ["<annotation>"]
    if filename is not None:
        parts.append(f"<filename>{filename}</filename>")
    if size is not None:
        parts.append(f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>")
    for name, (x1, y1, x2, y2) in objects:
        box = f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
        parts.append(f"<object><name>{name}</name>{extra}<bndbox>{box}</bndbox></object>")
    return "".join([*parts, "</annotation>"])


def write_xml(path: Path, objects: Sequence[Object], **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(xml_text(objects, **{"filename": f"{path.stem}.jpg", **options}), encoding="utf-8")  # type: ignore[arg-type]


def write_list(root: Path, name: str, lines: Sequence[str], *, folder: str = "Main") -> None:
    path = root / "ImageSets" / folder / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def voc_folder(root: Path, images: dict[str, Sequence[Object]], **options: object) -> Path:
    """A devkit folder with these objects per image, and the list ``train`` of all of them."""
    for stem, objects in images.items():
        write_image(root / "JPEGImages" / f"{stem}.jpg")
        write_xml(root / "Annotations" / f"{stem}.xml", objects, **options)
    write_list(root, "train", list(images))
    return root
