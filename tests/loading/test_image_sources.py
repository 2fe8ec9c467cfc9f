"""Pixels from small decoding and from caches: the same samples, less work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vistasks.loading.image_sources as pictures
from tests.tiny_data import config_values, mask_data, voc_data, write_mask_folder, write_voc
from vistasks.build import build_dataset, build_loader, build_pipeline
from vistasks.config import Config, parse_config
from vistasks.datasets.images import read_image
from vistasks.loading.image_sources import (
    DiskCache,
    PicturesFrom,
    RamCache,
    ReducedFiles,
    WholeFiles,
    picture_sizes,
    read_entry,
)
from vistasks.types import Sample


def config(
    root: Path, data: dict[str, Any], *tasks: str, size: dict[str, int] | None = None, **options: Any
) -> Config:
    values = config_values(root / "run", {**data, **options}, *tasks)
    return parse_config({**values, "input": size or {}})


def same(a: Sample, b: Sample) -> bool:
    masks = (a.segmentation is None and b.segmentation is None) or np.array_equal(
        a.segmentation, b.segmentation
    )  # type: ignore[arg-type]
    return (
        np.array_equal(a.image, b.image)
        and np.array_equal(a.boxes, b.boxes)
        and masks
        and a.image_id == b.image_id
    )


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of 64x64 as smooth JPEGs, so that decoding small can be compared with shrinking."""
    root = write_voc(tmp_path_factory.mktemp("voc"), count=4)
    for path in (root / "JPEGImages").glob("*.png"):
        smooth = (
            Image.open(path).resize((8, 8), Image.Resampling.BOX).resize((64, 64), Image.Resampling.BICUBIC)
        )
        smooth.save(path.with_suffix(".jpg"), quality=95)
        path.unlink()
    return root


def test_reduced_decoding_scales_the_whole_sample(voc: Path) -> None:
    settings = config(voc, voc_data(voc), "segmentation", size={"min_side": 16}, decode="reduced")
    data = build_dataset(settings, "train")
    pipe = build_pipeline(settings, data, training=True)
    small, whole = pipe.dataset[0], data[0]
    assert small.size == (16, 16) and whole.size == (64, 64)
    shrunk = np.asarray(Image.fromarray(whole.image).resize((16, 16), Image.Resampling.BOX)).astype(int)
    assert (
        np.abs(small.image.astype(int) - shrunk).mean() < 2
    )  # grey levels: libjpeg's average against Pillow's
    assert np.array_equal(small.segmentation, whole.segmentation[2::4, 2::4])  # type: ignore[index,arg-type]
    evaluated = build_pipeline(settings, data, training=False)
    assert same(evaluated.dataset[0], whole)  # results are in the file's pixels
    boxes = build_dataset(config(voc, voc_data(voc), "detection"), "train")
    reduced = PicturesFrom(boxes, ReducedFiles(min_side=16, max_side=None))[0]
    assert np.allclose(reduced.boxes * 4, boxes[0].boxes) and np.allclose(reduced.areas * 16, boxes[0].areas)


CASES = [
    ((64, 64), 16, 4),
    ((64, 64), 17, 2),
    ((33, 70), 16, 2),
    ((33, 70), 4, 8),
    ((9, 9), 1, 8),
    ((64, 64), 64, 1),
]


