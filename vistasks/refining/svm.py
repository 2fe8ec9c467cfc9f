"""R-CNN's own classifier: a linear support vector machine for each class on a trained detector's features.

Girshick et al. 2014, section 2.3 and appendix B: after fine-tuning, the classifier is replaced by machines
that learn from stricter examples: the objects' own boxes against regions that hardly touch one, with hard
negatives mined over the training pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vistasks.checkpoint import free_target, read_checkpoint, save_made_of
from vistasks.config import Config, parse_config
from vistasks.heads.region_classifier import RegionClassifier
from vistasks.inference.loaded import LoadedModel, labelled_batches, load_model
from vistasks.loading.batching import to_device
from vistasks.ops.boxes import box_iof, box_iou
from vistasks.types import Batch, Features

NEGATIVE_IOU = 0.3  # a region below it, with every object of the class, is a negative example; between that and 1 it is none
COST, POSITIVE_WEIGHT, BIAS_SCALE, NORM = (
    1e-3,
    2.0,
    10.0,
    20.0,
)  # those of the authors' implementation, as is the mean norm
HARD, EASY, NEW = (
    -1.0,
    -1.2,
    2000,
)  # margins of negatives that are kept and dropped; new ones before a machine is fitted again
SHARPNESS = 2.0  # a logit in margins: regions on the margins get the probabilities .88 and .12


def fit(positive: Tensor, negative: Tensor, cost: float = COST) -> tuple[Tensor, float]:
    """Weight (D,) and bias of the machine between features (P, D) and (Q, D): L2 regularisation, squared
    hinge loss.
    """
    x = torch.cat([positive, negative]).double()
    sign = torch.cat([x.new_ones(len(positive)), -x.new_ones(len(negative))])
    factor = torch.where(sign > 0, POSITIVE_WEIGHT, 1.0) * cost
    state = x.new_zeros(x.shape[1] + 1, requires_grad=True)  # the weight, the bias / BIAS_SCALE
    solver = torch.optim.LBFGS(
        [state], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-7, tolerance_change=1e-10
    )

    def loss() -> Tensor:
        solver.zero_grad()
        margin = (x @ state[:-1] + BIAS_SCALE * state[-1]) * sign
        value = (state**2).sum() / 2 + (factor * (1 - margin).clamp(min=0) ** 2).sum()
        value.backward()  # type: ignore[no-untyped-call] # PyTorch's own
        return value

    solver.step(loss)  # type: ignore[no-untyped-call] # PyTorch's own
    return state[:-1].detach().float(), BIAS_SCALE * state[-1].item()


class LinearSvm:
    """One class's machine and the examples that it needs: every positive, and the negatives near or beyond
    its margin.
    """

    def __init__(self, cost: float) -> None:
        self.cost, self.seen = cost, 0
        self.weight: Tensor | None = None
        self.bias = 0.0
        self._positive: list[Tensor] = []
        self._negative: list[Tensor] = []
        self._new = 0

    @property
    def examples(self) -> tuple[int, int]:
        """How many positives and negatives it holds."""
        return sum(map(len, self._positive)), sum(map(len, self._negative))

    @property
    def right(self) -> int:
        """How many of the positives it tells as such."""
        return int((self.margins(torch.cat(self._positive)) > 0).sum())

    def margins(self, features: Tensor) -> Tensor:
        """(N, D) -> (N,); above 0 is the class."""
        assert self.weight is not None
        return features @ self.weight + self.bias

    def add(self, positive: Tensor, negative: Tensor) -> None:
        """A picture's examples; negatives that are easy are passed over."""
        self.seen += len(negative)
        if self.weight is not None:
            negative = negative[self.margins(negative) > HARD]
        self._positive.append(positive)
        self._negative.append(negative)
        self._new += len(negative)
        if self._new >= NEW and self.examples[0]:
            self.refit()

    def refit(self) -> None:
        """Fits the machine to what it holds, and lets go of the negatives that have become easy."""
        positive, negative = torch.cat(self._positive), torch.cat(self._negative)
        self.weight, self.bias = fit(positive, negative, self.cost)
        self._positive, self._negative, self._new = [positive], [negative[self.margins(negative) > EASY]], 0


@dataclass(frozen=True, eq=False)
class Examples:
    """Regions (R, 4) of one picture, the objects first; class k's positives have 1 in ``sides[:, k]``, its
    negatives -1.
    """

    regions: Tensor
    sides: Tensor


def examples(batch: Batch, index: int, proposals: Tensor) -> Examples:
    """What a picture of the batch teaches each class; nothing of a class that it does not label."""
    boxes, labels, labelled = batch.boxes[index], batch.labels[index], batch.detection_labelled[index]
    regions = torch.cat([boxes, proposals.to(boxes)])
    sides = torch.zeros(len(regions), len(labelled), dtype=torch.int8, device=boxes.device)
    free = (box_iof(regions, batch.ignored[index]) < 0.5).all(dim=1)
    for k in torch.nonzero(labelled).flatten().tolist():
        far = (box_iou(regions, boxes[labels == k]) < NEGATIVE_IOU).all(dim=1)
        sides[far & free, k] = -1
        sides[: len(boxes), k][labels == k] = 1
    return Examples(regions, sides)


