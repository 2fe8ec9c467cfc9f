from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as rle

from tests.paths import shared
from vistasks.datasets import Dataset, load_dataset
from vistasks.datasets.formats import coco_masks
from vistasks.datasets.formats.coco_json import _object
from vistasks.datasets.formats.coco_masks import decode_segmentation
from vistasks.datasets.problems import flag

HEIGHT, WIDTH = 20, 30


def runs(mask: np.ndarray) -> dict[str, Any]:
    """Uncompressed RLE, written out the slow way."""
    counts, value, length = [], False, 0
    for pixel in mask.ravel(order="F"):
        if bool(pixel) != value:
            counts.append(length)
            value, length = bool(pixel), 0
        length += 1
    return {"size": list(mask.shape), "counts": [*counts, length]}


def area(x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[y1:y2, x1:x2] = True
    return mask


def entry(number: int, image: int, category: int, bbox: list[Any], **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "bbox": bbox, **more}


def content() -> dict[str, Any]:
    polygon = [[2, 2, 12, 2, 12, 12, 2, 12]]
    compressed = rle.encode(np.asfortranarray(area(4, 4, 8, 8).astype(np.uint8)))
    size = {"height": HEIGHT, "width": WIDTH}
    counts = compressed["counts"].decode()
    return {
        "images": [{"id": 70, "file_name": "b.jpg", **size}, {"id": 5, "file_name": "a.jpg", **size}],
        "categories": [{"id": 90, "name": "brush"}, {"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
        "annotations": [
            # the small dog comes first in the file and must still be seen on the large person
            entry(9, 70, 18, [4, 4, 4, 4], area=16, segmentation={"size": [HEIGHT, WIDTH], "counts": counts}),
            entry(3, 70, 1, [2, 2, 10, 10], area=99.5, segmentation=polygon, iscrowd=0),
            entry(4, 70, 1, [0, 0, 30, 6], segmentation=runs(area(0, 0, 30, 6)), iscrowd=1),
        ],
    }


def write(root: Path, file: dict[str, Any] | str) -> Path:
    (root / "train").mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    for name in ("a", "b"):
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), 80, np.uint8)).save(root / "train" / f"{name}.jpg")
    text = file if isinstance(file, str) else json.dumps(file)
    (root / "annotations" / "instances_train.json").write_text(text)
    return root


def load(root: Path, **options: object) -> Dataset:
    return load_dataset({"format": "coco", "root": str(root), "split": "train", **options})


def test_boxes_ids_and_negatives(tmp_path: Path) -> None:
    dataset = load(write(tmp_path, content()))
    assert dataset.classes.detection == (
        "person",
        "dog",
        "brush",
    )  # in the order of the file's ids, without its gaps
    assert dataset.ids == ["b", "a"] and dataset.notes == [] and isinstance(dataset, Dataset)
    sample = dataset[0]
    assert sample.boxes.tolist() == [[4, 4, 8, 8], [2, 2, 12, 12], [0, 0, 30, 6]]
    assert sample.labels.tolist() == [1, 0, 0]
    assert sample.crowd is not None and sample.crowd.tolist() == [False, False, True]
    assert sample.areas is not None and sample.areas.tolist() == [
        16,
        99.5,
        180,
    ]  # the box's where none is written
    assert dataset[1].boxes.shape == (0, 4) and dataset[1].labelled.detection == {0, 1, 2}
    assert dataset.annotation(0).size == (HEIGHT, WIDTH)
    assert load(tmp_path, classes=["dog", "person", "brush"])[0].labels.tolist() == [0, 1, 1]
    assert load(tmp_path, labelled_classes=["dog"])[0].labelled.detection == {1}


