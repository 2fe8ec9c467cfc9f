"""The number of threads: what is measured, and what is chosen from it."""

from __future__ import annotations

import time

import pytest
import torch

from vistasks.system import threads
from vistasks.system.threads import best_count, seconds_by_threads, typical_seconds


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 4)


def test_fewer_threads_are_tried_until_they_are_much_slower(
    four_cores: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, taken = torch.get_num_threads(), {4: 1.0, 2: 1.2, 1: 9.0}

    def timed(step: object) -> float:
        return taken[torch.get_num_threads()]

    monkeypatch.setattr(threads, "typical_seconds", timed)
    assert seconds_by_threads(lambda: None) == taken
    taken[2] = 1.4
    assert seconds_by_threads(lambda: None) == {4: 1.0, 2: 1.4}
    assert torch.get_num_threads() == before


def test_what_a_first_step_compiles_is_not_timed() -> None:
    calls: list[int] = []

    def step() -> None:
        calls.append(1)
        time.sleep(0.5 if len(calls) == 1 else 0.001)

    assert 0.001 <= typical_seconds(step) < 0.4 and len(calls) == 1 + threads.ROUNDS


def test_the_fastest_number_or_a_smaller_one_that_is_hardly_slower(four_cores: None) -> None:
    assert best_count({4: 1.0, 2: 1.4, 1: 2.7}) == 4
    assert best_count({4: 1.0, 2: 1.04, 1: 2.0}) == 2
    assert best_count({4: 3.0, 2: 1.5, 1: 1.0}) == 1


def test_data_workers_are_counted(four_cores: None) -> None:
    seconds = {4: 1.0, 2: 1.1, 1: 2.0}
    assert best_count(seconds, loading=3.0, workers=0) == 2  # 4.1 s are hardly more than 4
    assert best_count(seconds, loading=0.1, workers=3) == 4  # (4 * 1 + .1) / 4 = 1.025 s, against 1.1
    assert best_count(seconds, loading=2.0, workers=3) == 2  # (4 * 1 + 2) / 4 = 1.5 s, against 1.1
    assert best_count(seconds, loading=8.0, workers=4) == 1  # (1 * 2 + 8) / 4 = 2.5 s, against 3 with all
