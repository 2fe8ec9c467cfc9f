"""Run a predictor over a source and write what it says: drawn pictures or a video, COCO results, masks,
csv.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from vistasks.datasets.images import holds_several, read_image
from vistasks.inference.prediction import Picture, PicturePrediction
from vistasks.inference.predictor import Predictor
from vistasks.inference.results import PictureResults
from vistasks.inference.sources import Images, recognise
from vistasks.inference.unused import refuse_unused
from vistasks.inference.video.opening import open_frames
from vistasks.inference.video.options import InferOptions, OnError
from vistasks.inference.video.protocols import FrameSource
from vistasks.inference.video.report import VideoReport
from vistasks.inference.video.run import infer_frames, watch_frames
from vistasks.system.locks import owned


@dataclass
class Summary:
    """What an inference run did.

    Attributes:
        pictures: pictures (or frames) written.
        detections: in all of them; None where none were looked for.
        unit: what was counted, "pictures" or "frames".
        failures: of each picture that could not be read, why.
        warnings: what was wrong with a video that could be read in part.
        video: how the run over frames went; None for pictures.
    """

    pictures: int = 0
    detections: int | None = None
    unit: str = "pictures"
    failures: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    video: VideoReport | None = None

    def count(self, prediction: PicturePrediction) -> None:
        """Adds one written picture."""
        self.pictures += 1
        if prediction.detections is not None:
            self.detections = (self.detections or 0) + len(prediction.detections)


def infer(
    predictor: Predictor,
    source: str | Path,
    output: str | Path | None,
    *,
    on_error: OnError | None = None,
    progress: bool | None = None,
    options: InferOptions = InferOptions(),  # noqa: B008 - frozen
) -> Summary:
    """Predicts every picture or frame of ``source`` and writes into ``output``.

    For pictures (a file, a folder with its subfolders, a glob) what
    `vistasks.inference.results.PictureResults` says; for a video file, a camera or an address what
    `vistasks.inference.video.writing.FrameResults` says. After an error or Ctrl-C the files that are there
    are whole.

    Args:
        predictor: decides tasks, score threshold and batch size.
        source: what to read. Results of an earlier run in an ``output`` within it are not read.
        output: the folder to write into; made if missing. None: nothing is written, for ``options`` that show
            the frames.
        on_error, progress: instead of those of ``options``.
        options: everything else.

    Raises:
        ValueError: nothing to read there, an ``output`` that would overwrite the source, an unreadable video
            or (with ``on_error="raise"``) picture.
    """
    on_error = options.on_error if on_error is None else on_error
    progress = options.progress if progress is None else progress
    options = replace(options, on_error=on_error, progress=progress)
    if output is None:
        return _watch(predictor, source, options)
    output = Path(output)
    found = recognise(source, frame_rate=options.frame_rate, output=output)
    refuse_unused(found, options, predictor.tasks, output=output)
    if not isinstance(found, Images):
        return _infer_video(predictor, open_frames(found, options), output, options)
    folder, paths = found.folder, found.paths
    summary = Summary(warnings=found.notes)
    if output.resolve() == folder.resolve() and Path(source).is_dir():
        raise ValueError(
            f"{output}: this is the folder that is read; give the results another, for example {output / 'out'}"
        )
    names = output_names(paths, folder)
    for path in paths:
        if (output / f"{names[path]}.jpg").resolve() == path.resolve():
            raise ValueError(f"{path}: the result would overwrite this image; choose another output folder")
    with owned(output):
        results = PictureResults(
            output,
            names={str(path): name for path, name in names.items()},
            inputs={str(path): path.relative_to(folder).as_posix() for path in paths},
            classes=predictor.classes,
            tasks=predictor.tasks,
            labels=not options.hide_labels,
            crops=options.crop,
        )
        with results, _bar(len(paths), progress) as bar:
            task = bar.add_task("predicting", total=len(paths))
            for prediction in predictor.predict_pictures(_readable(paths, options, summary)):
                results.add(prediction)
                summary.count(prediction)
                bar.update(task, completed=summary.pictures + len(summary.failures))
    summary.warnings += first_of_several(paths)
    return summary


def first_of_several(paths: Sequence[Path]) -> list[str]:
    """Says of which files only the first of several images was taken (animations, pages)."""
    several = [path for path in paths if holds_several(path)]
    if not several:
        return []
    names = ", ".join(map(str, several[:3])) + ", ..." * (len(several) > 3)
    return [
        f"{len(several)} files are animations or have several pages; only the first image was taken: {names}"
    ]


def _readable(paths: Iterable[Path], options: InferOptions, summary: Summary) -> Iterator[Picture]:
    for path in paths:
        try:
            image = read_image(path, max_pixels=options.max_pixels)
        except (ValueError, OSError) as error:
            if options.on_error == "raise":
                raise
            summary.failures.append(str(error))
            continue
        yield Picture(image, str(path))


def output_names(paths: Sequence[Path], folder: Path) -> dict[Path, str]:
    """Each picture's name in the output, without suffix: its path within ``folder``.

    Names that differ only in suffix or case (``a.jpg``, ``A.png``) keep the suffix (``a_jpg``, ``A_png``), so
    that no file system lets one result overwrite another."""
    inner = {path: path.relative_to(folder) for path in paths}
    stems = Counter(place.with_suffix("").as_posix().casefold() for place in inner.values())
    names: dict[Path, str] = {}
    taken = {stem for stem, number in stems.items() if number == 1}
    for path, place in inner.items():
        name = place.with_suffix("").as_posix()
        if stems[name.casefold()] > 1:
            name = base = f"{name}_{place.suffix[1:]}"
            number = 1
            while name.casefold() in taken:
                number += 1
                name = f"{base}_{number}"
            taken.add(name.casefold())
        names[path] = name
    return names


def _infer_video(
    predictor: Predictor, source: FrameSource, output: Path | None, options: InferOptions
) -> Summary:
    with _bar(source.frames, options.progress) as bar:
        task = bar.add_task("predicting", total=source.frames or None)

        def shown(report: VideoReport) -> None:
            dropped = f", {source.dropped} dropped" if source.dropped else ""
            bar.update(task, completed=report.frames, description=f"predicting{dropped}")

        if output is None:
            report = watch_frames(predictor, source, options, shown=shown)
        else:
            report = infer_frames(predictor, source, output, options, shown=shown)
        bar.update(task, total=report.frames)  # the header's count may be wrong
    frames = report.resumed + report.frames
    return Summary(frames, report.detections, "frames", warnings=report.warnings, video=report)


def _watch(predictor: Predictor, source: str | Path, options: InferOptions) -> Summary:
    """Frames that are shown and not written."""
    files = {"--save-frames": options.save_frames, "--crop": options.crop, "--masks": options.masks != "none"}
    asked = [name for name, given in {**files, "--resume": options.resume}.items() if given]
    if asked or not (options.show or options.serve is not None):
        needs = f"{', '.join(asked)} need it" if asked else "only with --show or --serve it may be left out"
        raise ValueError(f"--output is missing, the folder for the results; {needs}")
    found = recognise(source, frame_rate=options.frame_rate)
    refuse_unused(found, options, predictor.tasks, output=None)
    assert not isinstance(found, Images)  # --show and --serve are refused for them
    return _infer_video(predictor, open_frames(found, options), None, options)


class _Rate(ProgressColumn):
    """Pictures per second."""

    def render(self, task: object) -> Text:
        speed = getattr(task, "finished_speed", None) or getattr(task, "speed", None)
        return Text("" if speed is None else f"{speed:.1f}/s")


def _bar(total: int, shown: bool) -> Progress:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, disable=not shown or total == 1)


def print_summary(summary: Summary, output: str | Path | None) -> int:
    """Says what was written and what could not be read; returns the exit code, 1 after a failure."""
    found = f", {summary.detections} detections" if summary.detections is not None else ""
    print(
        f"{summary.pictures} {summary.unit}{found}{'' if output is None else f': {Path(output).resolve()}'}"
    )
    if summary.video is not None and summary.video.frames:
        print("\n".join(summary.video.lines()))
    for warning in summary.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for failure in summary.failures[:20]:
        print(f"skipped: {failure}", file=sys.stderr)
    if len(summary.failures) > 20:
        print(f"... and {len(summary.failures) - 20} more", file=sys.stderr)
    if summary.failures:
        print(f"{len(summary.failures)} could not be read and were skipped", file=sys.stderr)
    if summary.video is not None and summary.video.stopped:
        print(
            f"stopped by {summary.video.stopped}{'; go on with --resume' * summary.video.resumable}",
            file=sys.stderr,
        )
        return {"SIGHUP": 129, "SIGINT": 130, "SIGTERM": 143}.get(summary.video.stopped, 0)
    return 1 if summary.failures else 0
