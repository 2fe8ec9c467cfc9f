"""The main job on generated pictures: data, training, evaluation, inference on pictures and on a clip."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from vistasks.config import Config, load_config
from vistasks.datasets.shapes.writers import write_clip
from vistasks.evaluation.loop import evaluate
from vistasks.inference.images import infer
from vistasks.inference.predictor import load
from vistasks.metrics.tables import report_tables
from vistasks.system.atomic import write_text
from vistasks.system.locks import owned
from vistasks.system.terminal import PlainConsole
from vistasks.training.loop import train

CLIP_FRAMES = 60


def demo_config(output: Path, overrides: Sequence[str] = ()) -> Config:
    """The built-in experiment, with its run folder at ``output``."""
    return load_config(str(files("vistasks") / "demo.yaml"), [f"output={output}", *overrides])


def demo(output: Path, overrides: Sequence[str] = ()) -> int:
    """Trains, evaluates and runs a joint model; everything lands in ``output``. Returns the exit code.

    A finished demo in the same folder is replaced.
    """
    config = demo_config(output, overrides)
    with owned(output):
        return _demo(output, config)


def _demo(output: Path, config: Config) -> int:
    console, start = PlainConsole(), time.perf_counter()
    _clear(output)

    console.rule("1. train a joint detector and segmenter on generated shapes")
    train(config)

    console.rule("2. evaluate it on held-out images")
    held_out = config.model_copy(update={"data": config.data.model_copy(update={"val": {"split": "test"}})})
    report = evaluate(held_out, str(output))
    for table in report_tables(report):
        console.print(table)
    write_text(output / "test_report.json", json.dumps(report, indent=1))

    console.rule("3. run it on those images and on a clip")
    predictor = load(output)
    pictures = Path(config.data.root) / "coco" / "test"
    infer(predictor, str(pictures), output / "pictures", progress=True)
    clip = output / "shapes.mp4"
    write_clip(clip, seed=1, frames=CLIP_FRAMES)
    infer(predictor, str(clip), output / "clip", progress=True)

    console.rule(f"done in {(time.perf_counter() - start) / 60:.1f} minutes")
    for what, place in {
        "images": output / "pictures",
        "clip": output / "clip" / clip.name,
        "curves": output / "curves.png",
        "report": output / "test_report.json",
        "weights": output / "best.safetensors",
    }.items():
        console.print(f"{what:9} {place.resolve()}", highlight=False, soft_wrap=True)
    usage = f"\non your own images: vistasks infer --weights {output} --source PHOTOS --output out/"
    console.print(usage, highlight=False, soft_wrap=True)
    return 0


def _clear(output: Path) -> None:
    """Removes an earlier demo's checkpoints, by which a run folder counts as used; anything else is
    overwritten.
    """
    for name in ("last", "best"):
        for suffix in (".safetensors", ".json"):
            (output / f"{name}{suffix}").unlink(missing_ok=True)
    (output / "metrics.jsonl").unlink(missing_ok=True)
    for events in output.glob("events.out.tfevents.*"):
        events.unlink()
