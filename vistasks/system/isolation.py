"""Work in a process of its own, so that its peak memory is its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

Work = Callable[..., dict[str, Any]]


def in_own_process(job: Work, arguments: Any) -> dict[str, Any]:
    """``job(*arguments)``, a function of a module, in a fresh process that ends afterwards."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(job, *arguments).result()
