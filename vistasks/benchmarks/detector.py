"""The time of a detector beside torchvision's Faster R-CNN on the same trunk, picture by picture in one
run.
"""

from __future__ import annotations

import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from vistasks.build import build_dataset, build_proposals
from vistasks.checkpoint import Checkpoint
from vistasks.config import Config
from vistasks.heads.region_classifier import RegionClassifier
from vistasks.inference.loaded import LoadedModel, load_model
from vistasks.models.building import build_model
from vistasks.proposals.cache import CachedProposals
from vistasks.registry import BACKBONES
from vistasks.types import ClassNames, Sample

PEER_CHANNELS = 128
SURE = 0.5  # the score that untrained models do not reach


class PeerTrunk(nn.Module):
    """One of our trunks under torchvision's own feature pyramid, as its detectors take it."""

    def __init__(self, backbone: nn.Module, channels: int = PEER_CHANNELS) -> None:
        super().__init__()
        self.backbone, self.out_channels = backbone, channels
        published: Any = backbone.channels
        self.strides = [stride for stride in sorted(published) if stride >= 4]
        self.fpn = FeaturePyramidNetwork(
            [published[s] for s in self.strides], channels, extra_blocks=LastLevelMaxPool()
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.backbone(images).maps
        found: dict[str, Tensor] = self.fpn(
            OrderedDict((str(index), maps[s]) for index, s in enumerate(self.strides))
        )
        return found


def peer_detector(config: Config, classes: int, *, trained: bool) -> FasterRCNN:
    """torchvision's Faster R-CNN over the config's trunk, with its defaults but for the input size and the
    width of 128.
    """
    backbone: Any = BACKBONES.build({**config.model.backbone, "weights": None}, where="model.backbone")
    size = {"min_size": config.input.min_side or 800, "max_size": config.input.max_side or 1333}
    return FasterRCNN(
        PeerTrunk(backbone),
        num_classes=classes + 1,
        image_mean=list(backbone.mean),
        image_std=list(backbone.std),
        box_score_thresh=0.05 if trained else SURE,
        **size,
    ).eval()


def benchmark(
    config: Config,
    *,
    weights: str | None = None,
    peer_weights: str | None = None,
    pictures: int = 10,
    rounds: int = 3,
    threads: int = 1,
) -> dict[str, Any]:
    """Seconds a picture: the medians, over pictures, of the best of some rounds that take the detectors in
    turn.

    Reading the picture files is left out. Without weights the networks are untrained and their last
    suppression of duplicates has nothing to do, for both alike.

    Args:
        config: the detector, and the data whose evaluation part is used.
        weights: a run folder or a checkpoint of a detector, instead of the config's model with random
            weights.
        peer_weights: a state dict of `peer_detector` (a .pth file).
        threads: of PyTorch and of selective search.

    Returns: "seconds" and "images_per_second" by detector, "parts" of ours ("proposals", "network", "cache"),
    and what was timed."""
    if pictures < 1 or rounds < 1 or threads < 1:
        raise ValueError(
            f"images, rounds and threads must be at least 1; received {pictures}, {rounds} and {threads}"
        )
    if RegionClassifier.task not in config.model.heads:
        raise ValueError("benchmark detector: model.heads has no detection head")
    data = build_dataset(config, "val")
    images = [
        data[index].image for index in np.linspace(0, len(data) - 1, min(pictures, len(data))).astype(int)
    ]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        ours = (
            load_model(weights, "cpu", proposals=config.proposals)
            if weights
            else _untrained(config, data.classes)
        )
        peer = peer_detector(config, len(data.classes.detection), trained=peer_weights is not None)
        if peer_weights is not None:
            peer.load_state_dict(torch.load(peer_weights, weights_only=True))
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            kept = CachedProposals(
                build_proposals(config.proposals.model_copy(update={"cache": None})), Path(folder)
            )
            times = _timed(_tasks(ours, peer, kept), images, rounds)
    finally:
        torch.set_num_threads(before)
    seconds = {"ours, proposals cached": times["cache"] + times["network"]}
    seconds["ours, proposals computed"] = times["proposals"] + times["network"]
    seconds["torchvision Faster R-CNN"] = times["peer"]
    return {
        "pictures": len(images),
        "rounds": rounds,
        "threads": threads,
        "backbone": config.model.backbone["name"],
        "proposals": config.proposals.method["name"],
        "trained": {"ours": weights is not None, "torchvision": peer_weights is not None},
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
        "images_per_second": {name: round(1 / value, 2) for name, value in seconds.items()},
        "parts": {name: round(times[name], 4) for name in ("proposals", "cache", "network")},
        "torch": torch.__version__,
    }


def _untrained(config: Config, classes: ClassNames) -> LoadedModel:
    model = build_model(config.model, classes, pretrained=False)
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    loaded = LoadedModel(
        Checkpoint(Path("untrained"), config, classes, {}, tensors, config), torch.device("cpu")
    )
    head: Any = loaded.model.heads[RegionClassifier.task]
    head.decoding = type(head.decoding)(score=SURE)
    return loaded


def _tasks(
    ours: LoadedModel, peer: FasterRCNN, kept: CachedProposals
) -> dict[str, Callable[[np.ndarray], object]]:
    """What is timed, each for one picture (H, W, 3) uint8; the network takes the proposals that the cache
    has.
    """

    def sample(image: np.ndarray) -> Sample:
        return Sample("image", "image", image)

    def network(image: np.ndarray) -> object:
        return ours.model.predict(ours.make_batch([image], [proposals[id(image)]]))

    proposals: dict[int, np.ndarray] = {}

    def cached(image: np.ndarray) -> object:
        proposals[id(image)] = kept(sample(image))
        return proposals

    return {
        "proposals": lambda image: kept.method(sample(image)),
        "cache": cached,
        "network": network,
        "peer": lambda image: peer([torch.from_numpy(image).permute(2, 0, 1).float() / 255]),
    }


def _timed(
    tasks: dict[str, Callable[[np.ndarray], object]], images: list[np.ndarray], rounds: int
) -> dict[str, float]:
    """After a round that only warms up: by task the median over pictures of each one's best time."""
    best: dict[str, list[float]] = {name: [float("inf")] * len(images) for name in tasks}
    for turn in range(rounds + 1):
        for index, image in enumerate(images):
            for name, task in tasks.items():
                started = time.perf_counter()
                task(image)
                if turn:
                    best[name][index] = min(best[name][index], time.perf_counter() - started)
    return {name: median(values) for name, values in best.items()}
