from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.datasets.formats.voc_files import (
    HEIGHT,
    WIDTH,
    voc_folder,
    write_image,
    write_list,
    write_mask,
    write_xml,
    xml_text,
)
from vistasks.datasets import Dataset, load_dataset
from vistasks.datasets.formats.voc_xml import read_voc_xml
from vistasks.datasets.problems import DataFaults

CAT = ("cat", (11, 6, 30, 25))
DOG = ("dog", (1, 1, WIDTH, HEIGHT))


def load(root: Path, **options: object) -> Dataset:
    return load_dataset({"format": "voc", "root": str(root), "split": "train", **options})


def test_coordinates_are_1_based_and_inclusive(tmp_path: Path) -> None:
    dataset = load(voc_folder(tmp_path, {"a": [CAT, DOG]}))
    sample = dataset[0]
    assert sample.boxes.tolist() == [[10, 5, 30, 25], [0, 0, WIDTH, HEIGHT]]
    assert sample.labels.tolist() == [0, 1] and dataset.classes.detection == ("cat", "dog")
    assert sample.image.shape == (HEIGHT, WIDTH, 3) and sample.segmentation is None
    assert sample.labelled.detection == {0, 1} and not sample.labelled.segmentation
    assert dataset.ids == ["a"] and Path(dataset.paths[0]).name == "a.jpg" and dataset.notes == []
    assert isinstance(dataset, Dataset)


def test_coordinates_as_written(tmp_path: Path) -> None:
    dataset = load(voc_folder(tmp_path, {"a": [("cat", (0, 0, 30, 25.5))]}), one_based=False)
    assert dataset[0].boxes.tolist() == [[0, 0, 30, 25.5]]


def test_float_coordinates_and_difficult_flags(tmp_path: Path) -> None:
    voc_folder(
        tmp_path, {"a": [("cat", ("11.25", " 6.5 ", "3e1", "25.0"))]}, extra="<difficult>1</difficult>"
    )
    sample = load(tmp_path)[0]
    assert sample.boxes.tolist() == [[10.25, 5.5, 30, 25]]
    assert sample.difficult is not None and sample.difficult.tolist() == [True]


def test_the_annotation_is_the_sample_without_pixels(tmp_path: Path) -> None:
    dataset = load(voc_folder(tmp_path, {"a": [], "b": [CAT, DOG], "c": [DOG]}))
    for index in range(3):
        sample, found = dataset[index], dataset.annotation(index)
        for name in ("boxes", "labels", "difficult", "crowd", "areas"):
            assert np.array_equal(getattr(sample, name), getattr(found, name))
        assert found.size == sample.size == (HEIGHT, WIDTH) and found.labelled == sample.labelled
    found.boxes[:] = 7  # a copy: the data set stays as it is
    assert dataset.annotation(2).boxes.tolist() == [[0, 0, WIDTH, HEIGHT]]


def test_images_without_objects_are_labelled_negatives(tmp_path: Path) -> None:
    dataset = load(voc_folder(tmp_path, {"a": []}), classes=["cat"])
    assert dataset[0].boxes.shape == (0, 4) and dataset[0].labelled.detection == {0}
    assert len(load(tmp_path)) == 1  # even if no class is known at all


def test_parts_of_objects_are_no_objects(tmp_path: Path) -> None:
    voc_folder(tmp_path, {"a": [("person", (1, 1, 9, 9))]}, extra="<part><name>head</name><bndbox/></part>")
    assert load(tmp_path).classes.detection == ("person",)


@pytest.mark.parametrize("suffix", [".jpeg", ".png", ".BMP", ".tif"])
def test_other_image_types_and_names_with_suffix(tmp_path: Path, suffix: str) -> None:
    write_image(tmp_path / "JPEGImages" / f"a.b{suffix}")
    write_xml(tmp_path / "Annotations" / "a.b.xml", [CAT], filename=None)
    write_list(tmp_path, "train", [f"a.b{suffix}", ""])
    write_list(tmp_path, "plain", ["  a.b"])
    assert load(tmp_path).ids == load(tmp_path, split="plain").ids == ["a.b"]


def test_the_filename_in_the_xml_helps_where_the_name_does_not(tmp_path: Path) -> None:
    write_image(tmp_path / "JPEGImages" / "photo.png")
    write_xml(tmp_path / "Annotations" / "0001.xml", [CAT], filename="photo.png")
    write_list(tmp_path, "train", ["0001"])
    dataset = load(tmp_path)
    assert dataset.ids == ["0001"] and dataset.paths[0].endswith("photo.png")


