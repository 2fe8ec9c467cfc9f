"""A picture seen through several views: class probabilities averaged, boxes fused.

The trunk sees each view once, for both heads. Region proposals are those of the picture itself, moved along
with each view: what looks for them does not run once a view."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, cast

import numpy as np
from torch import Tensor

from vistasks.heads.head import Head
from vistasks.heads.region_classifier import RegionClassifier
from vistasks.heads.segmentation import SegmentationHead, class_map
from vistasks.heads.test_time import TestTime, View, padded
from vistasks.loading.batching import with_proposals
from vistasks.ops.box_fusion import fuse_detections
from vistasks.types import Batch, Detections, Features, Prediction, SegmentationMap

# class maps of a batch's images -> further proposals for each
Regions = Callable[[list[SegmentationMap | None]], Sequence[np.ndarray]]


class ViewedModel(Protocol):
    """What views ask of a model; `vistasks.models.MultiTaskModel` is one."""

    @property
    def heads(self) -> Mapping[str, Head]: ...

    @property
    def divisor(self) -> int: ...

    def encode(self, images: Tensor) -> Features: ...

    def normalised(self, images: Tensor) -> Tensor: ...

    def features_of(self, images: Tensor) -> Features: ...


class Opinion(NamedTuple):
    """What a model says of one image: boxes in its own pixels; class probabilities (1, S, h, w) at the
    network's resolution.
    """

    detections: Detections | None
    probabilities: Tensor | None


@dataclass(frozen=True, eq=False)
class Look:
    """One picture through one view: the features, and a batch of this one picture as the view sees it.

    The batch's images are normalised and padded; its ``original_sizes`` are those of the picture's file.
    ``size``: the (H, W) of the picture without the view."""

    view: View
    features: Features
    batch: Batch
    size: tuple[int, int]

    def probabilities(self, model: ViewedModel) -> Tensor:
        """(1, S, H, W) over the picture without the view."""
        (found,) = cast(SegmentationHead, model.heads["segmentation"]).probabilities(
            self.features, self.batch, model.encode
        )
        return self.view.undo(found, self.size)

    def detections(self, model: ViewedModel, proposals: Tensor) -> Detections:
        """Boxes in pixels of the original image, from proposals (P, 4) of the picture without the view."""
        moved = self.view.apply_boxes(proposals, self.size, self.batch.sizes[0])
        (found,) = model.heads["detection"].predict(
            self.features, replace(self.batch, proposals=(moved,)), model.encode
        )
        return replace(found, boxes=self.view.undo_boxes(found.boxes, self.batch.original_sizes[0][1]))


def looks(model: ViewedModel, batch: Batch, index: int, test_time: TestTime) -> Iterator[Look]:
    """Image ``index`` of the batch through all views, one after the other."""
    one = batch.rows([index])
    (size,) = one.sizes
    images = model.normalised(one.images[..., : size[0], : size[1]])
    for view in test_time.views:
        seen = view.apply(images)
        features = model.features_of(padded(seen, model.divisor))
        assert features.images is not None  # what they were made of
        height, width = seen.shape[-2:]
        yield Look(view, features, replace(one, images=features.images, sizes=((height, width),)), size)


def view_opinions(
    model: ViewedModel, batch: Batch, test_time: TestTime, rows: Mapping[str, Sequence[int]] | None = None
) -> list[Opinion]:
    """What is said of each image from all views together; ``rows``: by task, the only images that its head is
    asked about.
    """
    found = []
    for index in range(len(batch)):
        tasks = {task for task in model.heads if index in (rows or {}).get(task, [index])}
        total: Tensor | None = None
        answers: list[Detections] = []
        for look in looks(model, batch, index, test_time) if tasks else ():
            if "segmentation" in tasks:
                seen = look.probabilities(model)
                total = seen if total is None else total + seen
            if "detection" in tasks:
                answers.append(look.detections(model, batch.proposals[index]))
        mean = None if total is None else total / len(test_time.views)
        found.append(Opinion(_fused(model, answers, test_time) if answers else None, mean))
    return found


def predict_views(
    model: ViewedModel,
    batch: Batch,
    test_time: TestTime,
    *,
    rows: Mapping[str, Sequence[int]],
    regions: Regions | None,
) -> list[Prediction]:
    """As `vistasks.models.MultiTaskModel.predict`, from all views.

    With ``regions`` the backbone sees each view once more, for the boxes.
    """
    both = {task: list(rows.get(task, range(len(batch)))) for task in model.heads}
    opinions = view_opinions(model, batch, test_time, both if regions is None else {**both, "detection": []})
    maps: list[SegmentationMap | None] = []
    for opinion, size in zip(opinions, batch.original_sizes):
        names = (
            cast(SegmentationHead, model.heads["segmentation"]).classes
            if opinion.probabilities is not None
            else ()
        )
        maps.append(None if opinion.probabilities is None else class_map(opinion.probabilities, size, names))
    if regions is not None:
        batch = with_proposals(batch, regions(maps))
        opinions = view_opinions(model, batch, test_time, {**both, "segmentation": []})
    return [Prediction(opinion.detections, found) for opinion, found in zip(opinions, maps)]


def _fused(model: ViewedModel, answers: list[Detections], test_time: TestTime) -> Detections:
    limit = cast(RegionClassifier, model.heads["detection"]).decoding.max_detections
    return fuse_detections(answers, test_time.fusion, limit=limit)