def test_our_extra_key_difficult(tmp_path: Path) -> None:
    file = content()
    file["annotations"][1]["difficult"] = 1
    sample = load(write(tmp_path, file))[0]
    assert sample.difficult is not None and sample.difficult.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("value", "yes"), [("0", False), ("1", True), (False, False), (None, False), ("true", True)]
)
def test_flags_are_read_by_what_they_say(tmp_path: Path, value: object, yes: bool) -> None:
    assert flag(value, "iscrowd") is yes


@pytest.mark.parametrize("value", ["no way", 2, [], {}])
def test_a_flag_that_says_neither_is_a_fault(value: object) -> None:
    with pytest.raises(ValueError, match="iscrowd must be 0 or 1"):
        flag(value, "iscrowd")


def test_a_crowd_by_text(tmp_path: Path) -> None:
    for text, yes in (("0", False), ("1", True)):
        entry = {"id": 1, "bbox": [0, 0, 5, 5], "iscrowd": text, "difficult": text}
        found = _object(entry, "cat")
        assert (found.crowd, found.difficult) == (yes, yes)


def test_a_semantic_map_from_instances(tmp_path: Path) -> None:
    dataset = load(write(tmp_path, content()), tasks=["segment"])
    assert (
        dataset.classes.segmentation == ("background", "person", "dog", "brush")
        and dataset.classes.detection == ()
    )
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[area(0, 0, 30, 6)] = 255
    expected[area(2, 2, 12, 12)] = 1
    expected[area(4, 4, 8, 8)] = 2
    assert np.array_equal(dataset[0].segmentation, expected)
    assert np.array_equal(dataset[1].segmentation, np.zeros((HEIGHT, WIDTH)))
    assert dataset[0].labelled.segmentation == {0, 1, 2, 3} and len(dataset[0].boxes) == 0


def test_segmentation_classes_of_instances(tmp_path: Path) -> None:
    root = write(tmp_path, content())
    names = ["dog", "person", "brush"]
    dataset = load(root, tasks=["segment"], segmentation_classes=names)
    assert np.unique(dataset[0].segmentation).tolist() == [0, 1, 255]
    assert np.unique(dataset[1].segmentation).tolist() == [
        255
    ]  # no background: what no object covers is not known
    with pytest.raises(ValueError, match="segmentation_classes: 'brush' is missing"):
        load(root, tasks=["segment"], segmentation_classes=["background", "dog", "person"])
    with pytest.raises(ValueError, match="mask_values belongs to semantic: png"):
        load(root, tasks=["segment"], mask_values={0: "dog"})
    partly = load(root, tasks=["segment"], labelled_classes=["dog"])[0]
    assert partly.labelled.segmentation == {2}  # background may hide persons


def test_other_classes(tmp_path: Path) -> None:
    root = write(tmp_path, content())
    with pytest.raises(
        ValueError, match=r"id 3 'person' \(b\.jpg\): the class 'person' \(2 objects\) is not"
    ) as caught:
        load(root, classes=["dog"])
    assert "the files have: dog, person; classes has: dog" in str(caught.value)
    dataset = load(root, classes=["dog"], other_classes="drop", tasks=["detect", "segment"])
    assert dataset[0].labels.tolist() == [0] and dataset.notes == [
        "2 objects of other classes left out: person 2"
    ]
    assert np.unique(dataset[0].segmentation).tolist() == [0, 1]
    with pytest.raises(
        ValueError,
        match=r"classes: 'dgo' is not among the categories .*\. Did you mean 'dog'.* person, dog, brush",
    ):
        load(root, classes=["dgo"])


