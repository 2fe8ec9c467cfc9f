"""Run a predictor over a source and write what it says: drawn pictures or a video, COCO results, masks, csv."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from rich.progress import track

from vistasks.atomic import replacing, write_text
from vistasks.drawing.palette import class_colours
from vistasks.predictor import PicturePrediction, Predictor
from vistasks.sources import list_pictures
from vistasks.types import SegmentationMap
from vistasks.video.sinks import VideoWriter
from vistasks.video.sources import SUFFIXES as VIDEO_SUFFIXES
from vistasks.video.sources import VideoReader


@dataclass
class Summary:
    """What an inference run did: pictures (or frames) and detections written, and the pictures that could not be read."""

    pictures: int = 0
    detections: int = 0
    failures: list[str] = field(default_factory=list)


def infer(
    predictor: Predictor, source: str, output: Path, *, on_error: Literal["skip", "raise"] = "skip", progress: bool = True
) -> Summary:
    """Predicts every picture or frame of ``source`` and writes into ``output``.

    Pictures (a file, a folder, a glob): ``NAME.jpg`` with everything drawn, ``masks/NAME.png`` (class ids, with our colours as
    palette), ``results.json`` (COCO results; its ``image_id`` and ``category_id`` are explained by ``images.json``, a COCO
    ground-truth file without annotations, so that pycocotools loads the pair), ``detections.csv``.
    A video file: ``NAME.mp4`` and ``results.jsonl``, one frame a line.

    Args:
        predictor: decides tasks, score threshold and batch size.
        source: what to read.
        output: the folder to write into; made if missing.
        on_error: an unreadable picture is skipped and counted, or ends the run.
        progress: show a bar.
    """
    if Path(source).suffix.lower() in VIDEO_SUFFIXES:
        return _infer_video(predictor, Path(source), output, progress)
    return _infer_pictures(predictor, list_pictures(source, leave_out=output), Path(source), output, on_error, progress)


def _infer_pictures(
    predictor: Predictor,
    paths: Sequence[Path],
    source: Path,
    output: Path,
    on_error: Literal["skip", "raise"],
    progress: bool,
) -> Summary:
    summary, names = Summary(), _output_names(paths, source)
    results: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    rows: list[list[Any]] = []
    try:
        for path in track(paths, "predicting", disable=not progress):
            try:
                prediction: PicturePrediction = predictor.predict(path)
            except ValueError as error:
                if on_error == "raise":
                    raise
                summary.failures.append(str(error))
                continue
            summary.pictures += 1
            number = len(images) + 1
            height, width = prediction.image.shape[:2]
            images.append({"id": number, "file_name": str(path), "height": height, "width": width})
            results += prediction.to_coco(number)
            rows += _csv_rows(path, prediction)
            prediction.save(output / f"{names[path]}.jpg")
            if prediction.segmentation is not None:
                save_mask(prediction.segmentation, output / "masks" / f"{names[path]}.png")
    finally:  # also after Ctrl-C: what was predicted until then
        _write_results(output, predictor, results, images, rows)
    summary.detections = len(results)
    return summary


def _output_names(paths: Sequence[Path], source: Path) -> dict[Path, str]:
    """Where each picture's results go, without suffix: its path within the source; the suffix stays where two names clash."""
    base = source if source.is_dir() else None
    inner = {path: path.relative_to(base) if base else Path(path.name) for path in paths}
    stems: dict[str, int] = {}
    for place in inner.values():
        stems[str(place.with_suffix(""))] = stems.get(str(place.with_suffix("")), 0) + 1
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for path, place in inner.items():
        name = str(place.with_suffix("")) if stems[str(place.with_suffix(""))] == 1 else str(place).replace(".", "_")
        unique, count = name, 1
        while unique in taken:  # a glob may name equal files of several folders
            count += 1
            unique = f"{name}_{count}"
        taken.add(unique)
        names[path] = unique
    return names


def save_mask(segmentation: SegmentationMap, path: Path) -> None:
    """An 8-bit palette PNG: the values are class ids, and viewers show our colours."""
    image = Image.fromarray(segmentation.labels)
    image.putpalette(np.array(class_colours(segmentation.names), dtype=np.uint8).ravel().tolist())
    with replacing(path) as temporary:
        image.save(temporary)


def _csv_rows(path: Path | str, prediction: PicturePrediction) -> list[list[Any]]:
    found = prediction.detections
    if found is None:
        return []
    return [
        [str(path), name, f"{score:.4f}", *(f"{corner:.2f}" for corner in box)]
        for name, score, box in zip(found.names, found.scores, found.boxes)
    ]


def _write_results(
    output: Path, predictor: Predictor, results: list[dict[str, Any]], images: list[dict[str, Any]], rows: list[list[Any]]
) -> None:
    output.mkdir(parents=True, exist_ok=True)
    if "detect" not in predictor.tasks or not predictor.classes.detection:
        return
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(predictor.classes.detection)]
    write_text(output / "results.json", json.dumps(results))
    write_text(output / "images.json", json.dumps({"images": images, "categories": categories, "annotations": []}))
    with replacing(output / "detections.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "class", "score", "x1", "y1", "x2", "y2"])
        writer.writerows(rows)


def _infer_video(predictor: Predictor, path: Path, output: Path, progress: bool) -> Summary:
    reader, summary = VideoReader(path), Summary()
    frames: Iterable[PicturePrediction] = predictor.stream(path)
    if progress:
        frames = track(frames, "predicting", total=reader.frames or None)
    output.mkdir(parents=True, exist_ok=True)
    lines = output / "results.jsonl"
    with replacing(lines) as temporary, temporary.open("w", encoding="utf-8") as file, _video(output, path, reader) as video:
        for number, prediction in enumerate(frames):
            video.write(prediction.draw(), prediction.seconds or 0.0)
            file.write(json.dumps(_frame_line(number, prediction)) + "\n")
            summary.pictures += 1
            summary.detections += len(prediction.detections) if prediction.detections else 0
    return summary


def _video(output: Path, path: Path, reader: VideoReader) -> VideoWriter:
    target = output / f"{path.stem}.mp4"
    if target.resolve() == path.resolve():
        raise ValueError(f"{target}: the result would overwrite the source; choose another output folder")
    return VideoWriter(target, rate=reader.rate)


def _frame_line(number: int, prediction: PicturePrediction) -> dict[str, Any]:
    line: dict[str, Any] = {"frame": number, "seconds": prediction.seconds}
    found = prediction.detections
    if found is not None:
        line["detections"] = [
            {"name": name, "score": round(float(score), 4), "box": [round(float(corner), 2) for corner in box]}
            for name, score, box in zip(found.names, found.scores, found.boxes)
        ]
    if prediction.segmentation is not None:
        labels, names = prediction.segmentation.labels, prediction.segmentation.names
        shares = np.bincount(labels.ravel(), minlength=len(names)) / labels.size
        line["pixel_share"] = {name: round(float(share), 5) for name, share in zip(names, shares)}
    return line


def print_summary(summary: Summary, output: Path) -> int:
    """Says what was written and what could not be read; returns the exit code, 1 after a failure."""
    print(f"{summary.pictures} pictures, {summary.detections} detections: {output.resolve()}")
    for failure in _first(summary.failures, 20):
        print(f"skipped: {failure}", file=sys.stderr)
    if summary.failures:
        print(f"{len(summary.failures)} could not be read and were skipped", file=sys.stderr)
    return 1 if summary.failures else 0


def _first(items: Sequence[str], count: int) -> Iterator[str]:
    yield from items[:count]
    if len(items) > count:
        yield f"... and {len(items) - count} more"