OUTSIDE = ["/etc/passwd", "../../a.jpg", "C:\\a.jpg", "..\\..\\a.jpg", "\\\\host\\a.jpg", "b/../../../a.jpg"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_filename_outside_the_root_is_refused(tmp_path: Path, name: str) -> None:
    root = voc_folder(tmp_path / "set", {"a": [CAT]}, filename=name)
    with pytest.raises(
        ValueError, match=r"a\.xml: the file name .* points outside the data folder .*; refused"
    ):
        load(root)


def test_a_listed_name_outside_the_root_is_refused(tmp_path: Path) -> None:
    root = voc_folder(tmp_path / "set", {"a": [CAT]})
    write_list(root, "train", ["../../../secret"])
    with pytest.raises(ValueError, match=r"train\.txt: the file name '\.\./\.\./\.\./secret' points outside"):
        load(root)
    with pytest.raises(ValueError, match="points outside"):
        load(root, split="../../../train")


def test_names_inside_the_root_may_take_detours(tmp_path: Path) -> None:
    load(voc_folder(tmp_path / "set", {"a": [CAT]}, filename="../JPEGImages/a.jpg"))


def test_all_bad_boxes_are_told_at_once(tmp_path: Path) -> None:
    voc_folder(
        tmp_path,
        {
            "a": [CAT, ("cat", (5, 5, 5, 5)), ("dog", ("nan", 1, 2, 3))],
            "b": [("dog", (30, 5, 10, 9)), ("dog", (1, 1, WIDTH + 9, 9)), ("cat", (100, 1, 200, 9))],
        },
    )
    with pytest.raises(DataFaults) as caught:
        load(tmp_path)
    lines = str(caught.value).splitlines()
    assert "split 'train': 5 problems" in lines[0] and len(caught.value.faults) == 5
    assert lines[1].endswith("a.xml object 2 'cat': box [5, 5, 5, 5] has zero area")
    assert lines[2].endswith("a.xml object 3 'dog': box [nan, 1, 2, 3] is not finite")
    assert lines[3].endswith("b.xml object 1 'dog': box [30, 5, 10, 9] is inverted")
    assert lines[4].endswith("b.xml object 2 'dog': box [1, 1, 69, 9] overhangs the 60x40 image by 9 pixels")
    assert lines[5].endswith("b.xml object 3 'cat': box [100, 1, 200, 9] lies outside the 60x40 image")
    assert "bad_boxes: drop" in lines[6]
    dropped, clipped = load(tmp_path, bad_boxes="drop"), load(tmp_path, bad_boxes="clip")
    assert [len(dropped[i].boxes) for i in range(2)] == [1, 0] and dropped.notes[0].startswith(
        "5 boxes dropped: "
    )
    assert clipped[1].boxes.tolist() == [[0, 0, WIDTH, 9]]
    assert [note.split(":")[0] for note in clipped.notes] == [
        "4 boxes dropped",
        "1 boxes clipped to their image",
    ]


def test_zero_based_corners_are_clipped_by_a_pixel_and_counted(tmp_path: Path) -> None:
    dataset = load(voc_folder(tmp_path, {"a": [("cat", (0, 0, 20, 20))]}))
    assert dataset[0].boxes.tolist() == [[0, 0, 20, 20]]
    assert "overhung by at most 1 pixel" in dataset.notes[0] and "a.xml object 1 'cat'" in dataset.notes[0]


def test_only_the_first_20_faults_are_shown(tmp_path: Path) -> None:
    voc_folder(tmp_path, {"a": [("cat", (5, 5, 5, 5))] * 33})
    with pytest.raises(ValueError, match=r"33 problems(.*\n)+  \.\.\. and 13 more") as caught:
        load(tmp_path)
    assert str(caught.value).count("zero area") == 20


def test_unknown_classes_show_both_lists(tmp_path: Path) -> None:
    voc_folder(tmp_path, {"a": [CAT, DOG], "b": [DOG]})
    with pytest.raises(ValueError) as caught:
        load(tmp_path, classes=["cat", "dogs"])
    assert "a.xml object 2 'dog': the class 'dog' (2 objects) is not in classes. Did you mean 'dogs'?" in str(
        caught.value
    )
    assert "the files have: cat, dog; classes has: cat, dogs" in str(caught.value)
    dataset = load(tmp_path, classes=["cat"], other_classes="drop")
    assert [len(dataset[i].boxes) for i in range(2)] == [1, 0]
    assert dataset.notes == ["2 objects of other classes left out: dog 2"]


def test_class_names(tmp_path: Path) -> None:
    root = voc_folder(tmp_path, {"a": [CAT], "b": [DOG]})
    write_list(root, "one", ["a"])
    assert load(root, split="one").classes.detection == (
        "cat",
        "dog",
    )  # of all xml files, so that splits agree
    assert load(root, classes=["dog", "cat"])[0].labels.tolist() == [1]
    with pytest.raises(ValueError, match=r"classes: .*\['cat', 'cat'\]"):
        load(root, classes=["cat", "cat"])
    assert load(root, labelled_classes=["dog"])[0].labelled.detection == {1}
    with pytest.raises(
        ValueError, match=r"labelled_classes: 'dug' is not among the classes\. Did you mean 'dog'.* cat, dog"
    ):
        load(root, labelled_classes=["dug"])


def test_missing_files_are_told_at_once(tmp_path: Path) -> None:
    root = voc_folder(tmp_path, {"a": [CAT], "b": [CAT], "c": [CAT]})
    (root / "Annotations" / "a.xml").unlink()
    (root / "JPEGImages" / "b.jpg").unlink()
    (root / "JPEGImages" / "c.jpg").write_bytes(b"")
    with pytest.raises(ValueError) as caught:
        load(root)
    text = str(caught.value)
    assert "3 problems" in text and "a.xml: missing, though the list names 'a'" in text
    assert "b.*: no image of this name, nor 'b.jpg'" in text and "c.jpg: the file is empty" in text


def test_two_images_of_one_name(tmp_path: Path) -> None:
    root = voc_folder(tmp_path, {"a": [CAT]})
    write_image(root / "JPEGImages" / "a.png")
    with pytest.raises(ValueError, match=r"'a' may mean a\.jpg or a\.png; remove all but one"):
        load(root)


def test_the_size_in_the_xml_must_be_the_image_s(tmp_path: Path) -> None:
    root = voc_folder(tmp_path, {"a": [CAT]}, size=(80, 120))
    with pytest.raises(
        ValueError, match=r"a\.xml: <size> says 120x80, but .*a\.jpg is 60x40, so the boxes were drawn"
    ):
        load(root)
    for size in (None, (0, 0)):
        write_xml(root / "Annotations" / "a.xml", [CAT], size=size)
        assert load(root).annotation(0).size == (HEIGHT, WIDTH)


def test_boxes_drawn_on_the_image_before_its_exif_rotation(tmp_path: Path) -> None:
    root = voc_folder(tmp_path, {"a": [CAT]})
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(root / "JPEGImages" / "a.jpg", exif=exif)
    with pytest.raises(ValueError, match=r"is 40x60 \(its EXIF orientation applied\)"):
        load(root)
    write_xml(root / "Annotations" / "a.xml", [CAT], size=(WIDTH, HEIGHT))
    assert load(root)[0].size == (WIDTH, HEIGHT)


def test_a_bare_folder(tmp_path: Path) -> None:
    for stem in ("b", "a"):
        write_image(tmp_path / f"{stem}.png")
        write_xml(tmp_path / f"{stem}.xml", [CAT], filename=f"{stem}.png")
    write_image(tmp_path / "without_xml.png")
    dataset = load(tmp_path, split=None)
    assert dataset.ids == ["a", "b"] and dataset[1].boxes.tolist() == [[10, 5, 30, 25]]
    assert load(tmp_path.parent, split=tmp_path.name).ids == ["a", "b"]


def test_annotations_without_lists(tmp_path: Path) -> None:
    root = voc_folder(tmp_path, {"a": [CAT], "b": [DOG]})
    for path in (root / "ImageSets").rglob("*.txt"):
        path.unlink()
    (root / "ImageSets" / "Main").rmdir()
    (root / "ImageSets").rmdir()
    assert load(root, split=None).ids == ["a", "b"]


def test_lists_beside_main(tmp_path: Path) -> None:
    root = voc_folder(tmp_path, {"a": [CAT]})
    (root / "ImageSets" / "own.txt").write_text("a\n")
    assert load(root, split="own").ids == ["a"]


def test_missing_roots_folders_and_lists(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"voc2007 does not exist .*vistasks data prepare voc2007$"):
        load(tmp_path / "voc2007")
    with pytest.raises(FileNotFoundError, match=r"vistasks data prepare NAME \(one of bccd, camvid"):
        load(tmp_path / "mine")
    with pytest.raises(
        FileNotFoundError, match="is no VOC folder: expected Annotations, ImageSets and JPEGImages in it"
    ):
        load(tmp_path, split=None)
    with pytest.raises(FileNotFoundError, match=r"split: there is no folder .*train"):
        load(tmp_path)
    (tmp_path / "Annotations").mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"voc: there is no folder .*JPEGImages\. Folders in .*: Annotations"
    ):
        load(tmp_path)
    root = voc_folder(tmp_path, {"a": [CAT]})
    with pytest.raises(
        FileNotFoundError, match=r"there is no list .*trian\.txt\. Did you mean 'train'\? Lists: train"
    ):
        load(root, split="trian")
    with pytest.raises(ValueError, match=r"split is missing: .*ImageSets has the lists train"):
        load(root, split=None)


