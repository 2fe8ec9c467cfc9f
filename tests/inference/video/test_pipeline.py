"""The stages' engine: order, batches, back-pressure, errors, stopping; no test waits for longer than it
must.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from vistasks.inference.video.pipeline import FEED, Pipeline, Stage, in_turn


def plus(number: int) -> Any:
    return lambda things: [thing + number for thing in things]


def workers() -> set[str]:
    return {thread.name for thread in threading.enumerate()} - {"MainThread"}


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before, workers()


def test_order_is_kept_through_batches_and_pools() -> None:
    def slow_for_some(things: list[int]) -> list[int]:
        time.sleep(0.004 if things[0] % 3 == 0 else 0)
        return things

    sizes: list[int] = []

    def batch(things: list[int]) -> list[tuple[int, ...]]:
        sizes.append(len(things))
        return [tuple(things)]

    stages = [
        Stage("pool", slow_for_some, workers=4),
        Stage("batch", batch, size=3),
        Stage("unpack", lambda groups: [thing for group in groups for thing in group]),
    ]
    pipeline = Pipeline(range(20), stages)
    assert list(pipeline) == list(range(20))
    assert sizes == [3] * 6 + [2]
    assert {name: clock.things for name, clock in pipeline.clocks.items()} == {
        FEED: 20,
        "pool": 20,
        "batch": 20,
        "unpack": 20,
    }
    assert pipeline.clocks["pool"].seconds > 0 and pipeline.seconds > 0


def test_without_stages_and_without_things() -> None:
    assert list(Pipeline([1, 2], [])) == [1, 2]
    assert list(Pipeline([], [Stage("a", plus(1), workers=2), Stage("b", plus(1), size=4)])) == []


def test_in_turn_gives_the_same() -> None:
    stages = [Stage("a", plus(1)), Stage("b", plus(2), size=4), Stage("c", plus(3), workers=3)]
    clocks: dict[str, Any] = {}
    assert (
        list(in_turn(range(10), stages, clocks))
        == list(Pipeline(range(10), stages))
        == [n + 6 for n in range(10)]
    )
    assert {name: clock.things for name, clock in clocks.items()} == {FEED: 10, "a": 10, "b": 10, "c": 10}


def test_a_slow_consumer_holds_the_source_back() -> None:
    seen = 0

    def source() -> Iterator[int]:
        nonlocal seen
        while True:
            yield seen
            seen += 1

    things = iter(Pipeline(source(), [Stage("a", plus(0)), Stage("b", plus(0), workers=2)], depth=2))
    assert next(things) == 0
    time.sleep(0.1)
    assert seen <= 14  # what queues and hands can hold
    things.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_an_error_comes_after_what_was_before_it_and_names_the_stage(
    workers: int, kind: type[BaseException]
) -> None:
    def fail(things: list[int]) -> list[int]:
        if things[0] == 5:
            raise kind("number 5 is wrong")
        return things

    got = []
    with pytest.raises(kind, match="number 5 is wrong") as caught:
        for thing in Pipeline(
            itertools.count(), [Stage("a", plus(0)), Stage("bad", fail, workers=workers), Stage("c", plus(0))]
        ):
            got.append(thing)
    assert got == [0, 1, 2, 3, 4]
    assert "in the stage 'bad'" in getattr(caught.value, "__notes__", [])


def test_an_error_of_the_source_is_its_own() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise OSError("unplugged")

    got = []
    with pytest.raises(OSError, match="unplugged") as caught:
        for thing in Pipeline(source(), [Stage("a", plus(0), workers=2)]):
            got.append(thing)
    assert got == [1] and f"in the stage '{FEED}'" in getattr(caught.value, "__notes__", [])


def test_leaving_the_loop_ends_everything_and_closes_the_source() -> None:
    closed = threading.Event()

    def source() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.set()

    for thing in Pipeline(source(), [Stage("a", plus(0), workers=2), Stage("b", plus(0), size=4)]):
        if thing == 7:
            break
    assert closed.wait(1)


def test_stop_lets_out_what_is_on_its_way() -> None:
    class Source:
        stopped = False
        given = 0

        def __iter__(self) -> Iterator[int]:
            for self.given in itertools.count(1):
                yield self.given

        def stop(self) -> None:
            self.stopped = True

    source = Source()
    pipeline = Pipeline(source, [Stage("a", plus(0)), Stage("b", plus(0), workers=2)])
    got = []
    for thing in pipeline:
        got.append(thing)
        if thing == 10:
            pipeline.stop()
    assert source.stopped and got == list(range(1, source.given + 1)) and len(got) >= 10


def test_a_stage_that_stops_leaves_out_what_waits_before_it() -> None:
    got, worked = [], []

    def work(things: list[int]) -> list[int]:
        worked.extend(things)
        if things == [5]:
            pipeline.stop()
            time.sleep(0.05)  # until the queues before it are full
        return things

    stages = [Stage("a", plus(0)), Stage("slow", work, stops=True), Stage("c", plus(0), workers=2)]
    pipeline = Pipeline(itertools.count(), stages)
    for thing in pipeline:
        got.append(thing)
    assert got == worked == [0, 1, 2, 3, 4, 5]


def test_a_live_pipeline_takes_what_is_there_and_holds_little() -> None:
    sizes, newest = [], 0

    def camera() -> Iterator[int]:
        nonlocal newest
        for newest in range(60):
            time.sleep(0.001)
            yield newest

    def slow(things: list[int]) -> list[int]:
        sizes.append(len(things))
        time.sleep(0.005)
        return things

    behind = [
        newest - thing
        for thing in Pipeline(camera(), [Stage("a", plus(0)), Stage("slow", slow, size=2)], live=True)
    ]
    assert len(behind) == 60 and 1 in sizes
    assert max(behind[5:]) <= 5  # newest frames wait in the source, which a camera's reader replaces


def test_two_stages_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two stages have one name: a, a"):
        list(Pipeline([], [Stage("a", plus(0)), Stage("a", plus(0))]))


def test_a_stage_can_be_put_in_later() -> None:
    pipeline = Pipeline(range(3), [Stage("a", plus(1)), Stage("c", plus(0))])
    pipeline.insert(Stage("b", plus(10)), after="a")
    assert list(pipeline) == [11, 12, 13] and list(pipeline.clocks) == [FEED, "a", "b", "c"]