def train_svms(
    config: Config,
    weights: str,
    output: str | Path,
    *,
    cost: float = COST,
    device: str = "auto",
    track: Any = lambda loader: loader,
    trust: bool = False,
) -> dict[str, Any]:
    """Writes the checkpoint with machines in the place of its classifier; returns what they learnt from.

    They stand in the same layer: a class's logit is `SHARPNESS` times its margin, the background's is 0.

    Args:
        config: the data, whose training part is gone through once, without augmentation, and the proposals.
        weights: a checkpoint or a run folder with a ``region_classifier`` of one stage.
        output: the folder for ``best.safetensors``, which must not be there.
        cost: C, the weight of the examples against the regularisation.
        trust: the checkpoint's config may ask for any sizes.

    Raises:
        ValueError: no such head, no object of a class, a cost that is not above 0, or something at
            ``output``.
    """
    if not cost > 0:
        raise ValueError(f"the cost C must be above 0; received {cost}")
    target = free_target(output)
    loaded = load_model(weights, device, trust=trust, proposals=config.proposals)
    head = _head(loaded)
    machines, scale = _mined(loaded, head, config, cost, track)
    lacking = [name for name, machine in zip(loaded.classes.detection, machines) if not all(machine.examples)]
    if lacking:
        raise ValueError(f"the training part has no example of, or none against, {', '.join(lacking)}")
    for machine in machines:
        machine.refit()
    _save(target, weights, machines, scale)
    rows = []
    for name, machine in zip(loaded.classes.detection, machines):
        objects, hard = machine.examples
        rows.append(
            {
                "class": name,
                "objects": objects,
                "right": machine.right,
                "negatives": machine.seen,
                "hard": hard,
            }
        )
    return {"classes": rows, "output": str(target.resolve())}


def _head(loaded: LoadedModel) -> RegionClassifier:
    head = loaded.model.head_of(RegionClassifier)
    if not isinstance(head, RegionClassifier):
        raise ValueError(f"{loaded.path}: no region_classifier to train SVMs for")
    if len(head.stages) > 1:
        raise ValueError(
            f"{loaded.path}: its region_classifier has {len(head.stages)} stages (refine); SVMs need exactly one"
        )
    return head


@torch.no_grad()
def _mined(
    loaded: LoadedModel, head: RegionClassifier, config: Config, cost: float, track: Any
) -> tuple[list[LinearSvm], float]:
    """A machine for each class after all training pictures, and what their features were multiplied by."""
    machines, scale = [LinearSvm(cost) for _ in loaded.classes.detection], 0.0
    for batch, _ in track(labelled_batches(loaded, config, "train")):
        batch = to_device(batch, loaded.device)
        features = loaded.model.features(batch)
        found = [
            examples(batch, index, regions) for index, regions in enumerate(head.proposals(features, batch))
        ]
        vectors = _vectors(loaded, head, features, [one.regions for one in found])
        scale = scale or NORM / max(float(vectors.norm(dim=1).mean()), 1e-6)
        for one, part in zip(found, (vectors * scale).split([len(one.regions) for one in found])):
            for machine, side in zip(
                machines, one.sides.cpu().unbind(dim=1)
            ):  # on the CPU, as the vectors are
                with torch.enable_grad():
                    machine.add(part[side == 1], part[side == -1])
    return machines, scale


def _vectors(
    loaded: LoadedModel, head: RegionClassifier, features: Features, regions: Sequence[Tensor]
) -> Tensor:
    """What the last hidden layer makes of regions: (R, D)."""
    vectors: Tensor = head.stages[0].fc(head.regions(features, regions, loaded.model.encode))  # type: ignore[union-attr,operator]
    return vectors.float().cpu()


def _save(target: Path, weights: str, machines: Sequence[LinearSvm], scale: float) -> None:
    checkpoint = read_checkpoint(weights, trust=True)  # it is copied; nothing is built of it
    values = checkpoint.written.model_dump()
    values["model"]["heads"][RegionClassifier.task].get("decoding", {}).pop(
        "calibration", None
    )  # of other scores
    tensors = checkpoint.part("model")
    prefix = next(
        name.removesuffix("weight")
        for name in tensors
        if name.endswith("classify.weight") and name.startswith(f"heads.{RegionClassifier.task}.")
    )
    learnt = torch.stack([machine.weight for machine in machines if machine.weight is not None])
    bias = torch.tensor([machine.bias for machine in machines])
    tensors[f"{prefix}weight"] = torch.cat([SHARPNESS * scale * learnt, torch.zeros(1, learnt.shape[1])])
    tensors[f"{prefix}bias"] = torch.cat([SHARPNESS * bias, torch.zeros(1)])
    save_made_of(checkpoint, target, tensors, parse_config(values), how="machines")
