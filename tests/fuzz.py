"""Good files of every kind that vistasks reads, how each is read, and damage: what `test_fuzz` puts
together.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.tiny_data import CLASSES, config_values, mask_data, scene, voc_data, voc_xml, write_mask_folder
from vistasks.backbones.weights import read_state
from vistasks.build import build_dataset, build_loader, build_pipeline
from vistasks.checkpoint import CHECKSUM, HEADER, checksum, read_checkpoint, save_checkpoint
from vistasks.config import load_config, parse_config
from vistasks.loading.image_sources import DiskCache, WholeFiles
from vistasks.models.building import build_model
from vistasks.proposals.cache import CachedProposals
from vistasks.proposals.methods import Grid
from vistasks.training.run_folder import keep_finished_steps, restored_progress
from vistasks.training.search import read_space
from vistasks.types import ClassNames, Sample


@dataclass(frozen=True)
class Case:
    """A file and what reads it; ``read`` returns the faults that it skipped and counted, or raises.

    ``hard``: damage must not pass unseen, since there is a checksum. ``names``: what else may stand for it.
    """

    path: Path
    read: Callable[[], list[str]]
    hard: bool = False
    names: str = ""

    def named_in(self, text: str) -> bool:
        """Whether a message says which file it is about."""
        return self.path.stem in text or bool(self.names and self.names in text)


def damaged(content: bytes, draws: np.random.Generator) -> bytes:
    """Some bytes flipped, cut off, cut out, doubled or overwritten with zeros."""
    changed, length = bytearray(content), len(content)
    kind = draws.integers(6)
    start = int(draws.integers(length))
    end = min(length, start + 1 + int(draws.integers(64)))
    if kind <= 1:
        for place in draws.integers(length, size=int(draws.integers(1, 9))):
            changed[place] ^= int(draws.integers(1, 256))
    elif kind == 2:
        del changed[start:]
    elif kind == 3:
        del changed[start:end]
    elif kind == 4:
        changed[start:start] = changed[start:end]
    else:
        changed[start:end] = bytes(end - start)
    return bytes(changed)


def voc_cases(root: Path) -> dict[str, Case]:
    """A picture, a mask, an xml file and a list of a VOC folder, read under both policies."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main", "SegmentationClass"):
        (root / folder).mkdir(parents=True)
    for number in range(2):
        image, mask, objects = scene(number)
        Image.fromarray(image).save(
            root / "JPEGImages" / f"s{number}.jpg", quality=85, progressive=number == 1
        )
        Image.fromarray(mask).save(root / "SegmentationClass" / f"s{number}.png")
        (root / "Annotations" / f"s{number}.xml").write_text(voc_xml(f"s{number}.jpg", image.shape, objects))
    (root / "ImageSets/Main/train.txt").write_text("s0\ns1\n")
    values = config_values(root / "run", {**voc_data(root), "val": {}}, "detection", "segmentation")
    both = [read_all(values, policy) for policy in ("raise", "skip")]

    def read() -> list[str]:
        skipped = both[1]()  # first: it must not raise where a picture alone is damaged
        return skipped or both[0]()

    names = {"jpg": "JPEGImages/s0.jpg", "progressive jpg": "JPEGImages/s1.jpg", "png": "SegmentationClass/s0.png",
             "xml": "Annotations/s1.xml", "list": "ImageSets/Main/train.txt"}  # fmt: skip
    # a name that is wrong in a list is told by the file that it would be
    return {
        kind: Case(root / name, read, names="list" if kind == "list" else "") for kind, name in names.items()
    }


def read_all(values: dict[str, Any], policy: str) -> Callable[[], list[str]]:
    """Opens the training data and loads every picture once; what was skipped."""
    config = parse_config({**values, "data": {**values["data"], "on_error": policy}})

    def read() -> list[str]:
        data = build_dataset(config, "train")
        pipeline = build_pipeline(config, data, training=False)
        _, loader = build_loader(config, pipeline, classes=data.classes, divisor=32, training=False)
        for _ in loader:
            pass
        return [*data.skipped, *loader.skipped.values()]

    return read


