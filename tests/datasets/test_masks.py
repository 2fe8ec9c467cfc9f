from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vistasks.datasets.masks import colour_coding, index_coding


def save(path: Path, values: object) -> Path:
    Image.fromarray(np.array(values, dtype=np.uint8)).save(path)
    return path


def test_values_through_a_map(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", [[7, 7, 0], [33, 8, 255]])
    coding = index_coding({7: "road", 8: "pavement", 33: "road", 0: "ignore", 255: "ignore"}, None)
    assert coding.classes == ("road", "pavement") and coding.covered == {0, 1}
    assert coding.read(path).tolist() == [[0, 0, 255], [0, 1, 255]]
    assert coding.read(path).dtype == np.uint8
    ordered = index_coding(
        {7: "road", 8: "pavement", 33: "road", 0: "ignore", 255: "ignore"}, ["pavement", "sky", "road"]
    )
    assert ordered.covered == {0, 2}  # sky is in no value: not labelled
    assert ordered.read(path).tolist() == [[2, 2, 255], [2, 0, 255]]


def test_the_order_of_the_map_does_not_matter() -> None:
    assert (
        index_coding({1: "b", 0: "a"}, None).classes
        == index_coding({0: "a", 1: "b"}, None).classes
        == ("a", "b")
    )


def test_classes_alone_mean_value_i_is_class_i(tmp_path: Path) -> None:
    coding = index_coding(None, ["background", "cat"])
    assert coding.read(save(tmp_path / "m.png", [[0, 1, 255]])).tolist() == [[0, 1, 255]]


def test_16_bit_values(tmp_path: Path) -> None:
    Image.fromarray(np.array([[1000, 2000]], dtype=np.uint16)).save(tmp_path / "m.png")
    assert index_coding({1000: "a", 2000: "ignore"}, None).read(tmp_path / "m.png").tolist() == [[0, 255]]


def test_a_value_that_the_map_does_not_name(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", [[0, 12, 12], [0, 12, 200]])
    with pytest.raises(
        ValueError,
        match=r"m\.png: mask value 12 \(3 pixels\), 200 \(1 pixel\) is not in mask_values \(0: sky\)",
    ):
        index_coding({0: "sky"}, None).read(path)


def test_many_unknown_values_are_counted(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", [list(range(1, 31))])
    with pytest.raises(ValueError, match=r"10 \(1 pixel\) and 20 more is not in"):
        index_coding({0: "sky"}, None).read(path)


def test_negative_and_huge_values_in_files(tmp_path: Path) -> None:
    Image.fromarray(np.array([[-1, 70000]], dtype=np.int32)).save(tmp_path / "m.tif")
    with pytest.raises(ValueError, match=r"m\.tif: mask values -1\.\.70000 do not fit"):
        index_coding({0: "sky"}, None).read(tmp_path / "m.tif")


@pytest.mark.parametrize(
    ("values", "classes", "message"),
    [
        (
            None,
            None,
            "segmentation_classes .* or mask_values",
        ),
        ({-1: "plate"}, None, r"mask_values: values must lie in 0\.\.65535, but there is -1"),
        (
            {0: "rod"},
            ["road", "sky"],
            "mask_values names the class 'rod'.* Did you mean 'road'.*segmentation_classes: road, sky",
        ),
        ({0: "road"}, ["road", "ignore"], "'ignore' is the reserved name"),
        ({0: "road"}, ["road", "road"], "duplicate name"),
        (None, [str(i) for i in range(256)], "at most 255 classes"),
        ({i: str(i) for i in range(256)}, None, "at most 255 classes"),
    ],
)
def test_bad_maps(values: dict[int, str] | None, classes: list[str] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        index_coding(values, classes)


def test_colours(tmp_path: Path) -> None:
    path = save(
        tmp_path / "m.png",
        [[[128, 64, 128], [0, 0, 0], [0, 0, 142]], [[0, 0, 70], [0, 0, 142], [128, 64, 128]]],
    )
    coding = colour_coding(
        {"ignore": (0, 0, 0), "car": [(0, 0, 142), (0, 0, 70)], "road": (128, 64, 128)}, ["road", "car"]
    )
    assert coding.classes == ("road", "car") and coding.covered == {0, 1}
    assert coding.read(path).tolist() == [[0, 255, 1], [1, 1, 0]]
    with pytest.raises(
        ValueError,
        match=r"m\.png: mask value \[0, 0, 70\] \(1 pixel\) is not in mask_colours \(its classes: ",
    ):
        colour_coding(
            {"ignore": (0, 0, 0), "car": (0, 0, 142), "road": (128, 64, 128)}, ["road", "car"]
        ).read(path)


def test_bad_colour_tables() -> None:
    with pytest.raises(
        ValueError, match=r"mask_colours needs segmentation_classes, the order .*; it names: road, car"
    ):
        colour_coding({"road": (1, 2, 3), "car": (1, 2, 4)}, None)
    with pytest.raises(ValueError, match=r"the colour \[1, 2, 3\] is given to two classes"):
        colour_coding({"road": (1, 2, 3), "car": (1, 2, 3)}, ["road", "car"])
    with pytest.raises(ValueError, match=r"mask_colours\.road: a colour is three values 0\.\.255"):
        colour_coding({"road": (1, 2, 300)}, ["road"])
    with pytest.raises(
        ValueError, match="mask_colours names the class 'rod', which segmentation_classes does not have"
    ):
        colour_coding({"rod": (1, 2, 3)}, ["road"])


def test_codings_travel_to_spawned_workers(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", [[0, 1]])
    coding = pickle.loads(pickle.dumps(index_coding(None, ["a", "b"])))
    assert coding.read(path).tolist() == [[0, 1]]
    pickle.loads(pickle.dumps(colour_coding({"a": (0, 0, 0)}, ["a"])))
