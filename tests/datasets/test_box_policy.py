from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vistasks.datasets.box_policy import BadBoxes, BoxChecker, box_fault
from vistasks.types import Sample

HEIGHT, WIDTH = 60, 80
POLICIES: tuple[BadBoxes, ...] = ("error", "clip", "drop")


def checked(
    box: list[float], policy: BadBoxes, least_side: float = 0.0
) -> tuple[np.ndarray | None, BoxChecker]:
    one = BoxChecker(policy)
    found = one.check(
        np.array(box), (HEIGHT, WIDTH), place="a.xml object 3 'cat'", text=str(box), least_side=least_side
    )
    return found, one


@pytest.mark.parametrize("policy", POLICIES)
def test_good_boxes_pass_unchanged(policy: BadBoxes) -> None:
    found, one = checked([0, 0, WIDTH, HEIGHT], policy)
    assert found is not None and found.tolist() == [0, 0, WIDTH, HEIGHT] and found.dtype == np.float32
    assert not one.errors and not one.notes


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    "box", [[-1, 5, 20, 20], [5, -0.5, 20, 20], [5, 5, WIDTH + 1, 20], [5, 5, 20, HEIGHT + 0.01]]
)
def test_one_pixel_of_overhang_is_clipped_and_counted_under_every_policy(
    policy: BadBoxes, box: list[float]
) -> None:
    found, one = checked(box, policy)
    assert found is not None
    assert found.tolist() == np.clip(box, 0, [WIDTH, HEIGHT, WIDTH, HEIGHT]).astype(np.float32).tolist()
    assert not one.errors
    assert (
        len(one.notes) == 1
        and "1 boxes overhung by at most 1 pixel" in one.notes[0]
        and "a.xml object 3" in one.notes[0]
    )


def test_overhang_by_more(box: tuple[float, ...] = (-3, 5, 20, 20)) -> None:
    for policy in ("error", "drop"):
        found, one = checked(list(box), policy)
        text = "overhangs the 80x60 image by 3 pixels"
        assert found is None and text in (one.errors if policy == "error" else one.notes)[0]
    found, one = checked(list(box), "clip")
    assert found is not None and found.tolist() == [0, 5, 20, 20]
    assert one.notes == ["1 boxes clipped to their image: a.xml object 3 'cat': box [-3, 5, 20, 20]"]


@pytest.mark.parametrize(
    ("box", "fault"),
    [
        ([5, 5, 5, 20], "has zero area"),
        ([20, 5, 5, 20], "is inverted"),
        ([5, 20, 20, 5], "is inverted"),
        ([math.nan, 5, 20, 20], "is not finite"),
        ([5, 5, math.inf, 20], "is not finite"),
        ([100, 5, 120, 20], "lies outside the 80x60 image"),
        ([-20, -20, 0, 0], "lies outside the 80x60 image"),
    ],
)
def test_what_cannot_be_mended(box: list[float], fault: str) -> None:
    found, one = checked(box, "error")
    assert found is None and one.errors == [f"a.xml object 3 'cat': box {box} {fault}"]
    assert "bad_boxes: drop" in one.advice and not one.notes
    for policy in ("clip", "drop"):
        found, one = checked(box, policy)
        assert found is None and not one.errors and not one.advice
        assert one.notes == [f"1 box dropped: a.xml object 3 'cat': box {box} {fault}"]


def test_a_click_without_extent_has_zero_area_under_inclusive_corners() -> None:
    assert checked([4, 4, 5, 5], "error")[0] is not None
    found, one = checked([4, 4, 5, 5], "error", least_side=1.0)
    assert found is None and "zero area" in one.errors[0]
    assert "inverted" in checked([4, 4, 4.5, 9], "error", least_side=1.0)[1].errors[0]


def test_notes_count_all_and_show_some() -> None:
    one = BoxChecker("drop")
    for number in range(9):
        one.check(np.zeros(4), (HEIGHT, WIDTH), place=f"f{number}", text="[0]")
    assert one.notes[0].startswith("9 boxes dropped: f0: ") and one.notes[0].endswith("; and 4 more")


numbers = st.floats(width=64, allow_nan=True, allow_infinity=True) | st.floats(-5, 90)


@settings(deadline=None, max_examples=300)
@given(
    box=st.tuples(numbers, numbers, numbers, numbers),
    policy=st.sampled_from(POLICIES),
    least=st.sampled_from([0.0, 1.0]),
)
def test_whatever_passes_is_a_box_of_a_sample(box: tuple[float, ...], policy: BadBoxes, least: float) -> None:
    found, one = checked(list(box), policy, least)
    if found is None:
        assert len(one.errors) + len(one.notes) == 1
        return
    Sample(
        "a", "a.jpg", np.zeros((HEIGHT, WIDTH, 3), np.uint8), boxes=found[None], labels=np.zeros(1, np.int64)
    )
    fault, overhang = box_fault(np.array(box), HEIGHT, WIDTH, least_side=least)
    assert fault is None and (policy == "clip" or overhang <= 1)
    assert np.abs(found - np.array(box)).max() <= overhang + 1e-5
