"""The proposal cache: right boxes always, whatever happens to the folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from vistasks.proposals.cache import (
    SUFFIX,
    TEMPORARY,
    CachedProposals,
    DamagedEntry,
    clear,
    decoded,
    encoded,
    evict,
)
from vistasks.types import Sample


class Counting:
    """A method that counts its calls; its boxes depend on the picture."""

    def __init__(self, key: str | None = "counting-1") -> None:
        self.key = key
        self.calls = 0

    def __call__(self, sample: Sample) -> np.ndarray:
        self.calls += 1
        count = 1 + int(sample.image[0, 0, 0]) % 50
        return (
            np.tile(np.array([[0, 0, 4, 4]], np.float32), (count, 1))
            + np.arange(count, dtype=np.float32)[:, None] / 100
        )


def _sample(value: int, height: int = 8, width: int = 8) -> Sample:
    return Sample(str(value), f"{value}.png", np.full((height, width, 3), value, np.uint8))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_computes_once_and_gives_the_same(tmp_path: Path) -> None:
    method = Counting()
    cached = CachedProposals(method, tmp_path / "new" / "folder")
    assert not cached.has(_sample(3).image)
    first = cached(_sample(3))
    assert cached.has(_sample(3).image) and cached.key == method.key
    for again in (cached(_sample(3)), CachedProposals(method, tmp_path / "new" / "folder")(_sample(3))):
        assert again.dtype == np.float32
        np.testing.assert_array_equal(again, first)
    assert method.calls == 1


def test_picture_shape_and_key_tell_entries_apart(tmp_path: Path) -> None:
    method = Counting()
    cached = CachedProposals(method, tmp_path)
    for sample in (_sample(1), _sample(2), _sample(1, 4, 16), _sample(1, 16, 4)):
        cached(sample)
    CachedProposals(Counting("counting-2"), tmp_path)(_sample(1))
    assert method.calls == 4 and len(_files(tmp_path)) == 5


def test_no_boxes_are_an_entry_too(tmp_path: Path) -> None:
    class Nothing(Counting):
        def __call__(self, sample: Sample) -> np.ndarray:
            self.calls += 1
            return np.zeros((0, 4), np.float32)

    method = Nothing()
    cached = CachedProposals(method, tmp_path)
    assert cached(_sample(1)).shape == cached(_sample(1)).shape == (0, 4)
    assert method.calls == 1


def test_without_a_key_nothing_is_kept(tmp_path: Path) -> None:
    method = Counting(None)
    cached = CachedProposals(method, tmp_path / "cache")
    cached(_sample(1))
    cached(_sample(1))
    assert method.calls == 2 and not (tmp_path / "cache").exists() and not cached.has(_sample(1).image)


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[:-3], lambda b: b"", lambda b: b[:60] + bytes([b[60] ^ 1]) + b[61:], lambda b: b + b"x"],
)
def test_damaged_entry_is_noticed_and_computed_again(tmp_path: Path, damage) -> None:
    method = Counting()
    cached = CachedProposals(method, tmp_path)
    first = cached(_sample(9))
    path = cached.path(_sample(9).image)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match=rf"{path.name}: damaged proposal cache entry"):
        np.testing.assert_array_equal(cached(_sample(9)), first)
    np.testing.assert_array_equal(cached(_sample(9)), first)
    assert method.calls == 2


def test_every_single_flipped_bit_is_noticed() -> None:
    content = encoded(np.arange(8, dtype=np.float32).reshape(2, 4))
    for position in range(len(content)):
        with pytest.raises(DamagedEntry):
            decoded(content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])


def test_folder_that_cannot_be_written_warns_once_and_works(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file is in the way")  # holds for root too, unlike missing rights
    method = Counting()
    cached = CachedProposals(method, tmp_path / "cache")
    expected = method(_sample(1))
    with pytest.warns(UserWarning) as caught:
        np.testing.assert_array_equal(cached(_sample(1)), expected)
    assert "cannot cache proposals" in str(caught[-1].message)
    cached._keep(tmp_path / "cache" / "aa" / "x", b"")  # no second attempt, no second warning


def test_size_limit_evicts_the_longest_unused(tmp_path: Path) -> None:
    method = Counting()
    unlimited = CachedProposals(method, tmp_path)
    for value in range(10, 20):
        unlimited(_sample(value))
        path = unlimited.path(_sample(value).image)
        os.utime(path, (value, value))
    unlimited(_sample(10))  # used: now the youngest
    total = sum(path.stat().st_size for path in _files(tmp_path))
    limited = CachedProposals(method, tmp_path, max_bytes=total)
    limited(_sample(49))
    assert sum(path.stat().st_size for path in _files(tmp_path)) <= total
    assert (
        limited.has(_sample(10).image)
        and limited.has(_sample(49).image)
        and not limited.has(_sample(11).image)
    )
    assert evict(tmp_path, 10**9) == 0
    with pytest.raises(ValueError, match="max_bytes must be at least 1"):
        CachedProposals(method, tmp_path, max_bytes=0)


def test_clear_removes_only_what_is_ours(tmp_path: Path) -> None:
    cached = CachedProposals(Counting(), tmp_path)
    for value in range(5):
        cached(_sample(value))
    part = cached.path(_sample(0).image).parent
    others = [
        tmp_path / "photo.jpg",
        part / "notes.txt",
        part / f"mine{SUFFIX}",
        tmp_path / "ab" / "deep" / f"x{SUFFIX}",
    ]
    running, abandoned = part / f"{TEMPORARY}1{SUFFIX}", part / f"{TEMPORARY}2{SUFFIX}"
    for path in [*others, running, abandoned]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    os.utime(abandoned, (1, 1))
    files, size = clear(tmp_path)
    assert files == 6 and size > 5 * 80
    assert _files(tmp_path) == sorted([*others, running])
    with pytest.raises(ValueError, match="no such folder"):
        clear(tmp_path / "nowhere")


FILLING = """
import sys, time
import numpy as np
from tests.proposals.test_cache import Counting, _sample
from vistasks.proposals.cache import CachedProposals
cached = CachedProposals(Counting(), sys.argv[1])
print("ready", flush=True)
for value in np.random.default_rng(int(sys.argv[2])).permutation(int(sys.argv[3])):
    sample = _sample(int(value))
    assert np.array_equal(cached(sample), Counting()(sample))
    time.sleep(float(sys.argv[4]))
"""


def _fill_together(folder: Path, processes: int, killed: int, pictures: int, pause: float) -> None:
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", FILLING, str(folder), str(seed), str(pictures), str(pause)],
            stdout=subprocess.PIPE,
        )
        for seed in range(processes)
    ]
    for process in running:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    time.sleep(pictures * pause / 2)
    for process in running[:killed]:
        process.send_signal(signal.SIGKILL)
    codes = [process.wait() for process in running]
    for process in running:
        process.stdout.close()
    assert codes == [-signal.SIGKILL] * killed + [0] * (processes - killed)
    cached = CachedProposals(Counting(), folder)
    for value in range(pictures):
        entry = cached.path(_sample(value).image)
        np.testing.assert_array_equal(decoded(entry.read_bytes()), Counting()(_sample(value)))
    entries = [path for path in _files(folder) if not path.name.startswith(TEMPORARY)]
    assert len(entries) == pictures


def test_processes_fill_one_folder_while_one_is_killed(tmp_path: Path) -> None:
    _fill_together(tmp_path, 3, 1, 40, 0.01)


@pytest.mark.slow
def test_sixteen_processes_fill_one_folder_while_two_are_killed(tmp_path: Path) -> None:
    _fill_together(tmp_path, 16, 2, 250, 0.02)
