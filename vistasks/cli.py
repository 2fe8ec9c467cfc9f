"""The command ``vistasks``: `vistasks.commands` has each command's arguments and what it runs."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Callable, Sequence
from typing import Any

from vistasks.commands import (
    audit,
    benchmark,
    calibrate,
    compare,
    compress,
    data,
    debug_batch,
    demo,
    evaluate,
    find_lr,
    infer,
    inspect,
    proposals,
    search,
    study,
    summary,
    svm,
    train,
)
from vistasks.system.machine import open_files_limit, wait_without_spinning
from vistasks.system.opencv import mixed_wheels
from vistasks.system.streams import printable_streams
from vistasks.training.stop import STOPPED, Stopped

EXAMPLES = """examples:
  vistasks demo                                                      train, evaluate and run a model on generated images
  vistasks data show   --config configs/bccd_rcnn.yaml               show augmented samples
  vistasks train       --config configs/bccd_rcnn.yaml train.epochs=3 model.backbone.name=resnet18
  vistasks evaluate    --config configs/bccd_rcnn.yaml --weights runs/bccd_rcnn --json report.json
  vistasks infer       --weights runs/bccd_rcnn --source photos/ --output out/

Every command has its own --help."""


def main(arguments: Sequence[str] | None = None, *, command: str | None = None) -> int:
    """Runs the command line; returns the exit code. ``command`` is set by the scripts in tools/."""
    wait_without_spinning()
    with printable_streams():
        return _main(arguments, command)


def _main(arguments: Sequence[str] | None, command: str | None) -> int:
    parser = build_parser(command)
    # parse_known_args, because argparse does not take positional arguments up again after an option
    parsed, rest = parser.parse_known_args(arguments)
    if rest and (not hasattr(parsed, "overrides") or any(text.startswith("-") for text in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        parsed.overrides = [*parsed.overrides, *rest]
    if not hasattr(parsed, "run"):
        parser.print_help()
        return 2
    if mixed := mixed_wheels():
        print(f"warning: {mixed}", file=sys.stderr)
    try:
        return parsed.run(parsed) or 0
    except Stopped as stop:
        print(f"\nstopped by {stop}", file=sys.stderr)
        return STOPPED
    except KeyboardInterrupt as stop:
        print(f"\ninterrupted: {stop}" if str(stop) else "\ninterrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        sys.stdout = None  # type: ignore[assignment] # or Python tries to flush it once more
        return 1
    except Exception as error:
        known = isinstance(error, (ValueError, OSError, ImportError, FloatingPointError, MemoryError))
        if parsed.debug or not (known or type(error).__name__ == "OutOfMemoryError"):
            raise
        advice = (
            ""
            if known
            else ". To use less memory, reduce train.batch_size, evaluate.batch_size or input.max_side"
        )
        if isinstance(error, OSError) and error.errno == errno.EMFILE:
            limit = open_files_limit()
            advice = f". A process may open only {limit} files here: raise that (ulimit -n 4096) or take fewer train.workers"
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
        print(f"error: {error}{notes}{advice}", file=sys.stderr)
        return 1


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser of ``vistasks COMMAND``, or of one command alone (``tools/COMMAND.py``)."""
    shared: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    if command is not None:
        add, text = COMMANDS[command]
        parser = argparse.ArgumentParser(description=text, **shared)
        _finish(parser, add)
        return parser
    parser = argparse.ArgumentParser(
        prog="vistasks",
        description="Detection and segmentation over one shared backbone.",
        epilog=EXAMPLES,
        **shared,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, (add, text) in COMMANDS.items():
        _finish(commands.add_parser(name, help=text.split(".")[0], description=text, **shared), add)
    return parser


def _finish(parser: argparse.ArgumentParser, add: Callable[[argparse.ArgumentParser], None]) -> None:
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    add(parser)


COMMANDS: dict[str, tuple[Callable[[argparse.ArgumentParser], None], str]] = {
    "train": (train.add, "Train a detector, a segmenter or both over one backbone."),
    "evaluate": (
        evaluate.add,
        "Evaluate trained weights on validation data: COCO and VOC AP, mIoU.",
    ),
    "calibrate": (calibrate.add, "Calibrate a detector's scores to probabilities."),
    "svm": (
        svm.add,
        "Replace a detector's classifier with R-CNN's linear SVMs and hard negative mining.",
    ),
    "audit": (
        audit.add,
        "Find labels that are probably wrong or missing, using a trained model.",
    ),
    "compare": (
        compare.add,
        "Compare evaluated runs: paired differences with confidence intervals, images gained and lost.",
    ),
    "compress": (compress.add, "Compress a detector's fully connected layers by truncated SVD."),
    "infer": (
        infer.add,
        "Run a trained model on images, videos or streams: annotated images, COCO json, masks, csv.",
    ),
    "data": (data.add, "Prepare, check and show data sets."),
    "proposals": (proposals.add, "Compute and evaluate region proposals."),
    "find-lr": (find_lr.add, "Find a learning rate: a range test with a plot and a suggestion."),
    "search": (
        search.add,
        "Search hyperparameters over many trainings of one config; resumable.",
    ),
    "debug-batch": (debug_batch.add, "Inspect the batch at which a training stopped."),
    "benchmark": (benchmark.add, "Benchmark vistasks against other libraries in the same run."),
    "study": (study.add, "Compare several trainings at equal budgets."),
    "summary": (
        summary.add,
        "List every layer of a model: sizes, parameters, multiply-adds, memory, receptive field, time.",
    ),
    "inspect": (
        inspect.add,
        "Visualise what a model has learnt: filters, feature maps, Grad-CAM, occlusion, regions.",
    ),
    "demo": (demo.add, "Train, evaluate and run a model on generated images."),
}

if __name__ == "__main__":
    sys.exit(main())
