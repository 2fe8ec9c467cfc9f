"""What ``vistasks proposals compute | report | clear`` do."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from vistasks.proposals.cache import CachedProposals, clear
from vistasks.proposals.methods import ProposalMethod
from vistasks.proposals.recall import ProposalRecall
from vistasks.proposals.union import Union, merged
from vistasks.system.locks import owned
from vistasks.system.machine import cores
from vistasks.system.terminal import PlainConsole
from vistasks.system.text import plot_label

if TYPE_CHECKING:
    from vistasks.datasets import Dataset
    from vistasks.types import Sample

TIMED_PICTURES = 20


def _in_parallel(
    work: Callable[[int], Any], count: int, threads: int, console: Console, title: str
) -> Iterator[tuple[int, Any]]:
    """``work(index)`` for every index on some threads, behind a progress bar; results in the order in which
    they end.

    Only a few results wait at any time, so that memory does not grow with the data set.
    """
    columns = (
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor(threads) as pool:
        bar = progress.add_task(title, total=count)
        running: dict[Future[Any], int] = {}
        try:
            for index in range(count + 1):
                while running and (index == count or len(running) >= 2 * threads):
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        progress.advance(bar)
                        yield running.pop(future), future.result()
                if index < count:
                    running[pool.submit(work, index)] = index
        finally:
            pool.shutdown(cancel_futures=True)


def compute_command(
    dataset: Dataset, method: ProposalMethod, *, threads: int | None = None, console: Console | None = None
) -> int:
    """Fills the cache for all pictures of a data set; what is there already is kept, so it can be stopped and
    run again.

    Args:
        dataset: whose pictures.
        method: a `CachedProposals`; anything else is a ValueError, as nothing would be kept.
        threads: pictures side by side; None takes all cores.

    Returns: the exit code, 0.
    """
    if not isinstance(method, CachedProposals) or method.key is None:
        raise ValueError(
            "proposals compute: the config has no proposal cache; set proposals.cache and a method that can be cached"
        )
    console = console or PlainConsole()
    kept = boxes = 0

    def work(index: int) -> tuple[bool, int]:
        sample = dataset[index]
        known = method.has(sample.image)
        return known, len(method(sample))

    started = time.perf_counter()
    with owned(method.folder):
        for _, (known, count) in _in_parallel(work, len(dataset), threads or cores(), console, "proposals"):
            kept += known
            boxes += count
    seconds = time.perf_counter() - started
    new = len(dataset) - kept
    console.print(
        f"{new} images computed, {kept} already cached, in {seconds:.1f} s; {boxes / max(1, len(dataset)):.0f} boxes each"
    )
    console.print(f"kept in {method.folder.resolve()}")
    return 0


def report(
    dataset: Dataset, method: ProposalMethod, *, threads: int | None = None, console: Console | None = None
) -> dict[str, Any]:
    """Recall, overlap and time of a method on a data set: `ProposalRecall.compute`, with "method" and
    "seconds" a picture.

    "seconds" is measured without the cache, on one thread, over `TIMED_PICTURES` pictures spread over the
    data set. Of a union "members" has the same numbers, without the seconds, of each method alone."""
    bare = method.method if isinstance(method, CachedProposals) else method
    if bare.within_detector:
        raise ValueError(
            "proposals report: the rpn's boxes are only found in a trained detector; name its run: proposals.method.weights=RUN"
        )
    recall = ProposalRecall(dataset.classes.detection)
    parts_of = bare.members if isinstance(bare, Union) else []
    members = {_name(member): (member, ProposalRecall(dataset.classes.detection)) for member in parts_of}

    def work(index: int) -> tuple[Sample, Any]:
        sample = dataset[index]
        if not members:
            return sample, method(sample)
        parts = [member(sample) for member, _ in members.values()]
        for part, (_, own) in zip(parts, members.values()):
            own.update(sample, part)
        return sample, merged(parts)

    stderr = PlainConsole(stderr=True)
    found = _in_parallel(work, len(dataset), threads or cores(), console or stderr, "proposals")
    for _, (sample, boxes) in found:
        recall.update(sample, boxes)
    seconds = []
    for index in range(0, len(dataset), max(1, len(dataset) // TIMED_PICTURES)):
        sample = dataset[index]
        started = time.perf_counter()
        bare(sample)
        seconds.append(time.perf_counter() - started)
    result = {"method": _name(bare), "seconds": sum(seconds) / max(1, len(seconds)), **recall.compute()}
    return (
        {**result, "members": {name: own.compute() for name, (_, own) in members.items()}}
        if members
        else result
    )


def _name(method: ProposalMethod) -> str:
    return method.key or type(method).__name__


def report_command(
    dataset: Dataset,
    method: ProposalMethod,
    *,
    json_path: Path | None = None,
    plot_path: Path | None = None,
    threads: int | None = None,
    console: Console | None = None,
) -> int:
    """Prints `report` as tables; writes it as json and as a plot of recall against the number of boxes where
    asked.
    """
    console = console or PlainConsole()
    result = report(dataset, method, threads=threads, console=console)
    _show(result, console)
    if json_path:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        console.print(f"numbers in {json_path.resolve()}")
    if plot_path:
        plot_path.parent.mkdir(parents=True, exist_ok=True)
        plot(result, plot_path)
        console.print(f"plot in {plot_path.resolve()}")
    return 0


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _show(result: dict[str, Any], console: Console) -> None:
    console.print(f"{result['method']}: {result['boxes']:.0f} boxes and {result['seconds']:.3f} s per image")
    console.print(f"{result['pictures']} images, {result['objects']} objects; {result['protocol']}")
    table = Table(
        "boxes", "recall .5", "recall .7", "recall .9", "MABO", "mean best overlap", "average recall"
    )
    for name, row in result["budgets"].items():
        numbers = [*row["recall"].values(), row["mabo"], row["mean_best_overlap"], row["average_recall"]]
        table.add_row(name, *map(_number, numbers))
    console.print(table)
    for name, part in {"": result, **result.get("members", {})}.items():
        by_class = part["recall_by_class"]
        classes = Table(
            "class", "ABO", *(f"recall {threshold}" for threshold in by_class), title=name and f"{name} alone"
        )
        for label, value in part["abo"].items():
            classes.add_row(label, _number(value), *(_number(values[label]) for values in by_class.values()))
        console.print(classes)


def plot(result: dict[str, Any], path: Path) -> None:
    """Recall at each threshold and average recall against the number of boxes, of a `report`, as a picture
    file.
    """
    from matplotlib.figure import Figure

    axes = (figure := Figure(figsize=(6, 4), layout="constrained")).subplots()
    # a budget above what the method gives is the same as "all", which stands at the mean number of boxes
    rows = [
        (float(name), row)
        for name, row in result["budgets"].items()
        if name != "all" and float(name) < result["boxes"]
    ]
    rows.append((max(1.0, result["boxes"]), result["budgets"]["all"]))
    counts = [count for count, _ in rows]
    for threshold in result["budgets"]["all"]["recall"]:
        axes.plot(
            counts,
            [row["recall"][threshold] for _, row in rows],
            marker="o",
            label=f"recall at IoU {threshold}",
        )
    axes.plot(
        counts,
        [row["average_recall"] for _, row in rows],
        marker="o",
        linestyle="--",
        label="average recall .5 to .95",
    )
    axes.set(
        xscale="log", xlabel="boxes per image", ylim=(0, 1), title=plot_label(result["method"].split(" ")[0])
    )
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def clear_command(folder: Path, *, console: Console | None = None) -> int:
    """Empties a cache folder of what is ours; returns the exit code, 0."""
    with owned(folder) if folder.is_dir() else nullcontext():
        files, size = clear(folder)
    (console or PlainConsole()).print(f"{files} files, {size / 1e6:.1f} MB removed from {folder.resolve()}")
    return 0
