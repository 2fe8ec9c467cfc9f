"""BatchNorm folded into the convolutions before it, for models that only predict."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from vistasks.loading.batching import collate, to_device
from vistasks.models.multitask import MultiTaskModel
from vistasks.types import Batch, ClassNames, Sample


def fold_batchnorm(model: MultiTaskModel) -> int:
    """Multiplies every BatchNorm that directly follows a convolution into it, in place; returns how many.

    A BatchNorm in evaluation mode is a scale and a shift per channel, so the answers stay the same up to
    float32 rounding, and a pass over every map is saved. Which convolution feeds which BatchNorm is seen in a
    pass over a small grey picture, not guessed from names. The model can only predict afterwards: there are
    no statistics left to train.

    Raises:
        ValueError: the model is in training mode.
    """
    if model.training:
        raise ValueError("fold_batchnorm: the model is in training mode; call eval() first")
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # the tensor is held, so that no other one can get its id
    pairs: dict[nn.BatchNorm2d, nn.Conv2d] = {}
    uses: dict[nn.Module, int] = {}

    def after_conv(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        made[id(output)] = (module, output)
        uses[module] = uses.get(module, 0) + 1

    def before_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        uses[module] = uses.get(module, 0) + 1
        if id(inputs[0]) in made and module.running_var is not None:
            pairs[module] = made[id(inputs[0])][0]

    handles = []
    for module in model.modules():
        if type(module) is nn.Conv2d:
            handles.append(module.register_forward_hook(after_conv))
        elif type(module) is nn.BatchNorm2d:
            handles.append(module.register_forward_pre_hook(before_norm))
    model.predict(_grey_picture(model))
    for handle in handles:
        handle.remove()
    # a convolution that feeds two BatchNorms, or is used more often than its BatchNorm, stays as it is
    folded = [
        (norm, conv)
        for norm, conv in pairs.items()
        if uses[norm] == uses[conv] and [*pairs.values()].count(conv) == 1
    ]
    owners = {child: (parent, name) for parent in model.modules() for name, child in parent.named_children()}
    for norm, conv in folded:
        _fold(conv, norm)
        parent, name = owners[norm]
        setattr(parent, name, nn.Identity())
    return len(folded)


@torch.no_grad()
def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    bias = (conv.bias.double() if conv.bias is not None else 0.0) - norm.running_mean.double()
    bias = bias * scale + (norm.bias.double() if norm.bias is not None else 0.0)
    conv.weight.copy_((conv.weight.double() * scale[:, None, None, None]).to(conv.weight.dtype))
    conv.bias = nn.Parameter(bias.to(conv.weight.dtype), requires_grad=False)


def _grey_picture(model: MultiTaskModel) -> Batch:
    side = math.ceil(max(model.backbone.min_size, 2 * model.divisor) / model.divisor) * model.divisor
    proposals = np.array([[0, 0, side, side]], dtype=np.float32)
    sample = Sample(
        image_id="grey", path="grey", image=np.full((side, side, 3), 127, dtype=np.uint8), proposals=proposals
    )
    batch = collate([sample], [sample.size], classes=ClassNames(), divisor=model.divisor)
    return to_device(batch, model.mean.device)
