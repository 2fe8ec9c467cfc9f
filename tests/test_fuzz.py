"""Damaged files of every kind: a clear error that names the file, or skipped and counted; never a library's
own traceback.

The default suite tries 100 of them, ``pytest -m slow`` 1,000.
"""

from __future__ import annotations

import json
import signal
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.fuzz import Case, cache_cases, coco_cases, damaged, state_cases, voc_cases
from tests.tiny_data import voc_xml
from vistasks.config import load_config
from vistasks.datasets import load_dataset

SECONDS = 60  # of one file, on a machine with much else to do; a hang is longer
TOLD = (ValueError, OSError)  # what the command line shows as one line


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    root = tmp_path_factory.mktemp("fuzz")
    return {
        **voc_cases(root / "voc"),
        **coco_cases(root / "coco"),
        **cache_cases(root / "caches"),
        **state_cases(root / "state"),
    }


@contextmanager
def limit(what: str) -> Iterator[None]:
    def stop(*_: object) -> None:
        pytest.fail(f"{what}: hangs")  # no Exception, so that nothing takes it for damage

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(case: Case, kind: str, seed: int) -> str:
    """Damages the file, reads it and puts it back; what happened, in a word."""
    good = case.path.read_bytes()
    bad = damaged(good, np.random.default_rng([seed, zlib.crc32(kind.encode())]))
    return "unchanged" if bad == good else judged(case, bad, f"{kind}, damage {seed}")


def judged(case: Case, bad: bytes, what: str) -> str:
    """Reads the file with these bytes and puts it back; what happened, in a word."""
    good = case.path.read_bytes()
    case.path.write_bytes(bad)
    try:
        with limit(what), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a cache entry is made again, and the like
            skipped = case.read()
    except TOLD as error:
        text = str(error)
        assert case.named_in(text), f"{what}: the file is not named: {text}"
        assert "Traceback" not in text and not isinstance(error, UnicodeError), f"{what}: {text}"
        return "told"
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__} reaches the user: {error}") from error
    finally:
        left = [path for path in case.path.parent.rglob("*") if ".tmp" in path.name]
        case.path.write_bytes(good)
    assert not left, f"{what}: half-written files: {left}"
    assert not case.hard, f"{what}: passed unseen"
    assert all(case.named_in(fault) for fault in skipped), f"{what}: {skipped}"
    return "skipped" if skipped else "harmless"