def test_bad_boxes(tmp_path: Path) -> None:
    file = content()
    boxes = ([1, 1, 0, 5], [1, 1, -3, 5], [1, 1, float("nan"), 5], [25, 1, 9, 5], [25, 1, 5.4, 5])
    file["annotations"] = [entry(number, 5, 1, list(bbox)) for number, bbox in enumerate(boxes)]
    root = write(tmp_path, file)
    with pytest.raises(ValueError, match="4 problems") as caught:
        load(root)
    text = str(caught.value)
    assert (
        "annotation id 0 'person' (a.jpg): box [1.0, 1.0, 0.0, 5.0] (x, y, width, height) has zero area"
        in text
    )
    assert "annotation id 1" in text and "is inverted" in text and "is not finite" in text
    assert "overhangs the 30x20 image by 4 pixels" in text and "annotation id 4" not in text
    assert [len(load(root, bad_boxes=policy)[1].boxes) for policy in ("clip", "drop")] == [2, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda f: f["annotations"][0].update(image_id=1),
            "annotation id 9: there is no image with the id 1",
        ),
        (
            lambda f: f["annotations"][0].update(category_id=2),
            "annotation id 9: there is no category with the id 2",
        ),
        (lambda f: f["annotations"][0].pop("bbox"), "annotation id 9: the key 'bbox' is missing"),
        (lambda f: f["annotations"][0].update(bbox=[1, 2, 3]), "annotation id 9: bbox must be four numbers"),
        (lambda f: f["annotations"].insert(0, 7), "annotation at position 0: "),
        (lambda f: f["images"][0].pop("file_name"), "image id 70: the key 'file_name' is missing"),
        (lambda f: f["images"][0].update(file_name=7), "image id 70: file_name must be text, not 7"),
        (lambda f: f["images"][1].update(id=70), "image id 70: duplicate id"),
        (lambda f: f["images"][1].update(file_name="b.jpg"), "the image 'b.jpg' is listed 2 times"),
        (
            lambda f: f["images"][1].update(file_name="gone.jpg"),
            "gone.jpg: missing, though instances_train.json lists it",
        ),
        (
            lambda f: f["images"][1].update(file_name="../../a.jpg"),
            "image id 5: the file name '../../a.jpg' points outside",
        ),
        (lambda f: f["images"].clear() or f["annotations"].clear(), "the list 'images' is empty"),
        (
            lambda f: f["categories"][1].update(id=90),
            "category id 90 'person': duplicate",
        ),
        (
            lambda f: f["categories"][1].update(name="dog"),
            "category id 18 'dog': duplicate",
        ),
        (lambda f: f.pop("categories"), "expected the list 'categories'; the file has: images, annotations"),
    ],
)
def test_bad_files(tmp_path: Path, change: Any, message: str) -> None:
    file = content()
    change(file)
    with pytest.raises(ValueError) as caught:
        load(write(tmp_path, file))
    assert message in str(caught.value) and "instances_train.json" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [],\n oops}', "line 2: not valid json"),
        ("[]", "expected a COCO file with the lists images, annotations, categories, not a list at the top"),
        ("", "line 1: not valid json"),
    ],
)
def test_files_that_are_no_coco_json(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"instances_train\.json.*{message}"):
        load(write(tmp_path, text))
    (tmp_path / "annotations" / "instances_train.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not a UTF-8 json file"):
        load(tmp_path)


