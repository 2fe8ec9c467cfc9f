"""From region proposals to one fixed-size feature map each: shared over the image (Fast R-CNN) or by warping
(R-CNN).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align, roi_pool

from vistasks.heads.head import Trunk, require_strides
from vistasks.ops.roi_align import gather_roi_align
from vistasks.types import Encoder, Features


class RegionFeatures(nn.Module, ABC):
    """regions of each image, tuple of (R_i, 4) -> (sum R_i, channels, size, size)."""

    channels: int
    size: int
    reads_image_features: bool

    @abstractmethod
    def forward(self, features: Features, regions: Sequence[Tensor], encode: Encoder) -> Tensor:
        """``encode`` is the trunk, for crops of ``features.images``."""


class AlignedRegions(RegionFeatures):
    """RoIAlign (He et al. 2017, section 3) or RoIPool (Girshick 2015, section 2.1) of the image's features.

    With several maps a region of side s = sqrt(w h) reads the one whose stride is 16 s / ``canonical``,
    rounded down to a power of 2 and to what there is (Lin et al. 2017, "Feature pyramid networks", eq. 1,
    with 224 for ``canonical``).

    Args:
        trunk: what the maps look like.
        strides: which maps; several must have one number of channels, unless ``reduce`` is given.
        size: cells of the output per side.
        reduce: a 1x1 convolution to this many channels before pooling; None: the map as it is.
        canonical: the side in pixels of a region that reads stride 16.
        pool: RoIPool's maximum over rounded cells instead of RoIAlign.
    """

    reads_image_features = True

    def __init__(
        self,
        *,
        trunk: Trunk,
        strides: Sequence[int],
        size: int,
        reduce: int | None,
        canonical: int = 224,
        pool: bool = False,
    ) -> None:
        super().__init__()
        require_strides("region_classifier", trunk, strides)
        self.strides, self.size, self.canonical, self.pool = sorted(strides), size, canonical, pool
        widths = {stride: trunk.channels[stride] for stride in self.strides}
        if reduce is None and len(set(widths.values())) > 1:
            raise ValueError(
                f"align.stride: several maps must have one number of channels, but those of '{trunk.name}' have "
                f"{', '.join(f'{c} at {s}' for s, c in widths.items())}; add a neck such as fpn, or set align.reduce"
            )
        self.channels = reduce or widths[self.strides[0]]
        layers = [
            nn.Sequential(nn.Conv2d(width, reduce, 1), nn.ReLU()) if reduce else nn.Identity()
            for width in widths.values()
        ]
        self.reduce: nn.Module = layers[0] if len(layers) == 1 else nn.ModuleList(layers)

    def forward(self, features: Features, regions: Sequence[Tensor], encode: Encoder) -> Tensor:
        if len(self.strides) == 1:
            return self._pooled(
                self.reduce(features.maps[self.strides[0]]), [r.float() for r in regions], self.strides[0]
            )
        counts = [len(r) for r in regions]
        boxes = torch.cat([r.float() for r in regions])
        image = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(boxes)
        rois, level = torch.cat([image[:, None], boxes], dim=1), self.levels(boxes)
        pooled = boxes.new_zeros(len(boxes), self.channels, self.size, self.size)
        for index, stride in enumerate(
            self.strides
        ):  # also without a region, so that every layer stays in the graph
            mine = torch.nonzero(level == index).flatten()
            source = cast(nn.ModuleList, self.reduce)[index](features.maps[stride])
            pooled = pooled.index_copy(0, mine, self._pooled(source, rois[mine], stride))
        return pooled

    def levels(self, boxes: Tensor) -> Tensor:
        """(R, 4) -> (R,) which of the strides each region reads."""
        side = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).clamp(min=1).sqrt()
        power = torch.floor(torch.log2(16 * side / self.canonical) + 1e-6)
        steps = torch.log2(torch.tensor(self.strides, device=boxes.device, dtype=torch.float32))
        return (power[:, None] >= steps[None]).sum(dim=1).sub(1).clamp(min=0)

    def _pooled(self, source: Tensor, regions: Tensor | list[Tensor], stride: int) -> Tensor:
        # in float32: RoIAlign has no bf16 kernel on the CPU, and box coordinates lose whole pixels in 16 bits
        source = source.float()
        with torch.autocast(source.device.type, enabled=False):
            if self.pool:
                return roi_pool(source.contiguous(), regions, self.size, 1 / stride)
            if source.device.type == "cpu" and not torch.is_grad_enabled() and not torch.jit.is_tracing():
                if isinstance(regions, list):
                    regions = torch.cat(
                        [nn.functional.pad(r, (1, 0), value=float(i)) for i, r in enumerate(regions)]
                    )
                return gather_roi_align(source, regions, size=self.size, stride=stride)
            return roi_align(
                source.contiguous(), regions, self.size, 1 / stride, sampling_ratio=2, aligned=True
            )


class WarpedRegions(RegionFeatures):
    """The original R-CNN (Girshick et al. 2014, appendix A): each region with some context is warped to a
    square and goes through the trunk by itself.

    The context is ``context`` pixels of the warped square on every side; what lies outside the picture is the
    mean colour (0 after normalisation).

    Args:
        trunk: what the maps look like; the deepest one is used.
        crop: side of the warped square in pixels (227 in the paper).
        context: padding within the square (16 in the paper).
        chunk: crops that go through the trunk at once, in prediction.
    """

    reads_image_features = False

    def __init__(self, *, trunk: Trunk, crop: int, context: int, chunk: int = 64) -> None:
        super().__init__()
        self.stride = max(trunk.channels)
        if crop % self.stride:
            smaller = crop // self.stride * self.stride
            raise ValueError(
                f"crop must divide by the backbone's stride {self.stride}: use {smaller} or {smaller + self.stride}"
            )
        if not 0 <= 2 * context < crop:
            raise ValueError(f"context must be from 0 to less than half of crop ({crop}); received {context}")
        self.crop, self.context, self.chunk = crop, context, chunk
        self.size, self.channels = crop // self.stride, trunk.channels[self.stride]

    def forward(self, features: Features, regions: Sequence[Tensor], encode: Encoder) -> Tensor:
        images = features.images
        if images is None:
            raise ValueError("roi: warp crops the images, and these features carry none")
        boxes = torch.cat([r.float() for r in regions])
        owner = torch.cat([torch.full((len(r),), i, device=images.device) for i, r in enumerate(regions)])
        if len(boxes) == 0:  # one crop through the trunk keeps every parameter in the graph
            return encode(images.new_zeros(1, 3, self.crop, self.crop)).maps[self.stride][:0].float()
        chunk = len(boxes) if self.training else self.chunk
        parts = [
            self._encode(images, boxes[i : i + chunk], owner[i : i + chunk], encode)
            for i in range(0, len(boxes), chunk)
        ]
        return torch.cat(parts)

    def _encode(self, images: Tensor, boxes: Tensor, owner: Tensor, encode: Encoder) -> Tensor:
        return encode(self.warp(images, boxes, owner)).maps[self.stride].float()

    def warp(self, images: Tensor, boxes: Tensor, owner: Tensor) -> Tensor:
        """The crops (R, 3, crop, crop) of boxes (R, 4) from the images that ``owner`` (R,) names."""
        scale = self.crop / (self.crop - 2 * self.context)
        centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * scale
        wide = torch.cat([centre - half, centre + half], dim=1)  # (R, 4) with context
        size = wide.new_tensor([images.shape[3], images.shape[2]])
        steps = (torch.arange(self.crop, device=images.device) + 0.5) / self.crop
        corner, extent = wide[:, :2], wide[:, 2:] - wide[:, :2]
        x = (corner[:, :1] + extent[:, :1] * steps) / size[0] * 2 - 1  # (R, crop) in grid_sample's -1..1
        y = (corner[:, 1:] + extent[:, 1:] * steps) / size[1] * 2 - 1
        crops = []
        for image in range(len(images)):
            mine = owner == image
            if bool(mine.any()):
                gx, gy = x[mine], y[mine]
                grid = torch.stack(
                    [gx[:, None, :].expand(-1, self.crop, -1), gy[:, :, None].expand(-1, -1, self.crop)],
                    dim=-1,
                )
                source = images[image : image + 1].expand(len(grid), -1, -1, -1)
                crops.append(nn.functional.grid_sample(source, grid.to(source.dtype), align_corners=False))
        return torch.cat(crops)