@pytest.mark.parametrize(("size", "min_side", "divisor"), CASES)
def test_the_divisor_leaves_enough_pixels(
    tmp_path: Path, size: tuple[int, int], min_side: int, divisor: int
) -> None:
    source, path = ReducedFiles(min_side=min_side, max_side=None), str(tmp_path / "a.JPG")
    Image.new("RGB", size[::-1]).save(path, "JPEG")
    expected = (-(-size[0] // divisor), -(-size[1] // divisor))
    assert source.size(path, size) == expected and source.read(0, path, size).shape[:2] == expected
    Image.new("RGB", size[::-1]).save(tmp_path / "a.png")
    assert source.read(0, str(tmp_path / "a.png"), size).shape[:2] == size


def test_turned_pictures_are_reduced_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 32)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg", divisor=2).shape == (32, 16, 3)


def test_reduced_decoding_is_refused_where_proposals_look_at_pixels(voc: Path) -> None:
    values = config_values(voc / "run", {**voc_data(voc), "decode": "reduced"}, "detection")
    values["proposals"] = {"method": {"name": "selective_search"}, "cache": None}
    settings = parse_config(values)
    with pytest.raises(
        ValueError, match=r"data\.decode=reduced: selective_search would look at smaller images in training"
    ):
        build_pipeline(settings, build_dataset(settings, "train"), training=True)


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_a_cache_gives_the_same_samples_and_reads_each_file_once(
    voc: Path, tmp_path: Path, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(
        tmp_path, voc_data(voc), "detection", "segmentation", cache=cache, cache_folder=str(tmp_path / "kept")
    )
    data = build_dataset(settings, "train")
    plain = [data[index] for index in range(4)]
    cached = build_pipeline(settings, data, training=False).dataset
    assert all(same(cached[index], plain[index]) for index in range(4))
    monkeypatch.setattr(pictures, "read_image", lambda path, divisor=1: pytest.fail(f"{path} is read again"))
    for index in range(4):
        again = cached[index]
        assert same(again, plain[index])
        again.image[:] = 0  # what is done to a sample does not reach the cache
        assert same(cached[index], plain[index])


def test_workers_share_the_cache_in_memory(tmp_path: Path) -> None:
    root = write_mask_folder(tmp_path)
    settings = config(tmp_path, mask_data(root), "segmentation", cache="ram")
    data = build_dataset(settings, "train")
    pipe = build_pipeline(settings, data, training=False)
    settings = settings.model_copy(update={"train": settings.train.model_copy(update={"workers": 1})})
    _, loader = build_loader(settings, pipe, classes=data.classes, divisor=32, training=False)
    assert sum(len(batch) for batch, _ in loader) == len(data)
    for path in data.paths:
        Path(path).write_bytes(b"gone")
    assert all(
        pipe.dataset[index].size == (64, 64) for index in range(len(data))
    )  # here, though a worker decoded them


def test_too_many_pictures_for_the_memory_are_told_beforehand(
    voc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = build_dataset(config(voc, voc_data(voc), "detection"), "train")
    monkeypatch.setattr(pictures, "available_memory", lambda: 50_000)
    with pytest.raises(
        ValueError,
        match=r"data\.cache=ram: 4 decoded images take 0 MB, and 0 MB of memory are available; use",
    ):
        RamCache(WholeFiles(), data.paths, picture_sizes(data))


def test_entries_on_disk_follow_their_file_and_survive_damage(voc: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (5, 4), (1, 2, 3)).save(path)
    cache = DiskCache(WholeFiles(), tmp_path / "kept")
    first = cache.read(0, str(path), (4, 5))
    entry = cache.entry(str(path))
    assert np.array_equal(read_entry(entry), first)
    entry.write_bytes(entry.read_bytes()[:-30])
    with pytest.warns(
        UserWarning, match=r"\.npz: damaged entry of the image cache .*; the image is decoded again"
    ):
        assert np.array_equal(cache.read(0, str(path), (4, 5)), first)
    assert np.array_equal(read_entry(entry), first)  # mended
    np.savez(entry, image=np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"damaged entry of the image cache \(it holds \(2, 2\) float64\)"):
        read_entry(entry)
    Image.new("RGB", (6, 4), (9, 9, 9)).save(path)  # a new file under the same name
    assert cache.read(0, str(path), (4, 6)).shape == (4, 6, 3)
    assert DiskCache(ReducedFiles(min_side=2, max_side=None), tmp_path / "kept").entry(
        str(path)
    ) != cache.entry(str(path))


def test_where_nothing_can_be_kept_it_says_so_once(tmp_path: Path) -> None:
    Image.new("RGB", (5, 4)).save(tmp_path / "a.png")
    (tmp_path / "file").write_text(json.dumps({}))
    cache = DiskCache(WholeFiles(), tmp_path / "file")  # no folder
    cache.entry = lambda path: tmp_path / "file" / "x.npz"  # type: ignore[method-assign]
    with pytest.warns(UserWarning, match="cannot cache decoded images"):
        cache._keep(tmp_path / "file" / "x.npz", np.zeros((4, 5, 3), np.uint8))
    cache._keep(tmp_path / "file" / "x.npz", np.zeros((4, 5, 3), np.uint8))