def test_missing_files(tmp_path: Path) -> None:
    root = write(tmp_path, content())
    with pytest.raises(
        FileNotFoundError,
        match=r"annotations: there is no file .*trian\.json\. Did you mean 'instances_train",
    ):
        load(root, split=None, images="train", annotations="annotations/instances_trian.json")
    with pytest.raises(
        FileNotFoundError, match=r"images: there is no folder .*val\. Folders in .*: annotations, train"
    ):
        load(root, split="val")
    with pytest.raises(FileNotFoundError, match="vistasks data prepare coco2017"):
        load(root / "coco2017")


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "has no segmentation"),
        ([], "has no segmentation"),
        ([[1, 1, 5, 5]], "a polygon needs at least three x, y pairs, not 4 numbers"),
        ([[1, 1, 5, 5, 9, 9, 2]], "a polygon needs at least three x, y pairs, not 7 numbers"),
        ([7], "a polygon needs at least three x, y pairs, not 7"),
        ([[1, 1, 5, 5, float("nan"), 9]], "values that are not finite numbers"),
        ([[1, 1, 5, 5, 10**400, 9]], "a polygon's corner at 10000000000000000000 is far outside the 30x20"),
        ([[5, 5, 25, 5, 1e9, 25]], "a polygon's corner at 1000000000.0 is far outside the 30x20 image"),
        ([[5, 5, 25, 5, 25, -21]], "a polygon's corner at -21 is far outside the 30x20 image"),
        ([[5, 5, 25, 5, 61, 5]], "a polygon's corner at 61 is far outside the 30x20 image"),
        ([[0, 0, 30, 20, 0, 20]] * 100, "the outlines are longer than 5,600 pixels"),
        ([[1, 1] * 6000], "the outlines are longer than 5,600 pixels"),
        ({"size": 7, "counts": [600]}, "the RLE's size is 7, but the image is"),
        ({"size": [1, 2]}, "expected polygons, or an RLE with size and counts"),
        (
            {"size": [WIDTH, HEIGHT], "counts": [600]},
            r"the RLE's size is \[30, 20\], but the image is \[20, 30\]",
        ),
        ({"size": [HEIGHT, WIDTH], "counts": [599]}, "the RLE's runs must add up to 600 pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": [700, -100]}, "the RLE's runs must add up to 600 pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": 7}, "the RLE's counts must be a list or text"),
    ],
)
def test_bad_segmentations(tmp_path: Path, segmentation: object, message: str) -> None:
    file = content()
    file["annotations"][1]["segmentation"] = segmentation
    root = write(tmp_path, file)
    with pytest.raises(ValueError, match=rf"annotation id 3 'person': .*{message}"):
        load(root, tasks=["segment"])
    load(root)  # boxes alone do not need it


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("05", "runs must add up to 600 pixels, but they are damaged"),
        ("0o", "counts cannot be decoded; the text is damaged or cut off"),
        ("0 5", "counts cannot be decoded; the text is damaged or cut off"),
        ("é", "counts cannot be decoded; the text is damaged or cut off"),
        ("oooooooo1", "counts cannot be decoded; a number has too many digits"),
    ],
)
def test_damaged_compressed_rle(tmp_path: Path, counts: str, message: str) -> None:
    file = content()
    file["annotations"][0]["segmentation"]["counts"] = counts
    dataset = load(write(tmp_path, file), tasks=["segment"])
    with pytest.raises(
        ValueError, match=rf"instances_train\.json annotation id 9: segmentation: the RLE's {message}"
    ):
        dataset[0]


