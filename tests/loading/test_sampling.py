"""Orders of an epoch: pure functions of seed and epoch, of fixed length, balanced as promised."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from vistasks.datasets.annotations import Annotation
from vistasks.loading.loader import EpochOrder
from vistasks.loading.sampling import Sampling
from vistasks.registry import SAMPLINGS
from vistasks.types import Labelled


class Objects:
    """A data set of labels alone: of each picture its objects' classes, and which tasks it is labelled
    for.
    """

    def __init__(self, *pictures: tuple[int, ...], masks_from: int | None = None) -> None:
        self.pictures, self.masks_from = pictures, masks_from

    def __len__(self) -> int:
        return len(self.pictures)

    def place(self, index: int) -> tuple[int, int]:
        return int(index >= len(self) // 4), 0

    def annotation(self, index: int) -> Annotation:
        labels = np.array(self.pictures[index], dtype=np.int64)
        no, count = np.zeros(len(labels), np.bool_), len(labels)
        masks = self.masks_from is not None and index >= self.masks_from
        labelled = Labelled(segmentation=frozenset({0})) if masks else Labelled(frozenset({0}))
        return Annotation(
            np.zeros((count, 4), np.float32), labels, no, no, np.ones(count, np.float32), None, labelled
        )


# class 0 in 90 pictures, class 1 in 9, class 2 in one (together with class 0)
LONG_TAIL = Objects(*[(0,)] * 89, *[(1, 1)] * 9, (0, 2), ())


def built(name: str, data: Any = LONG_TAIL, **options: Any) -> Sampling:
    sampling: Sampling = SAMPLINGS.build(
        {"name": name, **options}, where="train.sampling", given={"dataset": data}
    )
    return sampling


@pytest.mark.parametrize("name", list(SAMPLINGS))
def test_an_order_is_a_function_of_seed_and_epoch_and_has_its_length(name: str) -> None:
    first, again = built(name), built(name)
    orders = {}
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        order = first.order(seed, epoch, batch_size=4, world=1)
        assert len(order) == len(first) and set(order.tolist()) <= set(range(100))
        orders[seed, epoch] = order.tolist()
    for seed, epoch in ((1, 0), (0, 1), (0, 0)):  # asked for in another order: nothing is remembered
        assert again.order(seed, epoch, batch_size=4, world=1).tolist() == orders[seed, epoch]
    assert len({tuple(order) for order in orders.values()}) == 3


def test_repeat_factors_are_those_of_the_paper_and_are_kept_on_average() -> None:
    sampling = built("repeat_factor", threshold=0.36)
    # class 1: 9 of 100 pictures, sqrt(.36 / .09) = 2; class 2: 1 of 100, sqrt(.36 / .01) = 6; class 0 is
    # frequent
    assert sampling.factors.tolist() == pytest.approx([1.0] * 89 + [2.0] * 9 + [6.0, 1.0])  # type: ignore[attr-defined]
    counts: Counter[int] = Counter()
    for epoch in range(20):
        counts.update(sampling.order(0, epoch, batch_size=4, world=1).tolist())
    assert len(sampling) == 89 + 18 + 6 + 1 and counts[98] == 120 and counts[90] == 40
    # fractions: on average
    tenth = built("repeat_factor", threshold=0.2)
    counts = Counter(i for epoch in range(200) for i in tenth.order(3, epoch, batch_size=4, world=1).tolist())
    factors = tenth.factors * (len(tenth) / tenth.factors.sum())  # type: ignore[attr-defined]
    assert np.abs(np.array([counts[index] for index in range(100)]) / 200 - factors).max() < 0.12


def test_class_balanced_shows_each_class_equally_often_and_negatives_too() -> None:
    order = built("class_balanced", length=400).order(0, 0, batch_size=4, world=1)
    asked = Counter(
        "tail" if i == 98 else "one" if i >= 89 and i < 98 else "none" if i == 99 else "zero"
        for i in order.tolist()
    )
    assert asked["one"] == 100 and asked["none"] == 100  # four classes, of which "no object" is one
    assert asked["tail"] >= 100 and asked["zero"] <= 100 and asked["tail"] + asked["zero"] == 200
    shown = Counter(i for i in order.tolist() if 89 <= i < 98)
    assert max(shown.values()) - min(shown.values()) <= 1


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("by", ["task", "dataset"])
def test_task_balanced_batches_have_equal_shares_in_every_process(by: str, world: int) -> None:
    data = Objects(*[(0,)] * 24, masks_from=6)  # 6 pictures with boxes, 18 with masks
    sampling = built("task_balanced", data, by=by)
    for rank in range(world):
        order = EpochOrder(
            len(data), batch_size=4, shuffle=True, seed=0, rank=rank, world=world, sampling=sampling
        )
        seen = list(order)
        assert len(seen) == len(order) == 24 // (4 * world)
        for batch in seen:
            assert sum(index < 6 for _, index in batch) == 2
    order_all = sampling.order(0, 0, batch_size=4, world=1).tolist()
    assert Counter(order_all[i] for i in range(24) if order_all[i] < 6) == dict.fromkeys(range(6), 2)


def test_a_resumed_epoch_goes_on_where_it_stopped() -> None:
    whole = EpochOrder(
        100, batch_size=4, shuffle=True, seed=3, sampling=built("repeat_factor", threshold=0.36)
    )
    rest = EpochOrder(
        100, batch_size=4, shuffle=True, seed=3, sampling=built("repeat_factor", threshold=0.36)
    )
    whole.epoch, rest.epoch, rest.start = 2, 2, 5
    assert list(whole)[5:] == list(rest) and len(rest) == len(whole)


def test_what_cannot_be_balanced_is_told() -> None:
    for name in ("repeat_factor", "class_balanced"):
        with pytest.raises(ValueError, match=r"no image has an object, so classes cannot be balanced"):
            built(name, Objects((), ()))
    with pytest.raises(
        ValueError, match=r"train\.sampling\.threshold: Input should be greater than 0; received 0"
    ):
        built("repeat_factor", threshold=0)