def fuzz(cases: dict[str, Case], count: int, first: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    kinds, wrong = list(cases), []
    for number in range(count):
        kind = kinds[number % len(kinds)]
        try:
            counts[f"{kind}: {outcome(cases[kind], kind, first + number)}"] += 1
        except AssertionError as error:
            wrong.append(str(error))
    assert not wrong, "\n".join([f"{len(wrong)} of {count}", *wrong])
    return counts


def test_a_hundred_damaged_files(cases: dict[str, Case]) -> None:
    counts = fuzz(cases, 100, 0)
    assert sum(counts.values()) == 100
    # the damage is real: most of it is seen where the format can see it
    for kind in ("png", "xml", "json", "safetensors", "yaml"):
        assert counts[f"{kind}: told"] + counts[f"{kind}: skipped"] > 0, counts


@pytest.mark.slow
def test_a_thousand_damaged_files(cases: dict[str, Case]) -> None:
    counts = fuzz(cases, 1000, 1000)
    print(json.dumps(dict(sorted(counts.items())), indent=1))
    assert sum(counts.values()) == 1000


OUTSIDE = ["../secret.png", "/etc/hostname", "a/../../../secret.png", "..\\..\\secret.png", "C:\\secret.png", "C:secret.png",
           "\\\\host\\share\\a.png", "a\0.png", ""]  # fmt: skip


def further_out(name: str) -> str:
    """The name as seen from a folder of the root, and something outside for an empty one, which a list cannot
    hold.
    """
    return f"../{name}" if name.startswith("..") else name or "../../secret.png"


def by_voc_file(root: Path, name: str) -> Any:
    (root / "a.xml").write_text(voc_xml(name.replace("\0", "&#0;"), (8, 8, 3), []))
    return {"format": "voc", "root": str(root), "classes": ["red"]}


def by_voc_list(root: Path, name: str) -> Any:
    for folder in ("Annotations", "JPEGImages", "ImageSets"):
        (root / folder).mkdir()
    (root / "ImageSets" / "train.txt").write_text(f"{further_out(name)}\n")
    return {"format": "voc", "root": str(root), "classes": ["red"], "split": "train"}


def coco_json(root: Path, name: str, **more: Any) -> None:
    images = [{"id": 1, "file_name": name, "height": 8, "width": 8}]
    categories = [{"id": 1, "name": "red"}]
    (root / "a.json").write_text(
        json.dumps({"images": images, "annotations": [], "categories": categories, **more})
    )


def by_coco_image(root: Path, name: str) -> Any:
    (root / "images").mkdir()
    coco_json(root, further_out(name))
    return {"format": "coco", "root": str(root), "images": "images", "annotations": "a.json"}


def by_coco_mask(root: Path, name: str) -> Any:
    """The picture lies within, two folders down; the mask of that name would not."""
    (root / "images" / "deep").mkdir(parents=True)
    (root / "masks").mkdir()
    Image.new("RGB", (8, 8)).save(root / "secret.png")
    coco_json(root, "../../secret.png" if name else "")
    where = {
        "semantic": "png",
        "semantic_png": "masks",
        "mask_values": {0: "red"},
        "segmentation_classes": ["red"],
    }
    return {
        "format": "coco",
        "root": str(root),
        "images": "images/deep",
        "annotations": "a.json",
        "tasks": ["segment"],
        **where,
    }


def by_panoptic(root: Path, name: str) -> Any:
    (root / "images").mkdir()
    (root / "panoptic").mkdir()
    Image.new("RGB", (8, 8)).save(root / "images" / "a.png")
    coco_json(root, "a.png")
    segments = [{"image_id": 1, "file_name": further_out(name), "segments_info": []}]
    (root / "p.json").write_text(
        json.dumps({"annotations": segments, "categories": [{"id": 1, "name": "red"}]})
    )
    where = {"semantic": "panoptic", "semantic_png": "panoptic", "panoptic_json": "p.json"}
    return {
        "format": "coco",
        "root": str(root),
        "images": "images",
        "annotations": "a.json",
        "tasks": ["segment"],
        **where,
    }


def by_mask_list(root: Path, name: str) -> Any:
    for folder in ("images", "masks"):
        (root / folder).mkdir()
        Image.new("L", (8, 8)).save(root / folder / "a.png")
    (root / "list.txt").write_text(f"{further_out(name)}\n")
    values = {"images": "images", "masks": "masks", "list_file": "list.txt", "mask_values": {0: "red"}}
    return {"format": "mask_folder", "root": str(root), **values}


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize(
    "write", [by_voc_file, by_voc_list, by_coco_image, by_coco_mask, by_panoptic, by_mask_list]
)
def test_no_path_in_an_annotation_leaves_the_data_root(
    tmp_path: Path, write: Callable[[Path, str], Any], name: str
) -> None:
    root = tmp_path / "outer" / "root"
    root.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "outer" / "secret.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    options = write(root, name)
    with pytest.raises(
        ValueError, match=r"points outside the data folder|not well-formed XML|no image of this name"
    ):
        pytest.fail(f"read {list(load_dataset(options).paths)}")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", "[" * 100_000),
        ("a.json", '{"images": [{"id": ' + "9" * 5000 + "}]}"),
        ("a.yaml", "output: 2024-99-99"),
        ("a.yaml", "[" * 1200),
        ("a.yaml", "seed: !!python/object/apply:os.getcwd []"),
        ("a.xml", '<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>'),
        ("a.xml", "<annotation>" + "<object>" * 20_000),
    ],
)
def test_files_made_to_do_harm_are_told(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    read: dict[str, Callable[[], Any]] = {
        ".json": lambda: load_dataset(
            {"format": "coco", "root": str(tmp_path), "images": ".", "annotations": name}
        ),
        ".yaml": lambda: load_config(path),
        ".xml": lambda: load_dataset({"format": "voc", "root": str(tmp_path), "classes": ["red"]}),
    }
    with limit(name), pytest.raises(ValueError, match=path.stem):
        read[path.suffix]()