@settings(deadline=None, max_examples=60)
@given(arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_both_run_lengths_decode_to_the_mask(mask: np.ndarray) -> None:
    size = mask.shape[0], mask.shape[1]
    compressed = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert np.array_equal(decode_segmentation(runs(mask), size), mask)
    assert decode_segmentation(runs(mask), size).shape == size
    assert np.array_equal(
        decode_segmentation({"size": list(size), "counts": compressed["counts"].decode()}, size), mask
    )


def test_polygons_with_several_parts() -> None:
    parts = [[0, 0, 4, 0, 4, 4, 0, 4], [10, 10, 14, 10, 14, 14, 10, 14]]
    assert np.array_equal(
        decode_segmentation(parts, (HEIGHT, WIDTH)), area(0, 0, 4, 4) | area(10, 10, 14, 14)
    )


def test_index_pngs(tmp_path: Path) -> None:
    root = write(tmp_path, content())
    options = {"tasks": ["detect", "segment"], "semantic": "png", "semantic_png": "stuff_{split}"}
    with pytest.raises(FileNotFoundError, match=r"semantic_png: there is no folder .*stuff_train"):
        load(root, **options)
    (root / "stuff_train").mkdir()
    Image.fromarray(np.where(area(0, 0, 5, 5), 92, 0).astype(np.uint8)).save(root / "stuff_train" / "a.png")
    with pytest.raises(ValueError, match=r"b\.png: missing mask"):
        load(root, **options, mask_values={92: "sky", 0: "ignore"})
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(root / "stuff_train" / "b.png")
    dataset = load(root, **options, mask_values={92: "sky", 0: "ignore"})
    assert dataset.classes.segmentation == ("sky",)
    assert np.array_equal(dataset[1].segmentation, np.where(area(0, 0, 5, 5), 0, 255))
    assert len(dataset[0].boxes) == 3 and dataset[0].labelled.segmentation == {0}
    with pytest.raises(ValueError, match="semantic_png is missing: semantic: png needs the folder"):
        load(root, tasks=["segment"], semantic="png")


def panoptic(root: Path, ids: np.ndarray, segments: list[dict[str, Any]]) -> dict[str, object]:
    (root / "pan").mkdir(exist_ok=True)
    rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    annotations = []
    for number, name in ((70, "b"), (5, "a")):
        Image.fromarray(rgb).save(root / "pan" / f"{name}.png")
        annotations.append({"image_id": number, "file_name": f"{name}.png", "segments_info": segments})
    categories = [{"id": 200, "name": "sky"}, {"id": 1, "name": "person"}]
    (root / "pan.json").write_text(json.dumps({"annotations": annotations, "categories": categories}))
    return {"tasks": ["segment"], "semantic": "panoptic", "semantic_png": "pan", "panoptic_json": "pan.json"}


def test_panoptic_pngs(tmp_path: Path) -> None:
    root = write(tmp_path, content())
    ids = np.zeros((HEIGHT, WIDTH), dtype=np.int64)
    ids[:5], ids[5:8], ids[8:9] = 300 + 65536 * 7, 255, 1000
    segments = [
        {"id": 300 + 65536 * 7, "category_id": 200},
        {"id": 255, "category_id": 1, "iscrowd": 0},
        {"id": 1000, "category_id": 1, "iscrowd": 1},
    ]
    options = panoptic(root, ids, segments)
    dataset = load(root, **options)
    assert dataset.classes.segmentation == ("person", "sky")
    expected = np.full((HEIGHT, WIDTH), 255, np.uint8)
    expected[:5], expected[5:8] = 1, 0
    assert np.array_equal(dataset[0].segmentation, expected)
    only_sky = load(root, **options, segmentation_classes=["sky"])
    assert np.array_equal(only_sky[0].segmentation, np.where(expected == 1, 0, 255))
    with pytest.raises(
        ValueError,
        match=r"segmentation_classes: 'sly' is not among the categories of .*\. Did you mean 'sky'",
    ):
        load(root, **options, segmentation_classes=["sly"])
    with pytest.raises(ValueError, match="panoptic_json is missing"):
        load(root, **{**options, "panoptic_json": None})
    panoptic(root, ids, segments[1:])
    with pytest.raises(
        ValueError, match=r"b\.png: the segment ids \[459052\] are in the png but not in the panoptic json"
    ):
        load(root, **options)[0]


def test_panoptic_files_that_are_missing(tmp_path: Path) -> None:
    root = write(tmp_path, content())
    options = panoptic(root, np.zeros((HEIGHT, WIDTH), dtype=np.int64), [])
    (root / "pan" / "a.png").unlink()
    with pytest.raises(ValueError, match=r"a\.png: missing panoptic png"):
        load(root, **options)
    (root / "pan.json").write_text('{"annotations": [{"image_id": 5}], "categories": []}')
    with pytest.raises(
        ValueError, match=r"panoptic annotation at position 0: needs (.*\n)*.*no annotation for image id 70"
    ):
        load(root, **options)


def test_corners_about_the_picture_are_cut_at_its_border() -> None:
    """As labelling tools leave them; pycocotools does the cutting."""
    mask = decode_segmentation([[-30, -20, 60, -20, 60, 10, -30, 10]], (HEIGHT, WIDTH))
    assert mask[:10].all() and not mask[10:].any()


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (
            {"height": 10**6, "width": 10**6},
            r"image id 70: 1000000x1000000 pixels are more than data\.max_pixels",
        ),
        ({"height": -20, "width": 30}, "image id 70: height and width must be over 0"),
    ],
)
def test_sizes_that_take_all_memory(tmp_path: Path, size: dict[str, int], message: str) -> None:
    file = content()
    file["images"][0].update(size)
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path, file), tasks=["segment"])
    kept = load(tmp_path, tasks=["segment"], on_error="skip")
    assert kept.ids == ["a"] and len(kept.skipped) >= 1


