"""Stages that work side by side, each in its own thread, with bounded queues between them.

Order is kept. A full queue makes the stage before it wait. The stages know nothing of each other or of video:
a stage is a function from a few things to a few things. Threads suffice, as decoding, proposals, the network,
drawing and encoding all work outside of Python's lock."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

FEED = "decode"  # the name under which the source's time is counted


@dataclass(frozen=True)
class Stage:
    """One step of the work.

    Attributes:
        name: for messages and the summary.
        work: up to ``size`` things in order -> the things that the next stage gets, in order.
        size: how many things it takes at once; fewer at the end, and wherever no more are there yet in a live
            pipeline.
        workers: how many threads work for it; more than one only for work on single things that keeps no
            state.
        stops: when the pipeline is stopped, it takes nothing more, and what waits before it is left out; for
            one worker.
    """

    name: str
    work: Callable[[list[Any]], Sequence[Any]]
    size: int = 1
    workers: int = 1
    stops: bool = False


class Clock:
    """How long a stage has worked, and on how many things; its workers may count at the same time."""

    def __init__(self, name: str, workers: int = 1) -> None:
        self.name, self.workers = name, workers
        self.seconds, self.things = 0.0, 0
        self._lock = threading.Lock()

    def timed(self, work: Callable[[list[Any]], Sequence[Any]], things: list[Any]) -> Sequence[Any]:
        """``work(things)``, counted."""
        start = time.perf_counter()
        found = work(things)
        seconds = time.perf_counter() - start
        with self._lock:
            self.seconds += seconds
            self.things += max(len(things), len(found))  # a batch counts as what is in it
        return found

    @property
    def each(self) -> float:
        """Seconds that one of its workers spent on a thing, on average."""
        return self.seconds / self.things if self.things else 0.0


@dataclass(frozen=True)
class _End:
    """The last thing in a queue: nothing more comes, because of ``error`` or because that was all."""

    error: BaseException | None = None


@dataclass(frozen=True)
class _Pending:
    """A place in the order, kept for what a worker is still at."""

    future: Future[Sequence[Any]]


class _CancelledError(Exception):
    """Who reads or writes the other end of a queue has gone."""


class _Channel:
    """A bounded queue between two threads that either can cut."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self._things: deque[Any] = deque()
        self._change = threading.Condition()
        self._cancelled = False

    def put(self, thing: Any) -> None:
        with self._change:
            self._change.wait_for(lambda: self._cancelled or len(self._things) < self.depth)
            if self._cancelled:
                raise _CancelledError
            self._things.append(thing)
            self._change.notify_all()

    def get(self, wait: bool) -> Any:
        """The next thing, or None where none is there and ``wait`` is False."""
        with self._change:
            if wait:
                self._change.wait_for(lambda: self._cancelled or bool(self._things))
            if self._cancelled:
                raise _CancelledError
            if not self._things:
                return None
            thing = self._things.popleft()
            self._change.notify_all()
            return thing

    def take(self, size: int, fill: bool) -> tuple[list[Any], _End | None]:
        """Up to ``size`` things, at least one unless the end comes first; with ``fill`` it waits for the
        others, too.
        """
        things: list[Any] = []
        while len(things) < size:
            thing = self.get(wait=fill or not things)
            if thing is None:
                break
            if isinstance(thing, _Pending):
                try:
                    things += thing.future.result()
                except BaseException as error:
                    thing = _End(error)
            elif not isinstance(thing, _End):
                things.append(thing)
            if isinstance(thing, _End):
                if thing.error is not None:
                    self.cancel()
                return things, thing
        return things, None

    def cancel(self) -> None:
        with self._change:
            self._cancelled = True
            self._things.clear()
            self._change.notify_all()