def test_bad_lists(tmp_path: Path) -> None:
    root = voc_folder(tmp_path, {"a": [CAT]})
    write_list(root, "train", [])
    with pytest.raises(ValueError, match=r"train\.txt: the list is empty"):
        load(root)
    write_list(root, "train", ["a", "b", "a"])
    with pytest.raises(ValueError, match=r"train\.txt: 'a' is listed 2 times"):
        load(root)
    (root / "ImageSets" / "Main" / "train.txt").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(ValueError, match=r"train\.txt: not a UTF-8 text file"):
        load(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation><object>", r"a\.xml: not well-formed XML"),
        ("", r"a\.xml: not well-formed XML"),
        (
            "<html/>",
            r"a\.xml: expected a PASCAL VOC file with the root element <annotation>, but found <html>",
        ),
        (
            '<!DOCTYPE x [<!ENTITY e "bomb">]><annotation>&e;</annotation>',
            r"a\.xml: refused, since it declares XML entities",
        ),
        (xml_text([("", (1, 2, 3, 4))]), r"a\.xml object 1: has no <name>"),
        (
            xml_text([CAT, ("cat", ("x", 2, "", 4))]),
            r"a\.xml object 2 'cat': <bndbox> needs .* has xmin=x, ymin=2, xmax=missing",
        ),
        (
            "<annotation><object><name>cat</name></object></annotation>",
            r"object 1 'cat': <bndbox> needs .* has xmin=missing",
        ),
    ],
)
def test_malformed_xml(tmp_path: Path, text: str, message: str) -> None:
    root = voc_folder(tmp_path, {"a": [CAT]})
    (root / "Annotations" / "a.xml").write_text(text)
    with pytest.raises(ValueError, match=message):
        load(root)
    with pytest.raises(ValueError, match=message):
        read_voc_xml(root / "Annotations" / "a.xml")


