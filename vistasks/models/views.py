"""Test-time augmentation: an image seen through several views, whose opinions each head averages.

The backbone sees each view once, for all heads. Region proposals are those of the image itself, moved along
with each view: what looks for them does not run once per view."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from vistasks.heads.head import Head
from vistasks.heads.test_time import TestTime, ViewedImage, padded
from vistasks.loading.batching import with_proposals
from vistasks.task import task_of
from vistasks.types import Batch, Features, Prediction

# the predictions of a batch's images so far -> further proposals for each
Regions = Callable[[list[Prediction]], Sequence[np.ndarray]]


class ViewedModel(Protocol):
    """What views ask of a model; `vistasks.models.MultiTaskModel` is one."""

    @property
    def heads(self) -> Mapping[str, Head]: ...

    @property
    def divisor(self) -> int: ...

    def encode(self, images: Tensor) -> Features: ...

    def normalised(self, images: Tensor) -> Tensor: ...

    def features_of(self, images: Tensor) -> Features: ...


def viewed_images(model: ViewedModel, batch: Batch, index: int, test_time: TestTime) -> Iterator[ViewedImage]:
    """Image ``index`` of the batch through all views, one after the other."""
    one = batch.rows([index])
    (size,) = one.sizes
    images = model.normalised(one.images[..., : size[0], : size[1]])
    for view in test_time.views:
        seen = view.apply(images)
        features = model.features_of(padded(seen, model.divisor))
        assert features.images is not None  # what they were made of
        height, width = seen.shape[-2:]
        viewed = replace(one, images=features.images, sizes=((height, width),))
        yield ViewedImage(view, features, viewed, size)


def view_opinions(
    model: ViewedModel, batch: Batch, test_time: TestTime, rows: Mapping[str, Sequence[int]] | None = None
) -> list[dict[str, Any]]:
    """Task -> what its head says of each image, from all views together (`Head.averaged`).

    ``rows``: by task, the only images that its head is asked about."""
    found = []
    for index in range(len(batch)):
        tasks = [task for task in model.heads if index in (rows or {}).get(task, [index])]
        said: dict[str, list[Any]] = {task: [] for task in tasks}
        for seen in viewed_images(model, batch, index, test_time) if tasks else ():
            for task in tasks:
                said[task].append(model.heads[task].through_view(seen, model.encode))
        found.append({task: model.heads[task].averaged(own, test_time.fusion) for task, own in said.items()})
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

    With ``regions`` the backbone sees each view once more, for the heads that take proposals.
    """
    wanted = {task: list(rows.get(task, range(len(batch)))) for task in model.heads}
    late = [task for task in model.heads if regions is not None and task_of(task).takes_proposals]
    early = [task for task in model.heads if task not in late]
    found = [Prediction()] * len(batch)
    for tasks in (early, late):
        if not tasks:
            continue
        if tasks is late and regions is not None:
            batch = with_proposals(batch, regions(found))
        asked = {task: wanted[task] if task in tasks else [] for task in model.heads}
        opinions = view_opinions(model, batch, test_time, asked)
        found = [
            with_opinions(model, prediction, said, size)
            for prediction, said, size in zip(found, opinions, batch.original_sizes)
        ]
    return found


def with_opinions(
    model: ViewedModel, prediction: Prediction, said: Mapping[str, Any], size: tuple[int, int]
) -> Prediction:
    """The prediction with what the heads decide of an image of ``size`` (H, W) by their opinions."""
    for task, opinion in said.items():
        prediction = task_of(task).with_answer(prediction, model.heads[task].decided(opinion, size))
    return prediction
