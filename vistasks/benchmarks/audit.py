"""``vistasks benchmark audit``: labels damaged on purpose in generated shapes, and how many of them `vistasks
audit` finds.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vistasks.checkpoint import read_checkpoint
from vistasks.checkpoint.foreign import refuse_withheld
from vistasks.config import DataConfig
from vistasks.datasets.shapes.drawing import CLASSES, Scene
from vistasks.datasets.shapes.scenes import scene_objects, still_scene
from vistasks.datasets.shapes.writers import ShapesWriter
from vistasks.evaluation.audit import audit
from vistasks.evaluation.audit.findings import Finding
from vistasks.heads.region_classifier import RegionClassifier
from vistasks.ops.box_arrays import overlaps
from vistasks.system.atomic import write_text

HEIGHT, WIDTH = 240, 320
FOUND = 0.5  # IoU from which on an entry is about a planted fault
SPLITS = {"train": 160, "test": 40}  # the second is not damaged


@dataclass(frozen=True)
class Planted:
    """A label that was removed ("given" is "") or changed: ``name`` is its class, ``box`` x1, y1, x2, y2 in
    pixels.
    """

    picture: str
    box: tuple[int, int, int, int]
    name: str
    given: str


def plant(root: Path, *, data_seed: int, removed: int, changed: int, seed: int) -> list[Planted]:
    """Writes generated shapes under ``root`` (VOC, COCO and masks), the training part with damaged labels;
    what was damaged.

    The same arguments damage the same labels. Boxes and masks are damaged alike, so that neither gives the
    other away; objects that are marked difficult are let alone. A ``ValueError`` where there are not so many
    labels."""
    if root.exists():
        shutil.rmtree(root)
    scenes = {
        (split, index): still_scene(seed=data_seed, split=split, index=index, height=HEIGHT, width=WIDTH)
        for split, count in SPLITS.items()
        for index in range(count)
    }
    labels = [(key, shape) for key, scene in scenes.items() if key[0] == "train" for shape in _easy(scene)]
    if removed < 0 or changed < 0 or not 0 < removed + changed <= len(labels):
        raise ValueError(
            f"--removed and --changed: from 1 to {len(labels)} labels together; received {removed} and {changed}"
        )
    generator = np.random.default_rng(seed)
    planted = []
    for number, chosen in enumerate(generator.permutation(len(labels))[: removed + changed].tolist()):
        key, shape = labels[chosen]
        others = [kind for kind in range(len(CLASSES)) if kind != scenes[key].shapes[shape].kind]
        given = None if number < removed else int(generator.choice(others))
        scenes[key], fault = _damaged(scenes[key], shape, given, f"{key[0]}_{key[1]:04d}")
        planted.append(fault)
    writer = ShapesWriter(root)
    for (split, index), scene in scenes.items():
        writer.add(split, f"{split}_{index:04d}", scene)
    writer.finish()
    return planted


def _seen(scene: Scene) -> list[int]:
    """The shapes of a scene of which something is in sight, as `scene_objects` has them."""
    return [index for index in range(len(scene.shapes)) if (scene.owners == index).any()]


def _easy(scene: Scene) -> list[int]:
    """The shapes of a scene that are labelled and not difficult."""
    return [index for index, found in zip(_seen(scene), scene_objects(scene)) if not found.difficult]


def _damaged(scene: Scene, shape: int, given: int | None, picture: str) -> tuple[Scene, Planted]:
    """A scene whose labels say ``given`` of a shape, or nothing, while the picture stays."""
    found = scene_objects(scene)[_seen(scene).index(shape)]
    fault = Planted(picture, found.box, CLASSES[found.label], "" if given is None else CLASSES[given])
    if given is None:
        return replace(scene, owners=np.where(scene.owners == shape, np.int16(-1), scene.owners)), fault
    shapes = tuple(
        replace(one, kind=given) if index == shape else one for index, one in enumerate(scene.shapes)
    )
    return replace(scene, shapes=shapes), fault


def benchmark(
    weights: str,
    output: Path,
    *,
    removed: int = 30,
    changed: int = 30,
    top: int = 60,
    data_seed: int = 8,
    seed: int = 0,
    device: str = "auto",
) -> dict[str, Any]:
    """Precision and recall of the ``top`` entries of an audit of damaged labels.

    Args:
        weights: a run on `shapes` with a detector; a checkpoint or a run folder.
        output: gets the damaged data (``data``), ``planted.json``, and the audit's list and page.
        removed: labels that are taken away.
        changed: labels that get another class.
        top: entries that count.
        data_seed: of the generated pictures; 7 is the one that `format: shapes` generates by default.
        seed: of the damage.
        device: "auto", "cpu" or "cuda".
    """
    checkpoint = read_checkpoint(weights)
    refuse_withheld(checkpoint.withheld, "proposals.", weights)
    config = checkpoint.config
    if RegionClassifier.task not in config.model.heads:
        raise ValueError(f"{weights}: the faults are planted in boxes, and this model has no detector")
    planted = plant(output / "data", data_seed=data_seed, removed=removed, changed=changed, seed=seed)
    write_text(output / "planted.json", json.dumps([asdict(fault) for fault in planted], indent=1))
    data = DataConfig.model_validate(
        {
            "format": "voc",
            "root": str(output / "data" / "voc"),
            "classes": list(CLASSES),
            "train": {"split": "train"},
        }
    )
    proposals = config.proposals.model_copy(update={"cache": str(output / "proposals")})
    config = config.model_copy(update={"data": data, "proposals": proposals})
    found = audit(config, weights, output, top=top, device=device)
    about = {
        "weights": weights,
        "pictures": found.pictures,
        "labels": found.labels,
        "data_seed": data_seed,
        "seed": seed,
    }
    return {**about, **score(found.judgement.faults, planted, top=top)}


def score(faults: Sequence[Finding], planted: Sequence[Planted], *, top: int) -> dict[str, Any]:
    """Precision and recall of the first ``top`` faults, and what they are; an entry counts once, if it lies
    on a fault.
    """
    open_faults = list(planted)
    hits: list[Planted] = []
    kinds: Counter[str] = Counter()
    wasted: Counter[str] = Counter()
    right_class = 0
    for entry in faults[:top]:
        here = [
            fault for fault in open_faults if fault.picture == Path(entry.path).stem and _about(entry, fault)
        ]
        if not here:
            wasted[entry.kind] += 1
            continue
        open_faults.remove(here[0])
        hits.append(here[0])
        kinds[entry.kind] += 1
        right_class += entry.suggested == here[0].name
    shown = min(top, len(faults))
    return {
        "planted": {
            "removed": sum(not fault.given for fault in planted),
            "changed": sum(bool(fault.given) for fault in planted),
        },
        "entries": len(faults),
        "top": shown,
        "precision": len(hits) / max(1, shown),
        "recall": len(hits) / len(planted),
        "removed_found": sum(not fault.given for fault in hits),
        "changed_found": sum(bool(fault.given) for fault in hits),
        "true_class_suggested": right_class,
        "found_as": dict(kinds),
        "false_entries": dict(wasted),
    }


def _about(entry: Finding, fault: Planted) -> bool:
    boxes = entry.box[None] if entry.better is None else np.stack([entry.box, entry.better])
    return bool(overlaps(boxes, np.array([fault.box], np.float32)).max() >= FOUND)