def coco_cases(root: Path) -> dict[str, Case]:
    """An instances json with polygons and run lengths, and a panoptic one."""
    (root / "train").mkdir(parents=True)
    (root / "panoptic").mkdir()
    images, annotations, segments = [], [], []
    for number in range(2):
        image, mask, objects = scene(number)
        Image.fromarray(image).save(root / "train" / f"s{number}.jpg")
        height, width = mask.shape
        images.append({"id": number, "file_name": f"s{number}.jpg", "height": height, "width": width})
        for index, (name, (x1, y1, x2, y2)) in enumerate(objects):
            polygon: Any = [[x1, y1, x2, y1, x2, y2, x1, y2]]
            if index:
                pixels = (mask == CLASSES.index(name) + 1).flatten(order="F")
                ends = [0, *(np.flatnonzero(np.diff(pixels)) + 1).tolist(), len(pixels)]
                polygon = {"size": [height, width], "counts": np.diff(ends).tolist()}
            found = {"id": 10 * number + index, "image_id": number, "category_id": CLASSES.index(name) + 1}
            annotations.append(
                {
                    **found,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": 1.0,
                    "iscrowd": 0,
                    "segmentation": polygon,
                }
            )
        Image.fromarray(np.dstack([mask, 0 * mask, 0 * mask])).save(root / "panoptic" / f"s{number}.png")
        ids = [{"id": int(i), "category_id": int(i), "iscrowd": 0} for i in np.unique(mask) if i]
        segments.append({"image_id": number, "file_name": f"s{number}.png", "segments_info": ids})
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(CLASSES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "a.json").write_text(json.dumps(content))
    (root / "p.json").write_text(json.dumps({"annotations": segments, "categories": categories}))
    part = {"images": "train", "annotations": "a.json"}
    data = {"format": "coco", "root": str(root), "train": part}
    instances = config_values(root / "run", data, "detection", "segmentation")
    panoptic = {
        **data,
        "train": {**part, "semantic": "panoptic", "semantic_png": "panoptic", "panoptic_json": "p.json"},
    }
    return {
        "json": Case(root / "a.json", read_all(instances, "raise")),
        "json skipped": Case(root / "a.json", read_all(instances, "skip")),
        "panoptic json": Case(
            root / "p.json", read_all(config_values(root / "run", panoptic, "segmentation"), "raise")
        ),
    }


def cache_cases(root: Path) -> dict[str, Case]:
    """Entries of the picture cache and of the proposal cache; damaged ones are made again, the same."""
    root.mkdir()
    image, _, _ = scene(0)
    Image.fromarray(image).save(root / "a.png")
    pictures, path = DiskCache(WholeFiles(), root / "pictures"), str(root / "a.png")
    expected = pictures.read(0, path, (64, 64))
    sample, grid = Sample("a", path, image), Grid(sizes=[0.5], stride=0.5)
    grid.key = "grid"
    proposals = CachedProposals(grid, root / "proposals")
    boxes = proposals(sample)

    def read_picture() -> list[str]:
        assert np.array_equal(pictures.read(0, path, (64, 64)), expected)
        return []

    def read_proposals() -> list[str]:
        assert np.array_equal(proposals(sample), boxes)
        return []

    return {
        "npz": Case(pictures.entry(path), read_picture),
        "proposals": Case(proposals.path(image), read_proposals),
    }


def state_cases(root: Path) -> dict[str, Case]:
    """A checkpoint, its json header with a checksum that fits, weights of others, metrics.jsonl, a config and
    a search space.
    """
    root.mkdir()
    values = config_values(root / "run", mask_data(write_mask_folder(root / "data", count=1)), "segmentation")
    config, classes = parse_config(values), ClassNames((), ("background", *CLASSES))
    model = build_model(config.model, classes)
    state = {
        "epoch": 1,
        "step": 4,
        "position": 0,
        "best": 0.5,
        "best_epoch": 1,
        "results": {"mIoU": 0.5},
        "optimizer_groups": [],
    }
    tensors = {f"model.{name}": value for name, value in list(model.state_dict().items())[:3]}
    save_checkpoint(root / "last.safetensors", tensors, config=config, classes=classes, state=state)
    with safe_open(root / "last.safetensors", framework="pt") as file:
        header = file.metadata()[HEADER]
    (root / "state.json").write_text(header)
    save_file(load_file(root / "last.safetensors"), root / "weights.safetensors")
    torch.save(dict(tensors), root / "weights.pth")
    lines = [{"step": step, "epoch": 0, "loss": 1.5} for step in range(1, 9)]
    (root / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (root / "config.yaml").write_text(yaml.safe_dump(values))
    (root / "space.yaml").write_text(
        "train.optimizer.lr: {low: 1e-5, high: 1e-1, log: true}\nseed: {choices: [1, 2]}\n"
    )

    def read_header() -> list[str]:
        text = (root / "state.json").read_text(encoding="utf-8", errors="replace").replace("\0", " ")
        plain = load_file(root / "weights.safetensors")
        path = root / "state.safetensors"
        save_file(plain, path, {HEADER: text, CHECKSUM: checksum(text, plain)})
        found = read_checkpoint(path)
        restored_progress(found, classes, 4)
        return []

    def read_config() -> list[str]:
        load_config(root / "config.yaml")
        return []

    def read(function: Callable[..., Any], *arguments: Any) -> Callable[[], list[str]]:
        def run() -> list[str]:
            function(*arguments)
            return []

        return run

    return {
        "safetensors": Case(
            root / "last.safetensors", read(read_checkpoint, root / "last.safetensors"), hard=True
        ),
        "state json": Case(root / "state.json", read_header),
        "weights": Case(root / "weights.safetensors", read(read_state, root / "weights.safetensors")),
        "pth": Case(root / "weights.pth", read(read_state, root / "weights.pth")),
        "metrics": Case(root / "metrics.jsonl", read(keep_finished_steps, root / "metrics.jsonl", 4, 1)),
        "yaml": Case(root / "config.yaml", read_config),
        "space": Case(root / "space.yaml", read(read_space, root / "space.yaml")),
    }
