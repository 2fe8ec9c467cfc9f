"""The command ``vistasks``. Only the parsing is imported at the start; what a command needs comes after it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

EXAMPLES = """examples:
  vistasks demo                                                      the main job on generated pictures, in a few minutes
  vistasks data show   --config configs/bccd_rcnn.yaml               see what the network sees
  vistasks train       --config configs/bccd_rcnn.yaml train.epochs=3 model.backbone.name=resnet18
  vistasks evaluate    --config configs/bccd_rcnn.yaml --weights runs/bccd_rcnn --json report.json
  vistasks infer       --weights runs/bccd_rcnn --source photos/ --output out/

Every command has its own --help."""

OVERRIDES = "config values to change, for example train.epochs=3 (key.path=value, the value in YAML)"


def main(arguments: Sequence[str] | None = None, *, command: str | None = None) -> int:
    """Runs the command line; returns the exit code. ``command`` is set by the scripts in tools/."""
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
    try:
        return parsed.run(parsed) or 0
    except KeyboardInterrupt as stop:
        print(f"\ninterrupted: {stop}" if str(stop) else "\ninterrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        sys.stdout = None  # type: ignore[assignment] # or Python tries to flush it once more
        return 1
    except Exception as error:
        known = isinstance(error, (ValueError, OSError, ImportError, FloatingPointError))
        if parsed.debug or not (known or type(error).__name__ == "OutOfMemoryError"):
            raise
        advice = "" if known else ". Less is needed with a smaller train.batch_size, evaluate.batch_size or input.max_side"
        print(f"error: {error}{advice}", file=sys.stderr)
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
        prog="vistasks", description="Detection and segmentation over one shared trunk.", epilog=EXAMPLES, **shared
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, (add, text) in COMMANDS.items():
        _finish(commands.add_parser(name, help=text.split(".")[0], description=text, **shared), add)
    return parser


def _finish(parser: argparse.ArgumentParser, add: Callable[[argparse.ArgumentParser], None]) -> None:
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    add(parser)


def _add_action(actions: Any, name: str, text: str) -> argparse.ArgumentParser:
    """A command's action; it takes --debug too, and leaves the value alone where it was given before the action."""
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")
    return parser


def _config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="FILE", help="the experiment, a YAML file (see configs/)")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help=OVERRIDES)


def _add_train(parser: argparse.ArgumentParser) -> None:
    _config_arguments(parser)
    parser.add_argument("--resume", action="store_true", help="go on from last.safetensors in the run folder")
    parser.add_argument("--print-config", action="store_true", help="print the whole config, defaults included, and stop")
    parser.set_defaults(run=_train)


def _train(parsed: argparse.Namespace) -> int:
    from vistasks.config import load_config, to_yaml

    config = load_config(parsed.config, parsed.overrides)
    if parsed.print_config:
        print(to_yaml(config), end="")
        return 0
    from vistasks.train import train

    train(config, resume=parsed.resume)
    return 0


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    _config_arguments(parser)
    parser.add_argument("--weights", required=True, metavar="PATH", help="a checkpoint (.safetensors) or a run folder")
    parser.add_argument("--json", metavar="FILE", help="write the whole report here")
    parser.add_argument("--engine", choices=["hotcoco", "pycocotools"], help="what computes COCO AP")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.set_defaults(run=_evaluate)


def _evaluate(parsed: argparse.Namespace) -> int:
    from vistasks.config import load_config

    overrides = [*parsed.overrides, *([f"evaluate.engine={parsed.engine}"] if parsed.engine else [])]
    config = load_config(parsed.config, overrides)
    from rich.console import Console
    from rich.progress import track

    from vistasks.atomic import write_text
    from vistasks.evaluate import evaluate
    from vistasks.metrics.tables import report_tables

    print(f"weights      {Path(parsed.weights).resolve()}")
    print(f"data         {Path(config.data.root).resolve()}", flush=True)
    report = evaluate(
        config, parsed.weights, device=parsed.device, track=lambda loader: track(loader, "evaluating", transient=True)
    )
    console = Console()
    for table in report_tables(report):
        console.print(table)
    seconds = report["model_seconds_per_image"]
    console.print(f"{report['images']} pictures, {seconds:.3f} s a picture in the model", highlight=False)
    if parsed.json:
        write_text(Path(parsed.json), json.dumps(report, indent=1))
        print(f"report: {Path(parsed.json).resolve()}")
    return 0


