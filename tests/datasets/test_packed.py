"""Packed lists behave like the lists that they replace."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vistasks.datasets.packed import PackedStrings, PackedValues, SharedArrays


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=5), max_size=5))
def test_strings_are_a_sequence_equal_to_the_list(texts: list[str]) -> None:
    packed = PackedStrings(texts)
    assert (
        packed == texts and list(packed) == texts and len(packed) == len(texts) and packed[1:3] == texts[1:3]
    )
    assert [packed[index] for index in range(-len(texts), len(texts))] == texts + texts
    assert pickle.loads(pickle.dumps(packed)) == texts
    for index in (len(texts), -len(texts) - 1):
        with pytest.raises(IndexError):
            packed[index]


def test_names_that_are_no_utf8_survive() -> None:
    name = b"bild_\xe4.jpg".decode("utf-8", "surrogateescape")  # as os.listdir gives a Latin-1 name
    assert (
        PackedStrings([name])[0] == name
        and PackedStrings(["a"]) != ["b"]
        and "a..." not in repr(PackedStrings(["a"]))
    )


def test_values_come_back() -> None:
    values = [[1, "a", [0.5, 2.5]], None, {"b": []}]
    packed = PackedValues(values)
    assert [packed[index] for index in range(len(packed))] == values


def test_arrays_keep_type_shape_and_size() -> None:
    arrays = {
        "a": np.arange(6, dtype=np.int16).reshape(2, 3),
        "none": np.zeros((0, 4), np.float32),
        "b": np.array([True]),
    }
    shared = SharedArrays(arrays)
    copy = pickle.loads(pickle.dumps(shared))
    assert shared.nbytes == 13
    for name, array in arrays.items():
        assert (
            np.array_equal(copy[name], array)
            and copy[name].dtype == array.dtype
            and copy[name].shape == array.shape
        )