def test_unknown_options_name_their_path(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.train\.clases: unknown option\. Did you mean 'classes'"):
        load_dataset({"format": "voc", "root": str(tmp_path), "clases": ["a"]}, where="data.train")
    with pytest.raises(ValueError, match=r"data\.format: unknown dataset format 'vov'\. Did you mean 'voc'"):
        load_dataset({"format": "vov", "root": str(tmp_path)})


# masks


def segmented(root: Path) -> Path:
    """a: both lists; b: Main only; c: Segmentation only."""
    voc_folder(root, {"a": [CAT], "b": [DOG], "c": [DOG]})
    write_list(root, "train", ["a", "b"])
    write_list(root, "train", ["a", "c"], folder="Segmentation")
    for stem in ("a", "c"):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[5:25, 10:30], mask[4, 10:30] = 1, 255
        write_mask(root / "SegmentationClass" / f"{stem}.png", mask)
    return root


def test_joint_data_is_the_union_of_the_lists(tmp_path: Path) -> None:
    dataset = load(segmented(tmp_path), tasks=["detect", "segment"], classes=["cat", "dog"])
    assert dataset.ids == ["a", "b", "c"] and dataset.classes.segmentation == ("background", "cat", "dog")
    samples = [dataset[index] for index in range(3)]
    assert [bool(sample.labelled.detection) for sample in samples] == [True, True, False]
    assert [sample.labelled.segmentation for sample in samples] == [{0, 1, 2}, set(), {0, 1, 2}]
    assert [sample.segmentation is None for sample in samples] == [False, True, False]
    assert [len(sample.boxes) for sample in samples] == [1, 1, 0]
    assert samples[0].segmentation is not None
    assert np.unique(samples[0].segmentation, return_counts=True)[1].tolist() == [
        HEIGHT * WIDTH - 420,
        400,
        20,
    ]


def test_one_task_reads_its_own_list(tmp_path: Path) -> None:
    root = segmented(tmp_path)
    assert load(root, classes=["cat", "dog"]).ids == ["a", "b"]
    segment = load(root, tasks=["segment"], classes=["cat", "dog"])
    assert segment.ids == ["a", "c"] and segment.classes.detection == () and len(segment[0].boxes) == 0
    assert segment[0].labelled.detection == frozenset()
    for path in (root / "Annotations").iterdir():
        path.unlink()
    assert len(load(root, tasks=["segment"], classes=["cat", "dog"])) == 2  # needs no xml


def test_without_a_segmentation_list_the_masks_that_exist_count(tmp_path: Path) -> None:
    root = segmented(tmp_path)
    (root / "ImageSets" / "Segmentation" / "train.txt").unlink()
    joint = load(root, tasks=["detect", "segment"], classes=["cat", "dog"])
    assert joint.ids == ["a", "b"] and [joint[i].segmentation is None for i in range(2)] == [False, True]
    assert joint.notes == ["1 images have no mask and are not labelled for segmentation"]
    alone = load(root, tasks=["segment"], classes=["cat", "dog"])
    assert alone.ids == ["a"] and alone.notes == ["1 images have no mask and are left out"]
    (root / "SegmentationClass" / "a.png").unlink()
    with pytest.raises(ValueError, match="split 'train': no image is left to read"):
        load(root, tasks=["segment"], classes=["cat", "dog"])


def test_a_promised_mask_that_is_missing_is_an_error(tmp_path: Path) -> None:
    root = segmented(tmp_path)
    (root / "SegmentationClass" / "c.png").unlink()
    with pytest.raises(ValueError, match=r"c\.png: missing, though the Segmentation list names 'c'"):
        load(root, tasks=["detect", "segment"], classes=["cat", "dog"])


def test_the_segmented_flag_plays_no_role(tmp_path: Path) -> None:
    root = segmented(tmp_path)
    path = root / "Annotations" / "a.xml"
    path.write_text(path.read_text().replace("</filename>", "</filename><segmented>0</segmented>"))
    assert load(root, tasks=["detect", "segment"], classes=["cat", "dog"])[0].segmentation is not None


def test_the_meaning_of_mask_values_must_be_told(tmp_path: Path) -> None:
    root = segmented(tmp_path)
    with pytest.raises(ValueError, match="tasks: segment needs the meaning of the mask values"):
        load(root, tasks=["segment"])
    own = load(root, tasks=["segment"], mask_values={0: "ground", 1: "cat", 255: "ignore"})
    assert own.classes.segmentation == ("ground", "cat")
    named = load(root, tasks=["segment"], segmentation_classes=["ground", "cat"])
    assert np.array_equal(own[0].segmentation, named[0].segmentation)
    with pytest.raises(ValueError, match=r"a\.png: mask value 1 \(400 pixels\) is not in mask_values"):
        load(root, tasks=["segment"], mask_values={0: "ground", 255: "ignore"})[0]


def test_image_and_mask_must_have_one_size(tmp_path: Path) -> None:
    root = segmented(tmp_path)
    write_image(root / "JPEGImages" / "a.jpg", height=HEIGHT + 1)
    with pytest.raises(ValueError, match=r"a\.png: the mask is 60x40 pixels, but its image is 60x41"):
        load(root, tasks=["segment"], classes=["cat", "dog"])[0]


def test_an_image_that_changed_after_loading(tmp_path: Path) -> None:
    root = voc_folder(tmp_path, {"a": [CAT]})
    dataset = load(root)
    write_image(root / "JPEGImages" / "a.jpg", width=WIDTH + 5)
    with pytest.raises(ValueError, match=r"a\.jpg: the image is 65x40 pixels, but its annotation says 60x40"):
        dataset[0]
