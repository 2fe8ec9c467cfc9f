"""Grad-CAM (Selvaraju et al. 2017) for detections, classes and pixels of either head, and occlusion
sensitivity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vistasks.heads.region_classifier import RegionClassifier
from vistasks.heads.segmentation import SegmentationHead
from vistasks.models import MultiTaskModel
from vistasks.types import Batch, Features

Score = Callable[[Features], Tensor]


@dataclass(frozen=True, eq=False)
class Heat:
    """``values`` (H, W) float32 from 0 to 1 over the padded input; the stride of the map that was looked
    at.
    """

    values: np.ndarray
    stride: int


def grad_cam(
    model: MultiTaskModel, batch: Batch, score: Score, *, local: bool = False, stride: int | None = None
) -> Heat:
    """Where the trunk's map at ``stride`` speaks for a score.

    The map's channels are weighted by the mean of the score's gradient over the map (eq. 1 of the paper) and
    summed, and what speaks against it is cut off (eq. 2).

    Args:
        model: in evaluation mode.
        batch: one picture.
        score: features (of the neck where there is one) -> a scalar.
        local: for scores of one place (a box, a pixel): each cell is weighted by its own gradient (HiResCAM,
            Draelos and Carin 2020), since the mean gradient would also light up what looks alike elsewhere.
        stride: None: the deepest map that the score depends on. Heads that pass crops through the trunk (roi:
            warp) are looked at in the crop: the heat then covers the crop, stretched over the picture.

    Raises:
        ValueError: the score does not depend on the map.
    """
    seen: list[dict[int, Tensor]] = []

    def cut(module: torch.nn.Module, inputs: object, output: Features) -> Features:
        """The maps become leaves, so that a frozen trunk has gradients too, and deep maps do not pass theirs
        on.
        """
        leaves = {s: m.detach().clone().requires_grad_() for s, m in output.maps.items()}
        seen.append(leaves)
        return replace(output, maps=leaves)

    handle = model.backbone.register_forward_hook(cut)
    try:
        with torch.enable_grad():
            value = score(model.features(batch))
            maps = seen[-1]
            found = torch.autograd.grad(value, list(maps.values()), allow_unused=True)
    finally:
        handle.remove()
    gradients = {s: g for s, g in zip(maps, found) if g is not None and bool((g != 0).any())}
    chosen = max(gradients, default=None) if stride is None else stride
    if chosen is None or chosen not in gradients:
        readable = ", ".join(map(str, gradients)) or "none"
        raise ValueError(
            f"the score does not depend on the backbone's map at stride {stride}; it does at: {readable}"
        )
    weights = gradients[chosen] if local else gradients[chosen].mean(dim=(2, 3), keepdim=True)
    heat = functional.relu((weights * maps[chosen].detach()).sum(dim=1, keepdim=True))
    size = (int(batch.images.shape[-2]), int(batch.images.shape[-1]))
    heat = functional.interpolate(heat, size=size, mode="bilinear", align_corners=False)[0, 0]
    return Heat((heat / heat.max().clamp(min=1e-12)).cpu().numpy(), chosen)


def detection_score(model: MultiTaskModel, batch: Batch, box: Tensor, label: int) -> Score:
    """The class logit that the region classifier gives a box (4,) of the batch's picture."""
    head = model.heads[RegionClassifier.task]
    return lambda features: head(features, [box[None]], model.encode)[0][0, label]


def class_score(model: MultiTaskModel, batch: Batch, label: int) -> Score:
    """The mean logit of a class over the pixels of its own in the class map; over the whole picture where it
    has none.

    (Vinogradova, Dibrov and Myers 2020, "Towards interpretable semantic segmentation via Seg-Grad-CAM", eq.
    2.)"""

    def score(features: Features) -> Tensor:
        logits = _logits(model, batch, features)
        own = logits.argmax(dim=0) == label
        return logits[label][own].mean() if bool(own.any()) else logits[label].mean()

    return score


def pixel_score(model: MultiTaskModel, batch: Batch, x: int, y: int, label: int) -> Score:
    """The logit of a class at a pixel of the scaled picture."""
    return lambda features: _logits(model, batch, features)[label, y, x]


def _logits(model: MultiTaskModel, batch: Batch, features: Features) -> Tensor:
    """(S, h, w) of the picture without its padding."""
    height, width = batch.sizes[0]
    size = (int(batch.images.shape[-2]), int(batch.images.shape[-1]))
    logits: Tensor = model.heads[SegmentationHead.task](features, size)
    return logits[0, :, :height, :width].float()


@torch.no_grad()
def occlusion(model: MultiTaskModel, batch: Batch, score: Score, *, cells: int = 10) -> np.ndarray:
    """How much a score falls when a square of the mean colour hides a part (Zeiler and Fergus 2014, section
    4.2).

    Returns: (rows, columns) float32, ``cells`` along the shorter side; the squares are two cells wide and
    overlap by half."""
    height, width = batch.sizes[0]
    side = max(1, min(height, width) // cells)
    colour = (model.mean[0] * 255).round().to(torch.uint8)
    whole = float(score(model.features(batch)))
    falls = np.zeros((-(-height // side), -(-width // side)), dtype=np.float32)
    for row in range(falls.shape[0]):
        for column in range(falls.shape[1]):
            y, x = row * side + side // 2, column * side + side // 2
            images = batch.images.clone()
            images[
                0, :, max(0, y - side) : min(height, y + side), max(0, x - side) : min(width, x + side)
            ] = colour
            falls[row, column] = whole - float(score(model.features(replace(batch, images=images))))
    return falls
