"""Files and classes with names that attack the terminal, a page, a spreadsheet or a folder, through the
commands.
"""

from __future__ import annotations

import csv
import json
import os
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.tiny_data import config_values, scene
from vistasks.cli import main

CLASSES = [
    "[/]",
    "..",
    "=1+1",
    "<img src=x onerror=alert(1)>",
    "\x1b]0;title\x07 a/b",
    "bl\udce9",
    "a$b\\frac$",
]


def write_data(root: Path) -> Path:
    """A COCO set and its config; the pictures have names of another encoding."""
    (root / "pictures").mkdir(parents=True)
    images, annotations = [], []
    for number in range(7):
        image, _, objects = scene(number)
        name = os.fsdecode(b"caf\xe9 [red] \x1b[2J %d.png" % number)
        Image.fromarray(image).save(root / "pictures" / name)
        images.append({"id": number, "file_name": name, "width": 64, "height": 64})
        for place, (_, (x1, y1, x2, y2)) in enumerate(objects):
            outline = [[x1, y1, x2, y1, x2, y2, x1, y2]]
            annotations.append(
                {"id": 2 * number + place, "image_id": number, "category_id": (number + place) % len(CLASSES), "iscrowd": 0,
                 "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "segmentation": outline}
            )  # fmt: skip
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES)]
    (root / "a.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    part = {"images": "pictures", "annotations": "a.json"}
    data = {"format": "coco", "root": str(root), "tasks": ["detect", "segment"], "train": part, "val": part}
    values = config_values(root / "run", data, "detection", "segmentation", samples=2, epochs=1)
    (root / "config.yaml").write_text(yaml.safe_dump(values))
    return root


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data and a run; OpenCV would end the process at a lone surrogate."""
    root = write_data(tmp_path_factory.mktemp("hostile") / "data")
    assert main(["train", "--config", str(root / "config.yaml")]) == 0
    return root


class Page(HTMLParser):
    """The elements of a page, and its policy."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.policy = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        assert not any(name.startswith("on") for name in given), (tag, given)
        if "src" in given:
            self.sources.append(given["src"] or "")
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"] or ""


@pytest.mark.parametrize(
    ("command", "page"),
    [
        ("data check", None),
        ("data show --output OUT/sheet.jpg", None),
        ("evaluate --weights RUN --report OUT --json OUT/r.json", "report.html"),
        ("audit --weights RUN --output OUT", "audit.html"),
        ("calibrate --weights RUN --output OUT", None),
        ("svm --weights RUN --output OUT", None),
        ("proposals report --plot OUT/p.png", None),
    ],
)
def test_every_command_copes(
    hostile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, page: str | None
) -> None:
    words = [
        word.replace("OUT", str(tmp_path)).replace("RUN", str(hostile / "run")) for word in command.split()
    ]
    assert main([*words, "--config", str(hostile / "config.yaml")]) == 0
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    if page is not None:
        shown = Page(tmp_path / page)
        assert all(source.startswith("data:image/jpeg;base64,") for source in shown.sources) and shown.sources
        assert "default-src 'none'" in shown.policy and "script-src 'sha256-" in shown.policy


def test_the_curves_page_is_closed(hostile: Path) -> None:
    assert "default-src 'none'" in Page(hostile / "run" / "curves.html").policy


def test_results_stay_in_their_folder_and_are_no_formulas(hostile: Path, tmp_path: Path) -> None:
    where = ["--weights", str(hostile / "run"), "--source", str(hostile / "pictures"), "--score", "0.01"]
    assert main(["infer", *where, "--output", str(tmp_path / "a" / "pictures")]) == 0
    frames = ["--frame-rate", "5", "--crop", "--no-video"]
    assert main(["infer", *where, *frames, "--output", str(tmp_path / "b" / "frames")]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["frames"]
    crops = list((tmp_path / "b" / "frames" / "crops").rglob("*.jpg"))
    assert crops and all(path.parent.parent.name == "crops" for path in crops)
    assert not list((tmp_path / "b" / "frames").glob("*.jpg"))
    for folder in (tmp_path / "a" / "pictures", tmp_path / "b" / "frames"):
        text = (folder / "detections.csv").read_text(encoding="utf-8")
        assert "\x1b" not in text
        names = {row["class"] for row in csv.DictReader(text.splitlines())}
        assert names and not any(name.startswith(("=", "+", "-", "@")) for name in names)