class Pipeline:
    """Iterating gives what the last stage made, in order; the stages work while the caller is busy with it.

    An error in the source or a stage is raised after everything that came before it has passed, with a note
    that names the stage; Ctrl-C in the caller's thread, or leaving the loop, stops all stages. Either way
    every thread has ended then.

    Args:
        source: things for the first stage; iterated in a thread of its own. Its ``stop()``, where it has one,
            is called when the pipeline stops.
        stages: what is done, in this order.
        live: takes what is there instead of waiting to fill a stage's ``size``, and takes a new thing from
            the source only when the stages would else run dry, so that what comes out is as young as it can
            be.
        depth: how many things a queue holds, beside those that the next stage takes at once.

    Attributes:
        clocks: the times of the source (`FEED`) and of each stage.
        seconds: since it was started, or how long it ran.
        leaving: the stages are being stopped; what is still on its way is lost.
    """

    def __init__(
        self, source: Iterable[Any], stages: Sequence[Stage], *, live: bool = False, depth: int = 2
    ) -> None:
        self.source, self.stages, self.live, self.depth = source, list(stages), live, 1 if live else depth
        self.clocks: dict[str, Clock] = {}
        self._channels: list[_Channel] = []
        self._stopping = self.leaving = False
        self._started = self._ended = 0.0
        self._inside, self._left = 0, threading.Condition()

    @property
    def seconds(self) -> float:
        return (self._ended or time.perf_counter()) - self._started if self._started else 0.0

    def insert(self, stage: Stage, *, after: str) -> None:
        """Adds a stage behind the one of that name; before it is started."""
        names = [present.name for present in self.stages]
        self.stages.insert(names.index(after) + 1, stage)

    def stop(self) -> None:
        """No more things are taken from the source; those that have come to a stage that ``stops`` (without
        one, all) come out.

        For any thread and for signal handlers: it takes no lock.
        """
        self._stopping = True
        stop = getattr(self.source, "stop", None)
        if callable(stop):
            stop()

    def __iter__(self) -> Iterator[Any]:
        self._begin()
        threads = [threading.Thread(target=self._feed, name=FEED, daemon=True)]
        for stage, before, after in zip(self.stages, self._channels, self._channels[1:]):
            run = self._run_pool if stage.workers > 1 else self._run
            threads.append(
                threading.Thread(target=run, args=(stage, before, after), name=stage.name, daemon=True)
            )
        for thread in threads:
            thread.start()
        try:
            end = None
            while end is None:
                things, end = self._channels[-1].take(1, fill=True)
                for thing in things:
                    yield thing
                    self._moved(-1)
            if end.error is not None:
                raise end.error
        finally:
            self.leaving = True
            self.stop()
            for channel in self._channels:
                channel.cancel()
            self._moved(0)
            for thread in threads:
                thread.join()
            self._ended = time.perf_counter()

    def _begin(self) -> None:
        self.clocks = {
            name: Clock(name, n) for name, n in [(FEED, 1), *((s.name, s.workers) for s in self.stages)]
        }
        if len(self.clocks) != len(self.stages) + 1:
            raise ValueError(f"two stages have one name: {', '.join(stage.name for stage in self.stages)}")
        # room for what the next stage takes at once, and for what the workers before it are at
        sizes, workers = (
            [*(stage.size for stage in self.stages), 1],
            [1, *(stage.workers for stage in self.stages)],
        )
        rooms = [
            self.depth + size - 1 + (before if before > 1 else 0) for size, before in zip(sizes, workers)
        ]
        self._channels = [_Channel(room) for room in rooms]
        self._started = time.perf_counter()

    def _moved(self, things: int) -> None:
        with self._left:
            self._inside += things
            self._left.notify_all()

    def _has_room(self) -> bool:
        """Whether a live pipeline's stages could use another thing: it holds fewer than its slowest stage
        needs to stay busy.
        """
        work = [clock for name, clock in self.clocks.items() if name != FEED and clock.things]
        slowest = max((clock.each / clock.workers for clock in work), default=0.0)
        needed = sum(clock.each for clock in work) / slowest if slowest else 1.0
        return self._inside < math.ceil(needed) + max(stage.size for stage in self.stages)

    def _feed(self) -> None:
        target, clock = self._channels[0], self.clocks[FEED]
        try:
            things = iter(self.source)
            while not self._stopping:
                if self.live:
                    with self._left:
                        self._left.wait_for(lambda: self._stopping or self._has_room(), timeout=1.0)
                found = clock.timed(lambda _: list(islice(things, 1)), [])
                if not found:
                    break
                self._moved(1)
                target.put(found[0])
            getattr(things, "close", lambda: None)()  # a generator's files, here in its own thread
            target.put(_End())
        except _CancelledError:
            getattr(things, "close", lambda: None)()
        except BaseException as error:
            _end(target, _noted(error, FEED))

    def _run(self, stage: Stage, before: _Channel, after: _Channel) -> None:
        clock = self.clocks[stage.name]
        try:
            end = None
            while end is None:
                things, end = before.take(stage.size, fill=not self.live)
                if stage.stops and self._stopping:
                    before.cancel()
                    things, end = [], _End() if end is None else end
                for made in clock.timed(stage.work, things) if things else ():
                    after.put(made)
            after.put(end)
        except _CancelledError:
            before.cancel()
        except BaseException as error:
            before.cancel()
            _end(after, _noted(error, stage.name))

    def _run_pool(self, stage: Stage, before: _Channel, after: _Channel) -> None:
        clock = self.clocks[stage.name]

        def work(things: list[Any]) -> Sequence[Any]:
            try:
                return clock.timed(stage.work, things)
            except BaseException as error:
                raise _noted(error, stage.name) from None

        pool = ThreadPoolExecutor(stage.workers, thread_name_prefix=stage.name)
        try:
            end = None
            while end is None:
                things, end = before.take(stage.size, fill=not self.live)
                if things:
                    after.put(_Pending(pool.submit(work, things)))
            after.put(end)
        except _CancelledError:
            before.cancel()
            pool.shutdown(wait=False, cancel_futures=True)
        finally:
            pool.shutdown()


def in_turn(
    source: Iterable[Any], stages: Sequence[Stage], clocks: dict[str, Clock] | None = None
) -> Iterator[Any]:
    """The same work without any thread: one thing after the other through all stages; ``clocks`` is filled
    with their times.
    """
    clocks = {} if clocks is None else clocks
    things = _watched(iter(source), clocks.setdefault(FEED, Clock(FEED)))
    for stage in stages:
        things = _worked(things, stage, clocks.setdefault(stage.name, Clock(stage.name)))
    return things


def _watched(things: Iterator[Any], clock: Clock) -> Iterator[Any]:
    while found := clock.timed(lambda _: list(islice(things, 1)), []):
        yield found[0]


def _worked(things: Iterator[Any], stage: Stage, clock: Clock) -> Iterator[Any]:
    waiting: list[Any] = []
    for thing in things:
        waiting.append(thing)
        if len(waiting) == stage.size:
            yield from clock.timed(stage.work, waiting)
            waiting = []
    if waiting:
        yield from clock.timed(stage.work, waiting)


def _noted(error: BaseException, name: str) -> BaseException:
    """The error with a note that says where it happened; the command prints it."""
    notes = [*getattr(error, "__notes__", []), f"in the stage '{name}'"]
    error.__notes__ = notes  # type: ignore[attr-defined] # what add_note of Python 3.11 does
    return error


def _end(channel: _Channel, error: BaseException) -> None:
    with contextlib.suppress(_CancelledError):
        channel.put(_End(error))
