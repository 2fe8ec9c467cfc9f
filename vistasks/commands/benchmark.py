"""``vistasks benchmark NAME``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vistasks.commands.arguments import add_action, config_arguments, print_numbers

Parsers = tuple[argparse.ArgumentParser, ...]


def add(parser: argparse.ArgumentParser) -> None:
    names = parser.add_subparsers(title="benchmarks", metavar="NAME", required=True)
    for own in (
        *_of_proposals(names),
        *_of_models(names),
        *_of_video(names),
        *_of_training(names),
        *_of_labels(names),
    ):
        own.add_argument("--json", metavar="FILE", help="also write the results to this file")


def _of_proposals(names: Any) -> Parsers:
    search = add_action(
        names,
        "selective-search",
        "compare selective search with OpenCV contrib's and dlib's: time, overlap, recall",
    )
    search.add_argument("--data", required=True, metavar="DIR", help="a VOC or COCO data set")
    search.add_argument(
        "--peer-python",
        metavar="PATH",
        help="a Python interpreter with opencv-contrib-python and dlib-bin installed",
    )
    search.add_argument("--split", default="val", help="split of the data set (default: val)")
    search.add_argument(
        "--pictures", type=int, default=25, help="number of images, evenly spaced (default: 25)"
    )
    search.add_argument(
        "--modes", default="fast", help="comma-separated modes of single, fast, quality (default: fast)"
    )
    search.add_argument("--threads", default="1", help="comma-separated thread counts (default: 1)")
    search.set_defaults(run=_benchmark_search)
    size = add_action(names, "selective-search-size", "time selective search by image size and thread count")
    size.add_argument(
        "--data",
        required=True,
        metavar="DIR",
        help="a VOC or COCO data set; its images are tiled to the sizes",
    )
    size.add_argument("--split", default="train", help="split of the data set (default: train)")
    size.add_argument("--megapixels", help="comma-separated sizes in megapixels (default: 0.1 to 24)")
    size.add_argument("--threads", default="1", help="comma-separated thread counts (default: 1)")
    size.add_argument("--mode", choices=["single", "fast", "quality"], default="fast", help="default: fast")
    size.add_argument("--plot", metavar="FILE", help="write a plot here")
    size.set_defaults(run=_size)
    return search, size


def _of_models(names: Any) -> Parsers:
    detector = add_action(
        names, "detector", "compare a detector's latency with torchvision's Faster R-CNN on the same backbone"
    )
    config_arguments(detector)
    detector.add_argument("--weights", metavar="PATH", help="run folder or checkpoint (default: untrained)")
    detector.add_argument(
        "--peer-weights", metavar="FILE", help="state dict for torchvision's model (default: untrained)"
    )
    detector.add_argument(
        "--pictures", type=int, default=10, help="number of images, evenly spaced (default: 10)"
    )
    detector.add_argument("--rounds", type=int, default=3, help="rounds; the best counts (default: 3)")
    detector.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    detector.set_defaults(run=_detector)
    evaluation = add_action(
        names, "evaluate", "compare hotcoco with pycocotools on a generated COCO-sized set"
    )
    evaluation.add_argument("--report", metavar="DIR", help="also write the report page here")
    evaluation.set_defaults(run=_benchmark_evaluate)
    joint = add_action(
        names,
        "joint",
        "compare one joint forward pass with torchvision's detector and segmenter run in sequence",
    )
    joint.add_argument(
        "--image", metavar="FILE", help="an image, scaled to 640x480 (default: a generated one)"
    )
    joint.add_argument("--threads", type=int, default=2, help="CPU threads for every model (default: 2)")
    joint.add_argument(
        "--rounds", type=int, default=7, help="timed passes of each model, alternating (default: 7)"
    )
    joint.set_defaults(run=_joint)
    return detector, evaluation, joint


def _of_video(names: Any) -> Parsers:
    video = add_action(
        names,
        "video",
        "time the video pipeline on a generated clip: stages alone, concurrent and sequential; memory",
    )
    video.add_argument(
        "--weights", metavar="PATH", help="checkpoint or run folder (default: a stub that costs nothing)"
    )
    video.add_argument("--device", default="auto", help="auto, cpu or cuda")
    video.add_argument("--frames", type=int, default=120, help="frames of the clip (default: 120)")
    video.add_argument(
        "--size", default="1280x720", metavar="WxH", help="size of the clip (default: 1280x720)"
    )
    video.add_argument("--batch", type=int, default=1, help="frames per batch (default: 1)")
    video.add_argument("--half", action="store_true", help="16-bit inference")
    video.add_argument("--compile", action="store_true", help="compile the backbone")
    video.add_argument("--cuda-graphs", action="store_true", help="replay the backbone from CUDA graphs")
    video.add_argument(
        "--propose-every", type=int, default=1, metavar="N", help="compute proposals on every N-th frame only"
    )
    video.add_argument(
        "--segment-every",
        type=int,
        default=1,
        metavar="M",
        help="compute the segmentation map on every M-th frame only",
    )
    video.add_argument(
        "--proposals", choices=["method", "segmentation"], default="method", help="as in infer"
    )
    video.add_argument(
        "--memory-frames",
        type=int,
        default=10_000,
        metavar="N",
        help="frames of the memory test; 0 skips it (default: 10000)",
    )
    video.set_defaults(run=_video)
    options = add_action(
        names,
        "video-options",
        "measure accuracy and throughput of --propose-every, --half and similar options on labelled clips",
    )
    options.add_argument(
        "--weights",
        required=True,
        metavar="PATH",
        help="a model trained on generated shapes, such as the demo's",
    )
    options.add_argument("--device", default="auto", help="auto, cpu or cuda")
    options.add_argument("--clips", type=int, default=3, help="generated clips (default: 3)")
    options.add_argument("--frames", type=int, default=60, help="frames of each clip (default: 60)")
    options.set_defaults(run=_video_options)
    return video, options


def _of_training(names: Any) -> Parsers:
    loader = add_action(
        names,
        "loader",
        "measure the loader's memory with and without workers on a generated COCO-sized index",
    )
    loader.add_argument("--images", type=int, default=118_000, help="images in the index (default: 118000)")
    loader.add_argument("--boxes", type=int, default=860_000, help="boxes in the index (default: 860000)")
    loader.add_argument("--workers", type=int, default=8, help="data workers (default: 8)")
    loader.set_defaults(run=_loader)
    training = add_action(
        names,
        "train",
        "measure training throughput, time spent waiting for data, and the loop's overhead over the bare network",
    )
    config_arguments(training)
    training.add_argument(
        "--steps", type=int, default=20, help="optimizer steps per measurement (default: 20)"
    )
    training.set_defaults(run=_train)
    return loader, training


def _of_labels(names: Any) -> Parsers:
    labels = add_action(
        names, "audit", "plant label errors in generated shapes and count how many the audit finds"
    )
    labels.add_argument(
        "--weights", required=True, metavar="PATH", help="a run on generated shapes with a detection head"
    )
    labels.add_argument(
        "--output",
        required=True,
        metavar="DIR",
        help="write the damaged data, the list of errors and the audit here",
    )
    labels.add_argument("--removed", type=int, default=30, help="labels to remove (default: 30)")
    labels.add_argument("--changed", type=int, default=30, help="labels to give another class (default: 30)")
    labels.add_argument("--top", type=int, default=60, help="entries of the audit to count (default: 60)")
    labels.add_argument(
        "--data-seed", type=int, default=8, help="seed of the images (default: 8; data/shapes has 7)"
    )
    labels.add_argument("--seed", type=int, default=0, help="seed of the planted errors (default: 0)")
    labels.set_defaults(run=_labels)
    return (labels,)


def _benchmark_search(parsed: argparse.Namespace) -> int:
    from vistasks.benchmarks.selective_search import benchmark

    modes, threads = parsed.modes.split(","), [int(number) for number in parsed.threads.split(",")]
    return print_numbers(
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


def _size(parsed: argparse.Namespace) -> int:
    from vistasks.benchmarks.selective_search_size import MEGAPIXELS, benchmark, plot

    sizes = (
        [float(number) for number in parsed.megapixels.split(",")] if parsed.megapixels else list(MEGAPIXELS)
    )
    threads = [int(number) for number in parsed.threads.split(",")]
    result = benchmark(
        Path(parsed.data), split=parsed.split, megapixels=sizes, threads=threads, mode=parsed.mode
    )
    if parsed.plot:
        plot(result, Path(parsed.plot))
    return print_numbers(parsed.json, result)


def _video(parsed: argparse.Namespace) -> int:
    from vistasks.benchmarks.video import benchmark
    from vistasks.inference.video.options import InferOptions

    width, _, height = parsed.size.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise ValueError(f"--size: expected WIDTHxHEIGHT, such as 1280x720; received {parsed.size}")
    result = benchmark(
        parsed.weights,
        device=parsed.device,
        frames=parsed.frames,
        size=(int(height), int(width)),
        batch_size=parsed.batch,
        half=parsed.half,
        compiled=parsed.compile,
        cuda_graphs=parsed.cuda_graphs,
        memory_frames=parsed.memory_frames,
        options=InferOptions(
            progress=False,
            propose_every=parsed.propose_every,
            segment_every=parsed.segment_every,
            proposals=parsed.proposals,
        ),
    )
    return print_numbers(parsed.json, result)


def _video_options(parsed: argparse.Namespace) -> int:
    from vistasks.benchmarks.video_options import benchmark

    return print_numbers(
        parsed.json, benchmark(parsed.weights, device=parsed.device, clips=parsed.clips, frames=parsed.frames)
    )


def _joint(parsed: argparse.Namespace) -> int:
    from vistasks.benchmarks.joint import benchmark

    image = Path(parsed.image) if parsed.image else None
    return print_numbers(parsed.json, benchmark(image=image, threads=parsed.threads, rounds=parsed.rounds))


def _detector(parsed: argparse.Namespace) -> int:
    from vistasks.config import load_config

    config = load_config(parsed.config, parsed.overrides)
    from vistasks.benchmarks.detector import benchmark

    return print_numbers(
        parsed.json,
        benchmark(
            config,
            weights=parsed.weights,
            peer_weights=parsed.peer_weights,
            pictures=parsed.pictures,
            rounds=parsed.rounds,
            threads=parsed.threads,
        ),
    )


def _train(parsed: argparse.Namespace) -> int:
    from vistasks.config import load_config

    config = load_config(parsed.config, parsed.overrides)
    if parsed.steps < 3:
        raise ValueError(f"--steps must be at least 3: the first is left out; received {parsed.steps}")
    from vistasks.benchmarks.train import benchmark

    return print_numbers(parsed.json, benchmark(config, steps=parsed.steps))


def _benchmark_evaluate(parsed: argparse.Namespace) -> int:
    from vistasks.benchmarks.evaluate import benchmark

    return print_numbers(parsed.json, benchmark(report=Path(parsed.report) if parsed.report else None))


def _labels(parsed: argparse.Namespace) -> int:
    if parsed.top < 1:
        raise ValueError(f"--top must be at least 1; received {parsed.top}")
    from vistasks.benchmarks.audit import benchmark

    result = benchmark(
        parsed.weights,
        Path(parsed.output),
        removed=parsed.removed,
        changed=parsed.changed,
        top=parsed.top,
        data_seed=parsed.data_seed,
        seed=parsed.seed,
    )
    return print_numbers(parsed.json, result)


def _loader(parsed: argparse.Namespace) -> int:
    from vistasks.benchmarks.loader import benchmark

    return print_numbers(
        parsed.json, benchmark(images=parsed.images, boxes=parsed.boxes, workers=parsed.workers)
    )