def test_the_size_is_compared_before_anything_is_painted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = content()
    file["images"][0].update(height=5000, width=5000)
    file["annotations"][:] = [entry(3, 70, 1, [2, 2, 9, 9], segmentation=[[2, 2, 4000, 2, 4000, 4000]])]
    dataset = load(write(tmp_path, file), tasks=["detect", "segment"])
    monkeypatch.setattr(rle, "frPyObjects", lambda *_: pytest.fail("painted"))
    with pytest.raises(
        ValueError, match=r"b\.jpg: the image is 30x20 pixels, but its annotation says 5000x5000"
    ):
        dataset[0]


def test_runs_whose_sum_overflows(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = np.array([2**62, 2**62, 2**62, 2**62 + HEIGHT * WIDTH], dtype=np.int64)
    with np.errstate(over="ignore"):
        assert runs.sum() == HEIGHT * WIDTH
    monkeypatch.setattr(coco_masks, "_decompressed", lambda text: runs)
    with pytest.raises(ValueError, match="they are damaged"):
        decode_segmentation({"size": [HEIGHT, WIDTH], "counts": "0"}, (HEIGHT, WIDTH))


def test_sizes_that_the_json_does_not_tell_or_tells_wrongly(tmp_path: Path) -> None:
    file = content()
    for image in file["images"]:
        del image["height"]
    assert load(write(tmp_path, file)).annotation(0).size == (HEIGHT, WIDTH)
    file["images"][0].update(height=WIDTH, width=HEIGHT)
    file["annotations"] = []
    with pytest.raises(ValueError, match=r"b\.jpg: the image is 30x20 pixels, but its annotation says 20x30"):
        load(write(tmp_path, file))[0]


def test_ids_keep_the_suffix_where_it_alone_tells_images_apart(tmp_path: Path) -> None:
    file = content()
    file["images"][0]["file_name"] = "a.png"
    write(tmp_path, file)
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / "train" / "a.png")
    assert load(tmp_path).ids == ["a.png", "a.jpg"]


@settings(deadline=None, max_examples=150)
@given(st.text(alphabet=[chr(code) for code in range(48, 112)], max_size=12))
def test_any_text_of_counts_decodes_as_pycocotools_does_or_is_refused(text: str) -> None:
    try:
        mask = decode_segmentation({"size": [HEIGHT, WIDTH], "counts": text}, (HEIGHT, WIDTH))
    except ValueError:
        return
    again = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert rle.area(again) == rle.area({"size": [HEIGHT, WIDTH], "counts": text.encode()}) == mask.sum()


def test_the_referee_s_masks_on_real_annotations() -> None:
    path = shared("coco_mini") / "annotations" / "instances_val.json"
    file = json.loads(path.read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in file["images"]}
    kinds = set()
    for found in file["annotations"]:
        size, segmentation = sizes[found["image_id"]], found["segmentation"]
        encoded = rle.frPyObjects(segmentation, *size)
        encoded = rle.merge(encoded) if isinstance(segmentation, list) else encoded
        mask = decode_segmentation(segmentation, size)
        kinds.add(type(segmentation))
        assert mask.sum() == rle.area(encoded)
        assert rle.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"] == encoded["counts"]
    assert kinds == {list, dict}
