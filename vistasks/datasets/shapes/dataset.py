"""Our own generated data set: textured shapes with boxes, difficult flags and masks, made on first use from a
seed.

It is written in VOC, COCO and mask-folder form at once and read back by those readers, so it is data like any
other:

    root/shapes.json      what it was made from (the stamp)
    root/voc/             Annotations, ImageSets, JPEGImages, SegmentationClass
    root/coco/            annotations/instances_<split>.json, <split>/
    root/mask_folder/     <split>/, <split>annot/
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from vistasks.datasets.annotations import Dataset
from vistasks.datasets.formats.coco import CocoDataset
from vistasks.datasets.formats.mask_folder import MaskFolderDataset
from vistasks.datasets.formats.voc import VocDataset
from vistasks.datasets.formats.voc_splits import Task
from vistasks.datasets.shapes.drawing import CLASSES
from vistasks.datasets.shapes.scenes import still_scene
from vistasks.datasets.shapes.writers import ShapesWriter
from vistasks.registry import DATASETS

STAMP = "shapes.json"
_GENERATOR = 2  # raised whenever the same seed gives other pictures

Count = Annotated[int, Field(ge=1)]
Side = Annotated[int, Field(ge=32)]


@DATASETS.register("shapes")
def shapes(
    *,
    root: str = "data/shapes",
    split: Literal["train", "val", "test"] = "train",
    layout: Literal["voc", "coco", "mask_folder"] = "voc",
    tasks: list[Task] = ["detect"],  # noqa: B006 (read only; pydantic needs a list)
    train_images: Count = 160,
    val_images: Count = 40,
    test_images: Count = 40,
    height: Side = 240,
    width: Side = 320,
    seed: Annotated[int, Field(ge=0)] = 7,
) -> Dataset:
    """One split of the generated set, read in the layout's own format; generated before if it is not there.

    Detection classes are `CLASSES`, segmentation classes background and then `CLASSES`. The layout
    mask_folder has no boxes: with it ``tasks`` must be ``[segment]``."""
    if layout == "mask_folder" and list(tasks) != ["segment"]:
        raise ValueError(
            f"layout: mask_folder has masks only; give tasks: [segment], not {list(tasks)}, or another layout"
        )
    counts = {"train": train_images, "val": val_images, "test": test_images}
    base = generate_shapes(root, counts=counts, height=height, width=width, seed=seed)
    classes = list(CLASSES)
    if layout == "mask_folder":
        return MaskFolderDataset(
            root=str(base / "mask_folder"), split=split, segmentation_classes=["background", *classes]
        )
    if layout == "coco":
        return CocoDataset(root=str(base / "coco"), split=split, classes=classes, tasks=tasks)
    return VocDataset(root=str(base / "voc"), split=split, classes=classes, tasks=tasks)


def generate_shapes(root: str | Path, *, counts: dict[str, int], height: int, width: int, seed: int) -> Path:
    """Makes the set under ``root`` unless one with the same stamp is there; returns ``root``.

    Everything is written into a folder beside ``root`` and moved into place when it is whole, so that a
    half-made set is never read and several processes may start at once. A set with another stamp is replaced;
    a folder that holds anything else is a ``ValueError`` and stays as it is."""
    target = Path(root).resolve() if Path(root).is_symlink() else Path(root)
    stamp = {"generator": _GENERATOR, "counts": counts, "height": height, "width": width, "seed": seed}
    if _read_stamp(target) == stamp:
        return target
    _refuse_foreign(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        fresh.chmod(0o755)  # mkdtemp's folders are for the owner alone
        writer = ShapesWriter(fresh)
        for split, count in counts.items():
            for index in range(count):
                name = f"{split}_{index:04d}"
                writer.add(
                    split, name, still_scene(seed=seed, split=split, index=index, height=height, width=width)
                )
        writer.finish()
        (fresh / STAMP).write_text(json.dumps(stamp, indent=1), encoding="utf-8")
        _move_into_place(fresh, target, stamp)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return target


def _read_stamp(root: Path) -> dict[str, object] | None:
    try:
        stamp = json.loads((root / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stamp if isinstance(stamp, dict) else None


def _refuse_foreign(root: Path) -> None:
    """A ``ValueError`` if there is something at ``root`` that is not a set of ours."""
    if not root.exists() or _read_stamp(root) is not None:
        return
    if not root.is_dir() or any(root.iterdir()):
        raise ValueError(
            f"root: {root.absolute()} holds something that the shapes generator did not make (it has no readable {STAMP}), "
            "so nothing is written there; give a new or an empty folder"
        )


def _move_into_place(fresh: Path, target: Path, stamp: dict[str, object]) -> None:
    """Replaces an older set (or nothing) by the new one. If another process came first with the same, its set
    stays.
    """
    if _read_stamp(target) == stamp:
        return
    old = fresh.with_name(f"{fresh.name}-old")
    try:
        with contextlib.suppress(FileNotFoundError):
            target.rename(old)
        fresh.rename(target)
    except OSError:
        if _read_stamp(target) != stamp:
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
