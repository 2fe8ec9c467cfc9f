"""Order, draws and workers: the same batches whatever loads them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.tiny_data import tiny_config, voc_data, write_voc
from vistasks.build import build_dataset, build_pipeline, build_proposals
from vistasks.config import InputConfig
from vistasks.loading.augment import Augment
from vistasks.loading.loader import Batches, EpochOrder, Pipeline, batches
from vistasks.types import Batch, Sample

SHAPE = st.tuples(
    st.integers(1, 40), st.integers(1, 7), st.integers(0, 3), st.integers(0, 5), st.integers(1, 4)
)
JITTER = [
    {"HorizontalFlip": {"p": 0.5}},
    {"RandomBrightnessContrast": {"p": 1}},
    {"Rotate": {"limit": 20, "p": 0.5}},
]


def order_of(
    count: int, size: int, seed: int, epoch: int, world: int, *, shuffle: bool
) -> list[list[list[tuple[int, int]]]]:
    orders = []
    for rank in range(world):
        order = EpochOrder(count, batch_size=size, shuffle=shuffle, seed=seed, rank=rank, world=world)
        order.epoch = epoch
        orders.append(list(order))
        assert len(orders[-1]) == len(order)
    return orders


@given(SHAPE)
def test_evaluation_sees_each_index_exactly_once_over_all_processes(
    shape: tuple[int, int, int, int, int],
) -> None:
    count, size, _, epoch, world = shape
    ranks = order_of(*shape, shuffle=False)
    assert sorted(key for rank in ranks for batch in rank for key in batch) == [
        (epoch, index) for index in range(count)
    ]
    assert all(1 <= len(batch) <= size for rank in ranks for batch in rank) and len(ranks) == world


@given(SHAPE)
def test_training_sees_no_index_twice_and_full_batches_in_every_process(
    shape: tuple[int, int, int, int, int],
) -> None:
    count, size, _, epoch, world = shape
    ranks = order_of(*shape, shuffle=True)
    assert len({len(rank) for rank in ranks}) == 1  # or the processes would wait for one another
    seen = [index for rank in ranks for batch in rank for _, index in batch]
    assert all(found == epoch for rank in ranks for batch in rank for found, _ in batch)
    assert set(seen) <= set(range(count)) and all(batch for rank in ranks for batch in rank)
    if count >= world:
        assert len(set(seen)) == len(seen)
    if count >= size * world:
        assert all(len(batch) == size for rank in ranks for batch in rank)
        assert count - len(seen) < size * world  # less than one step is left out
    elif count >= world:
        assert len(ranks[0]) == 1  # the only batch, however small


@given(SHAPE)
def test_the_order_is_a_function_of_seed_and_epoch(shape: tuple[int, int, int, int, int]) -> None:
    assert order_of(*shape, shuffle=True) == order_of(*shape, shuffle=True)


def test_epochs_and_seeds_differ() -> None:
    cases = [(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    orders = {
        str([[i for _, i in batch] for batch in order_of(30, 3, *case, 1, shuffle=True)[0]]) for case in cases
    }
    assert len(orders) == 4
    left_out: set[int] = set()
    for epoch in range(40):  # an incomplete batch is left out, but not always the same pictures
        left_out |= set(range(7)) - {
            index for batch in order_of(7, 3, 0, epoch, 1, shuffle=True)[0] for _, index in batch
        }
    assert left_out == set(range(7))


def pipeline(
    root: Path,
    *,
    augment: bool = True,
    seed: int = 0,
    size: InputConfig = InputConfig(),  # noqa: B008 - frozen
) -> Pipeline:
    config = tiny_config(root, voc_data(root), "detection", "segmentation")
    data = build_dataset(config, "train")
    return Pipeline(data, build_proposals(config.proposals), Augment(JITTER) if augment else None, size, seed)


def loader(pipe: Pipeline, workers: int, epoch: int = 0, shuffle: bool = True) -> Batches:
    order = EpochOrder(len(pipe), batch_size=2, shuffle=shuffle, seed=pipe.seed)
    order.epoch = epoch
    return batches(pipe, order, classes=pipe.dataset.classes, divisor=32, workers=workers)


def equal(a: Batch, b: Batch) -> bool:
    def same(x: Any, y: Any) -> bool:
        if isinstance(x, torch.Tensor):
            return torch.equal(x, y)
        if isinstance(x, tuple):
            return len(x) == len(y) and all(same(i, j) for i, j in zip(x, y))
        return bool(x == y)

    return all(same(getattr(a, name), getattr(b, name)) for name in Batch.__dataclass_fields__)


def all_equal(a: Iterable[tuple[Batch, list[Sample]]], b: Iterable[tuple[Batch, list[Sample]]]) -> bool:
    return all(equal(x, y) for (x, _), (y, _) in zip(a, b, strict=True))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_voc(tmp_path_factory.mktemp("voc"), count=5, empty=(1,))


def test_draws_depend_on_seed_epoch_and_index_alone(root: Path) -> None:
    first, again = pipeline(root), pipeline(root)
    forward = [first[0, index][0].image for index in range(5)]
    backward = [again[0, index][0].image for index in reversed(range(5))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forward, backward))
    for other in (first[1, 0], pipeline(root, seed=1)[0, 0]):
        assert not np.array_equal(forward[0], other[0].image)


def test_the_original_comes_along_untouched(root: Path) -> None:
    pipe = pipeline(root, size=InputConfig(min_side=32))
    sample, original = pipe[0, 0]
    assert sample.size == (32, 32) and original.size == (64, 64)
    assert np.array_equal(original.image, pipe.dataset[0].image) and original.proposals is None
    assert sample.proposals is not None and len(sample.proposals)


def test_multi_scale_training_draws_a_size_for_each_picture(root: Path) -> None:
    config = tiny_config(root, voc_data(root), "detection")
    config = config.model_copy(update={"input": InputConfig(min_side=64, train_scales=[0.5, 1.0, 1.5])})
    data = build_dataset(config, "train")
    training, again = build_pipeline(config, data, training=True), build_pipeline(config, data, training=True)
    keys = [(epoch, index) for epoch in range(4) for index in range(5)]
    sides = [training[key][0].size[0] for key in keys]
    assert set(sides) == {32, 64, 96} and sides == [again[key][0].size[0] for key in keys]
    assert {build_pipeline(config, data, training=False)[0, index][0].size[0] for index in range(5)} == {64}
    sample, _ = training[0, sides[:5].index(min(sides[:5]))]
    assert sample.boxes.max(initial=0) <= max(sample.size) and sample.proposals is not None
    assert sample.proposals.max() <= max(sample.size)


def test_loading_does_not_move_the_runs_random_numbers(root: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    list(loader(pipeline(root), 0))
    assert torch.equal(before, torch.get_rng_state())


def test_no_worker_and_one_worker_give_the_same_batches_in_every_epoch(root: Path) -> None:
    here, there = loader(pipeline(root), 0), loader(pipeline(root), 1)
    for epoch in range(2):  # the second with the worker that is kept
        here.batch_sampler.epoch = there.batch_sampler.epoch = epoch  # type: ignore[union-attr]
        assert all_equal(here, there)
    # faults, with the same worker machinery
    truncated = write_voc(root.parent / "truncated", count=3)
    broken = loader(pipeline(truncated), 1, shuffle=False)
    path = truncated / "JPEGImages" / "scene_2.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError) as caught:
        list(broken)
    told = str(caught.value)
    assert "scene_2.png" in told and "truncated" in told
    assert "\n" not in told and "Traceback" not in told and "worker" not in told
    with pytest.raises(ValueError) as here_caught:
        list(loader(pipeline(truncated), 0, shuffle=False))
    assert str(here_caught.value) == told  # the same words without a worker
    (worker,) = broken._iterator._workers  # type: ignore[union-attr]
    os.kill(worker.pid, signal.SIGKILL)  # as the system does when memory runs out
    with pytest.raises(
        OSError,
        match=r"a data worker died \(.*\), .*train\.workers",
    ):
        list(broken)


class Misbehaving:
    """A reader or a proposal method whose error does not say which picture it is about."""

    key = None

    def __call__(self, sample: Sample) -> np.ndarray:
        raise ValueError("too few colours")


def test_errors_without_a_name_get_the_pictures(root: Path) -> None:
    good = pipeline(root)
    bad = Pipeline(good.dataset, Misbehaving(), None, InputConfig(), 0)
    with pytest.raises(ValueError, match=r"scene_3\.png: too few colours"):
        bad[0, 3]
    with pytest.raises(ValueError, match=r"scene_[0-4]\.png: too few colours"):
        list(loader(bad, 0))


def test_a_fault_of_collating_is_told_alike(root: Path) -> None:
    """A mask filled with a class that does not exist: found when the batch is put together."""
    good = pipeline(root, augment=False)
    filled = Augment([{"Rotate": {"limit": [45, 45], "fill_mask": 7, "p": 1}}])
    with pytest.raises(ValueError, match=r"scene_\d\.png: the mask has the class id 7"):
        list(loader(Pipeline(good.dataset, None, filled, InputConfig(), 0), 0))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "I;16", "CMYK"])
def test_pictures_of_any_kind_reach_the_batch(tmp_path: Path, mode: str) -> None:
    root = write_voc(tmp_path, count=1, masks=False)
    path = root / "JPEGImages" / "scene_0.png"
    image = Image.open(path).convert("L")
    other = Image.fromarray(np.array(image).astype(np.uint16) << 8) if mode == "I;16" else image.convert(mode)
    suffix = ".tif" if mode == "CMYK" else ".png"
    path.unlink()
    other.save(path.with_suffix(suffix))
    config = tiny_config(root, voc_data(root), "detection")
    pipe = Pipeline(build_dataset(config, "train"), None, None, InputConfig(), 0)
    (batch, _), = loader(pipe, 0, shuffle=False)  # fmt: skip
    assert batch.images.shape == (1, 3, 64, 64) and batch.images.float().std() > 0


def skipping(root: Path, workers: int, *, shuffle: bool) -> Batches:
    pipe = pipeline(root)
    order = EpochOrder(len(pipe), batch_size=2, shuffle=shuffle, seed=0)
    return batches(pipe, order, classes=pipe.dataset.classes, divisor=32, workers=workers, on_error="skip")


def test_skipped_pictures_are_counted_and_replaced_in_training_only(tmp_path: Path) -> None:
    root = write_voc(tmp_path, count=6)
    train, evaluation = skipping(root, 0, shuffle=True), skipping(root, 0, shuffle=False)
    bad = [root / "JPEGImages" / f"scene_{number}.png" for number in (2, 3, 5)]
    for path in bad:
        path.write_bytes(path.read_bytes()[:200])
    seen = [list(batch.paths) for batch, _ in train]
    assert [len(paths) for paths in seen] == [2, 2, 2]  # full, or a run's steps would change
    assert not {str(path) for path in bad} & {path for paths in seen for path in paths}
    assert set(train.skipped) == {str(path) for path in bad} and all(
        "truncated" in text for text in train.skipped.values()
    )
    assert [
        list(batch.paths) for batch, _ in skipping(root, 0, shuffle=True)
    ] == seen  # others are drawn from the seed
    left = [batch.image_ids for batch, _ in evaluation]
    assert left == [("scene_0", "scene_1"), ("scene_4",)]  # and nothing for the batch that is gone altogether
    for path in (root / "JPEGImages").iterdir():
        path.write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"data\.on_error=skip: 20 images in a row could not be read.*scene_\d\.png"
    ):
        list(train)


class Deadly:
    """Kills its process at one picture, as a decoder that crashes does."""

    key = None

    def __call__(self, sample: Sample) -> np.ndarray:
        if sample.image_id == "scene_3":
            os.kill(os.getpid(), signal.SIGKILL)
        return np.zeros((0, 4), np.float32)


def test_a_worker_that_dies_names_the_picture_it_was_reading(root: Path) -> None:
    pipe = Pipeline(pipeline(root).dataset, Deadly(), None, InputConfig(), 0)
    with pytest.raises(
        OSError, match=r"a data worker died .* while it read \S*scene_3\.png\. Either memory ran out"
    ):
        list(loader(pipe, 1, shuffle=False))


def test_workers_map_the_index_instead_of_copying_it(root: Path) -> None:
    there = loader(pipeline(root), 1, shuffle=False)
    list(there)
    (worker,) = there._iterator._workers  # type: ignore[union-attr]
    maps = Path(f"/proc/{worker.pid}/maps")
    if not maps.exists():
        pytest.skip("needs Linux's /proc")
    assert "memfd:vistasks" in maps.read_text()