def _add_infer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", required=True, metavar="PATH", help="a checkpoint (.safetensors) or a run folder")
    parser.add_argument("--source", required=True, help="a picture, a folder, a glob in quotes, or a video file")
    parser.add_argument("--output", required=True, metavar="DIR", help="where the results go")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--score", type=float, default=0.5, help="keep detections with at least this score (default .5)")
    parser.add_argument("--batch-size", type=int, default=1, help="pictures that go through the network at once")
    parser.add_argument("--tasks", default="detect,segment", help="detect, segment or both (default)")
    parser.add_argument("--on-error", choices=["skip", "raise"], default="skip", help="what to do at an unreadable picture")
    parser.set_defaults(run=_infer)


def _infer(parsed: argparse.Namespace) -> int:
    from vistasks.infer import infer, print_summary
    from vistasks.predictor import load

    tasks = [task.strip() for task in parsed.tasks.split(",")]
    predictor = load(parsed.weights, parsed.device, tasks=tasks, score=parsed.score, batch_size=parsed.batch_size)
    output = Path(parsed.output)
    return print_summary(infer(predictor, parsed.source, output, on_error=parsed.on_error), output)


def _add_data(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    prepare = _add_action(actions, "prepare", "download and unpack a public data set")
    prepare.add_argument("name", help="voc2007, voc2012, coco2017, camvid or bccd")
    prepare.add_argument("--root", metavar="DIR", help="where to (default: data/NAME)")
    prepare.set_defaults(run=_data_prepare)
    check = _add_action(actions, "check", "read every picture and label once and name what is wrong")
    _config_arguments(check)
    check.set_defaults(run=_data_check)
    show = _add_action(actions, "show", "write a contact sheet of what the network sees")
    _config_arguments(show)
    show.add_argument("--output", default="out/data.jpg", metavar="FILE", help="the picture (default: out/data.jpg)")
    show.add_argument("--count", type=int, default=12, help="samples on the sheet")
    show.set_defaults(run=_data_show)


def _data_prepare(parsed: argparse.Namespace) -> int:
    from vistasks.data_commands import prepare_command

    return prepare_command(parsed.name, Path(parsed.root or f"data/{parsed.name}"))


def _data_check(parsed: argparse.Namespace) -> int:
    from vistasks.config import load_config

    config = load_config(parsed.config, parsed.overrides)
    from vistasks.data_commands import check_command

    return check_command(config)


def _data_show(parsed: argparse.Namespace) -> int:
    from vistasks.config import load_config

    config = load_config(parsed.config, parsed.overrides)
    from vistasks.data_commands import show_command

    return show_command(config, Path(parsed.output), count=parsed.count)


def _add_proposals(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    compute = _add_action(actions, "compute", "fill the proposal cache for a config's pictures; can be stopped and run again")
    report = _add_action(actions, "report", "recall, overlap and time of a config's proposals")
    for action, run in ((compute, _proposals_compute), (report, _proposals_report)):
        _config_arguments(action)
        action.add_argument("--part", choices=["train", "val"], default="val", help="which data (default: val)")
        action.add_argument("--threads", type=int, help="pictures side by side (default: all cores)")
        action.set_defaults(run=run)
    report.add_argument("--json", metavar="FILE", help="write the numbers here")
    report.add_argument("--plot", metavar="FILE", help="write a plot of recall against the number of boxes here")
    clear = _add_action(actions, "clear", "empty a proposal cache")
    clear.add_argument("--folder", default="data/proposals", metavar="DIR", help="the cache (default: data/proposals)")
    clear.set_defaults(run=_proposals_clear)


def _proposals_of(parsed: argparse.Namespace) -> tuple[Any, Any]:
    from vistasks.config import load_config

    config = load_config(parsed.config, parsed.overrides)
    from vistasks.build import build_dataset, build_proposals

    return build_dataset(config, parsed.part), build_proposals(config.proposals)


def _proposals_compute(parsed: argparse.Namespace) -> int:
    dataset, method = _proposals_of(parsed)
    from vistasks.proposals.commands import compute_command

    return compute_command(dataset, method, threads=parsed.threads)


def _proposals_report(parsed: argparse.Namespace) -> int:
    dataset, method = _proposals_of(parsed)
    from vistasks.proposals.commands import report_command

    json_path, plot_path = (Path(name) if name else None for name in (parsed.json, parsed.plot))
    return report_command(dataset, method, json_path=json_path, plot_path=plot_path, threads=parsed.threads)


def _proposals_clear(parsed: argparse.Namespace) -> int:
    from vistasks.proposals.commands import clear_command

    return clear_command(Path(parsed.folder))


def _add_benchmark(parser: argparse.ArgumentParser) -> None:
    names = parser.add_subparsers(title="benchmarks", metavar="NAME", required=True)
    search = _add_action(names, "selective-search", "ours beside OpenCV contrib's and dlib's: seconds, overlap, recall")
    search.add_argument("--data", required=True, metavar="DIR", help="a VOC or COCO data set")
    search.add_argument("--peer-python", metavar="PATH", help="a Python with opencv-contrib-python and dlib-bin installed")
    search.add_argument("--split", default="val", help="which list of the data set (default: val)")
    search.add_argument("--pictures", type=int, default=25, help="how many, evenly spaced (default: 25)")
    search.add_argument("--modes", default="fast", help="single, fast, quality; several with commas (default: fast)")
    search.add_argument("--threads", default="1", help="numbers of threads, with commas (default: 1)")
    search.set_defaults(run=_benchmark_search)
    evaluation = _add_action(names, "evaluate", "COCO AP by hotcoco beside pycocotools on a generated COCO-sized set")
    evaluation.set_defaults(run=_benchmark_evaluate)
    for name in (search, evaluation):
        name.add_argument("--json", metavar="FILE", help="write the numbers here as well")


def _benchmark_search(parsed: argparse.Namespace) -> int:
    from vistasks.benchmarks.selective_search import benchmark

    modes, threads = parsed.modes.split(","), [int(number) for number in parsed.threads.split(",")]
    return _print_numbers(
        parsed.json,
        benchmark(
            Path(parsed.data),
            peer_python=parsed.peer_python,
            split=parsed.split,
            pictures=parsed.pictures,
            modes=modes,
            threads=threads,
        ),
    )


def _benchmark_evaluate(parsed: argparse.Namespace) -> int:
    from vistasks.benchmarks.evaluate import benchmark

    return _print_numbers(parsed.json, benchmark())


def _print_numbers(file: str | None, numbers: dict[str, Any]) -> int:
    text = json.dumps(numbers, indent=1)
    print(text)
    if file:
        from vistasks.atomic import write_text

        write_text(Path(file), text)
    return 0


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", default="runs/demo", metavar="DIR", help="where everything goes (default: runs/demo)")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help=OVERRIDES)
    parser.set_defaults(run=_demo)


def _demo(parsed: argparse.Namespace) -> int:
    from vistasks.demo import demo

    return demo(Path(parsed.output), parsed.overrides)


COMMANDS: dict[str, tuple[Callable[[argparse.ArgumentParser], None], str]] = {
    "train": (_add_train, "Train a detector, a segmenter or both over one trunk, as a config says."),
    "evaluate": (_add_evaluate, "Measure trained weights on a config's validation data: COCO and VOC AP, IoU."),
    "infer": (_add_infer, "Run trained weights on pictures or a video: drawn pictures, COCO json, masks, csv."),
    "data": (_add_data, "Prepare, check and look at data sets."),
    "proposals": (_add_proposals, "Compute, judge and clear region proposals."),
    "benchmark": (_add_benchmark, "Time ours beside a peer in the same run."),
    "demo": (_add_demo, "The main job on generated pictures: data, training, evaluation, inference."),
}

if __name__ == "__main__":
    sys.exit(main())
