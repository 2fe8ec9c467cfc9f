from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vistasks.datasets import Dataset, load_dataset

VALUES = {0: "sky", 1: "road", 11: "ignore"}


def save(path: Path, values: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, dtype=np.uint8)).save(path)


def pair(image: Path, mask: Path, values: object = ((0, 1, 11), (1, 1, 0))) -> None:
    save(image, np.full((*np.shape(values)[:2], 3), 50))
    save(mask, values)


def load(root: Path, **options: object) -> Dataset:
    return load_dataset({"format": "mask_folder", "root": str(root), "mask_values": VALUES, **options})


def test_a_split_by_folders(tmp_path: Path) -> None:
    pair(tmp_path / "train" / "b.jpg", tmp_path / "trainannot" / "b.png")
    pair(tmp_path / "train" / "deep" / "a.png", tmp_path / "trainannot" / "deep" / "a.png")
    pair(tmp_path / "val" / "c.jpg", tmp_path / "valannot" / "c.png")
    dataset = load(tmp_path, split="train")
    assert dataset.ids == ["b", "deep/a"] and load(tmp_path, split="val").ids == ["c"]
    assert load(tmp_path, images="val", masks="valannot").ids == ["c"]
    sample = dataset[1]
    assert sample.segmentation is not None and sample.segmentation.tolist() == [[0, 1, 255], [1, 1, 0]]
    assert sample.labelled.segmentation == {0, 1} and not sample.labelled.detection
    assert dataset.classes.segmentation == ("sky", "road") and dataset.classes.detection == ()
    assert len(dataset.annotation(0).labels) == 0 and dataset.annotation(0).labelled == sample.labelled


def test_a_split_by_lists(tmp_path: Path) -> None:
    for stem in ("a", "b", "c"):
        pair(tmp_path / "images" / f"{stem}.jpg", tmp_path / "labels" / f"{stem}.png")
    (tmp_path / "train.txt").write_text("c\na.jpg\n")
    options = {"images": "images", "masks": "labels", "list_file": "{split}.txt", "split": "train"}
    assert load(tmp_path, **options).ids == ["c", "a"]
    (tmp_path / "train.txt").write_text("c\nx\n")
    with pytest.raises(ValueError, match=r"train\.txt: 'x': no image of this name"):
        load(tmp_path, **options)
    (tmp_path / "train.txt").write_text("../../x\n")
    with pytest.raises(ValueError, match=r"'\.\./\.\./x' points outside"):
        load(tmp_path, **options)
    with pytest.raises(
        FileNotFoundError, match=r"list_file: there is no file .*trian\.txt\. Did you mean 'train\.txt'"
    ):
        load(tmp_path, **{**options, "split": "trian"})


def test_names_as_cityscapes_has_them(tmp_path: Path) -> None:
    for city in ("aachen", "ulm"):
        stem = tmp_path / "leftImg8bit" / "train" / city / f"{city}_0_leftImg8bit.png"
        pair(stem, tmp_path / "gtFine" / "train" / city / f"{city}_0_gtFine_labelIds.png")
        save(tmp_path / "gtFine" / "train" / city / f"{city}_0_gtFine_color.png", np.zeros((2, 3, 3)))
    dataset = load(
        tmp_path,
        split="train",
        images="leftImg8bit/{split}",
        masks="gtFine/{split}",
        image_suffix="_leftImg8bit",
        mask_suffix="_gtFine_labelIds",
    )
    assert dataset.ids == ["aachen/aachen_0_leftImg8bit", "ulm/ulm_0_leftImg8bit"]
    assert dataset[0].segmentation is not None


def test_masks_painted_in_colours(tmp_path: Path) -> None:
    pair(
        tmp_path / "i" / "a.jpg",
        tmp_path / "m" / "a.png",
        [[[128, 0, 0], [0, 0, 0]], [[9, 9, 9], [128, 0, 0]]],
    )
    colours = {"sky": [0, 0, 0], "road": [[128, 0, 0], [9, 9, 9]]}
    options = {"images": "i", "masks": "m", "mask_colours": colours, "segmentation_classes": ["road", "sky"]}
    sample = load(tmp_path, mask_values=None, **options)[0]
    assert sample.segmentation is not None and sample.segmentation.tolist() == [[0, 1], [0, 0]]
    with pytest.raises(ValueError, match=r"give mask_values .* or mask_colours .*, not both"):
        load(tmp_path, **options)
    with pytest.raises(ValueError, match=r"data\.mask_colours.* received"):
        load(tmp_path, mask_values=None, **{**options, "mask_colours": {"sky": "blue"}})


def test_an_unknown_value_names_the_file(tmp_path: Path) -> None:
    pair(tmp_path / "train" / "a.jpg", tmp_path / "trainannot" / "a.png", [[0, 5, 5]])
    with pytest.raises(
        ValueError, match=r"a\.png: mask value 5 \(2 pixels\) is not in mask_values \(0: sky, 1: road, 11: ig"
    ):
        load(tmp_path, split="train")[0]


def test_missing_masks_are_told_at_once(tmp_path: Path) -> None:
    pair(tmp_path / "train" / "a.jpg", tmp_path / "trainannot" / "a.png")
    for stem in ("b", "c"):
        save(tmp_path / "train" / f"{stem}.jpg", np.zeros((2, 3, 3)))
    with pytest.raises(ValueError, match="2 problems") as caught:
        load(tmp_path, split="train")
    assert "b.jpg: no mask " in str(caught.value) and "c.jpg: no mask " in str(caught.value)


def test_split_and_its_place_belong_together(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"split is missing: images, masks .*\{split\}"):
        load(tmp_path)
    with pytest.raises(
        ValueError, match=r"split: train has no effect, since \{split\} is in none of: images: i, masks: m"
    ):
        load(tmp_path, images="i", masks="m", split="train")


def test_missing_folders_and_images(tmp_path: Path) -> None:
    (tmp_path / "trainanot").mkdir()
    (tmp_path / "train").mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"masks: there is no folder .*trainannot\. Did you mean 'trainanot'"
    ):
        load(tmp_path, split="train")
    (tmp_path / "trainanot").rename(tmp_path / "trainannot")
    with pytest.raises(ValueError, match=r"train: no images$"):
        load(tmp_path, split="train")
    with pytest.raises(ValueError, match="train: no images that end in '_left'"):
        load(tmp_path, split="train", image_suffix="_left")
    with pytest.raises(FileNotFoundError, match=r"camvid does not exist .*vistasks data prepare camvid"):
        load(tmp_path / "camvid", split="train")


def test_the_meaning_of_the_values_must_be_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"segmentation_classes .* or mask_values"):
        load(tmp_path, split="train", mask_values=None)
