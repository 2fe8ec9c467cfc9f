"""What ``vistasks data prepare | check | show`` do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vistasks.datasets.prepare.prepare import prepare
from vistasks.system.terminal import PlainConsole

# torch and albumentations are imported where they are needed: `prepare` works without them and should begin
# at once
if TYPE_CHECKING:
    from vistasks.config import Config
    from vistasks.datasets import Dataset
    from vistasks.datasets.check import CheckReport
    from vistasks.types import ClassNames


def prepare_command(name: str, root: Path) -> int:
    """Downloads and unpacks a known data set into ``root``; returns the exit code."""
    prepare(name, root)
    return 0


def check_command(config: Config) -> int:
    """Reads the training and the validation data once and prints what is in them and what is wrong; 1 if
    anything is.
    """
    classes: ClassNames | None = None
    good, paths = True, {}
    console = PlainConsole()
    for part in ("train", "val") if config.data.evaluates else ("train",):
        report, dataset = _checked(config, part, classes)
        if dataset is not None:
            classes = classes or dataset.classes
            paths[part] = set(dataset.paths)
        if len(paths) == 2 and (both := sorted(paths["train"] & paths["val"])):
            report.warnings.append(f"{len(both)} images are in train and in val: {', '.join(both[:5])}")
        report.show(console)
        good = good and report.good
    console.print(
        "\nall can be read" if good else "\nfix or exclude what is listed under problems, then check again"
    )
    return 0 if good else 1


def _checked(config: Config, part: str, classes: ClassNames | None) -> tuple[CheckReport, Dataset | None]:
    from vistasks.build import build_dataset
    from vistasks.datasets.check import check, failed

    try:
        dataset = build_dataset(config, part, classes)
    except (ValueError, OSError) as error:
        return failed(error, name=part), None
    return check(dataset, name=part), dataset


def show_command(config: Config, output: Path, *, count: int = 12) -> int:
    """Writes ``count`` training samples as the network sees them (augmented, scaled, with proposals) to a
    picture.
    """
    import cv2
    import numpy as np
    from rich.progress import track

    from vistasks.build import build_dataset, build_pipeline
    from vistasks.drawing.contact_sheet import contact_sheet

    if count < 1:
        raise ValueError(f"--count must be at least 1, not {count}")
    if not cv2.haveImageWriter(str(output)):
        raise ValueError(
            f"{output}: images with the suffix '{output.suffix}' cannot be written; use .jpg or .png"
        )
    dataset = build_dataset(config, "train")
    pipeline = build_pipeline(config, dataset, training=True)
    indices = np.random.default_rng(config.seed).permutation(len(dataset))[:count]
    bar = track(indices.tolist(), "preparing samples", console=PlainConsole(stderr=True), transient=True)
    samples = [pipeline[0, index][0] for index in bar]
    sheet = contact_sheet(samples, dataset.classes)
    output.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(output), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    print(f"{len(samples)} training samples as the network sees them: {output}")
    return 0
