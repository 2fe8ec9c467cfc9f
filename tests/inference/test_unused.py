from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.fake_model import Backend, save_picture
from tests.inference.video.clips import write_numbered
from vistasks.datasets.images import read_image
from vistasks.inference.images import infer
from vistasks.inference.predictor import Predictor
from vistasks.inference.sources import Images, ImagesAsVideo, Live, VideoFile
from vistasks.inference.unused import refuse_unused
from vistasks.inference.video.options import InferOptions

IMAGES = Images("in", (Path("in/a.png"),), Path("in"))
SOURCES: dict[str, Any] = {
    "images": IMAGES,
    "frames": ImagesAsVideo(IMAGES, Fraction(5)),
    "video": VideoFile(Path("a.mp4")),
    "live": Live("0", 0),
}
BOTH, OUT = ("detection", "segmentation"), Path("out")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("images", {"save_frames": True}), ("images", {"resume": True}), ("images", {"video": False}),
        ("images", {"propose_every": 2}),
        ("images", {"segment_every": 2}), ("images", {"masks": "rle"}), ("images", {"threads": 2}), 
        ("images", {"part_frames": 7}),
        ("images", {"decoder": "hardware"}), ("images", {"reconnect": 1.0}), ("frames", {"decoder": "hardware"}),
        ("frames", {"reconnect": 1.0}), ("video", {"frame_rate": 5.0}), ("video", {"on_error": "raise"}),
        ("video", {"reconnect": 0.0}),
        ("video", {"serve_host": "0.0.0.0"}), ("video", {"hide_labels": True, "video": False}), ("live", {"resume": True}),
    ],
)  # fmt: skip
def test_an_option_without_effect_is_refused_by_name(kind: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"--(no-)?{next(iter(options)).replace('_', '-')}: "):
        refuse_unused(SOURCES[kind], InferOptions(**options), BOTH, output=OUT)


@pytest.mark.parametrize(
    ("tasks", "options"),
    [
        (("detection",), {"masks": "png"}), (("detection",), {"segment_every": 2}), (("segmentation",), {"crop": True}),
        (("segmentation",), {"propose_every": 2}), (("segmentation",), {"proposals": "segmentation"}),
    ],
)  # fmt: skip
def test_an_option_of_a_task_that_is_not_asked_for_is_refused(
    tasks: tuple[str, ...], options: dict[str, Any]
) -> None:
    refuse_unused(SOURCES["video"], InferOptions(**options), BOTH, output=OUT)
    with pytest.raises(ValueError, match=f"--{next(iter(options)).replace('_', '-')}: "):
        refuse_unused(SOURCES["video"], InferOptions(**options), tasks, output=OUT)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("images", {"crop": True, "hide_labels": True, "masks": "png", "on_error": "raise", "max_pixels": 9, "progress": False}),
        ("frames", {"frame_rate": 5.0, "on_error": "raise", "resume": True, "track": True, "line": ["0,0,1,1"]}),
        ("video", {"decoder": "hardware", "resume": True, "masks": "rle", "segment_every": 3, "threads": 2, "part_frames": 9}),
        ("live", {"reconnect": 1.0, "serve": 0, "serve_host": "0.0.0.0", "show": True, "save_frames": True, "video": False}),
    ],
)  # fmt: skip
def test_an_option_that_has_an_effect_is_taken(kind: str, options: dict[str, Any]) -> None:
    refuse_unused(SOURCES[kind], InferOptions(**options), BOTH, output=OUT)


def test_crops_and_boxes_without_names_of_images(tmp_path: Path) -> None:
    save_picture(tmp_path / "in" / "deep" / "a.png")
    for name, options in {"plain": {}, "asked": {"crop": True, "hide_labels": True}}.items():
        infer(
            Predictor(Backend()),
            tmp_path / "in",
            tmp_path / name,
            options=InferOptions(progress=False, **options),
        )  # type: ignore[arg-type]
    assert read_image(tmp_path / "asked" / "crops" / "cat" / "deep" / "a_0.jpg").shape == (20, 10, 3)
    assert not (tmp_path / "plain" / "crops").exists()
    drawn = [read_image(tmp_path / name / "deep" / "a.jpg") for name in ("plain", "asked")]
    assert (drawn[0] != drawn[1]).any()


def test_animations_and_files_left_out_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    save_picture(folder / "a.png")
    frames = [Image.new("RGB", (32, 32), (value, 0, 0)) for value in (0, 99)]
    for name in ("b.gif", "c.png", "d.webp", "e.tif"):
        frames[0].save(folder / name, save_all=True, append_images=frames[1:])
    write_numbered(folder / "f.mp4", [0])
    summary = infer(Predictor(Backend()), folder, tmp_path / "out", progress=False)
    assert summary.pictures == 5
    left, several = summary.warnings
    assert "1 files" in left and "f.mp4" in left
    assert "4 files" in several and "b.gif" in several and "a.png" not in several
