"""What every backbone and neck must hold; each check fails with a message that names what is wrong."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from vistasks.backbones.backbone import Backbone
from vistasks.types import Features

# close in float32, relative to a map's largest value
TOLERANCE = 1e-4


def check_backbone(backbone: Backbone) -> None:
    """Every promise of `Backbone`, on small random images.

    Raises:
        AssertionError: names the broken promise.
    """
    check_attributes(backbone)
    check_maps(backbone)
    check_sizes(backbone)
    check_batch_equals_single(backbone)
    check_alignment(backbone)
    check_gradients(backbone)
    check_stages_and_freeze(backbone)
    check_train_and_eval(backbone)
    check_pooling(backbone)
    check_state_dict(backbone)


def images_for(backbone: Backbone, rows: int, columns: int, *, count: int = 1) -> Tensor:
    """Random normalised images of ``rows`` x ``columns`` cells of the largest stride."""
    stride = max(backbone.channels)
    generator = torch.Generator().manual_seed(rows * 31 + columns)
    return torch.randn(count, 3, rows * stride, columns * stride, generator=generator)


def close(found: Tensor, expected: Tensor) -> bool:
    """The same shape, and the same values to TOLERANCE of the largest."""
    if found.shape != expected.shape:
        return False
    return bool((found - expected).abs().max() <= TOLERANCE * (expected.abs().max() + 1e-12))


def check_attributes(backbone: Backbone) -> None:
    strides = list(backbone.channels)
    assert strides, "publishes no stride: channels is empty"
    assert strides == sorted(strides), f"channels lists the strides {strides}: expected ascending order"
    assert all(isinstance(key, int) and key & (key - 1) == 0 for key in strides), (
        f"strides {strides} are not powers of two"
    )
    for name in ("mean", "std"):
        values = getattr(backbone, name)
        assert isinstance(values, tuple) and len(values) == 3, f"{name} is {values!r}: expected three numbers"
        assert all(0 < value < 1 for value in values), f"{name} is {values}: expected RGB in 0..1 units"
    assert backbone.min_size >= 1, f"min_size is {backbone.min_size}"
    assert not backbone.publish_pooling, "publish_pooling is on before anyone asked for the indices"


def check_maps(backbone: Backbone) -> None:
    """Published strides, channels and sizes, on square and other shapes, and finite values."""
    backbone.eval()
    cells = max(1, backbone.min_size // max(backbone.channels))
    for rows, columns in ((cells, cells), (cells + 1, cells), (cells, cells + 2)):
        images = images_for(backbone, rows, columns)
        before = images.clone()
        with torch.no_grad():
            features = backbone(images)
        assert isinstance(features, Features), f"forward gives {type(features).__name__}, not Features"
        assert torch.equal(images, before), "forward changes its input images"
        check_published(features, backbone.channels, (images.shape[2], images.shape[3]))


def check_published(features: Features, channels: dict[int, int], size: tuple[int, int]) -> None:
    """The maps against the published ``channels``, for images of ``size`` (height, width)."""
    assert set(features.maps) == set(channels), (
        f"publishes the strides {sorted(channels)}, gives maps at {sorted(features.maps)}"
    )
    for stride, found in features.maps.items():
        given, cells = found.shape[1], tuple(found.shape[2:])
        assert given == channels[stride], (
            f"stride {stride}: publishes {channels[stride]} channels, the map has {given}"
        )
        wanted = (size[0] // stride, size[1] // stride)
        assert cells == wanted, f"stride {stride}: the map of {size} pixels is {cells}, not {wanted}"
        assert torch.isfinite(found).all(), f"stride {stride}: the map has infinite or NaN values"


def check_sizes(backbone: Backbone) -> None:
    """Sizes that do not fit are ValueErrors that name one that does, and that one works."""
    stride = max(backbone.channels)
    wrong = [(backbone.min_size + 1, backbone.min_size)] if stride > 1 else []
    wrong += [(backbone.min_size - stride, backbone.min_size)] if backbone.min_size > stride else []
    for height, width in wrong:
        with pytest.raises(ValueError, match=rf"received {height}x{width} .* pad them to \d+x\d+"):
            backbone(torch.zeros(1, 3, height, width))
    with pytest.raises(ValueError, match=r"\(N, 3, H, W\) float"):
        backbone(torch.zeros(1, 3, backbone.min_size, backbone.min_size, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"received \(1, 1, "):
        backbone(torch.zeros(1, 1, backbone.min_size, backbone.min_size))


def check_alignment(backbone: Backbone) -> None:
    """What a cell sees is centred on the pixels it covers, rows and columns told apart.

    To one and a half strides: symmetric windows on even sizes cost up to half of one (torchvision's weights
    fix them), and wide windows are cut by the border on one side."""
    backbone.eval()
    cells = max(3, 48 // max(backbone.channels))
    images = images_for(backbone, cells, cells + 1).requires_grad_()
    maps = backbone(images).maps
    for stride, found in maps.items():
        row, column = found.shape[2] // 3, found.shape[3] // 4  # off the centre: a mirrored map must show
        (gradient,) = torch.autograd.grad(found[0, :, row, column].square().sum(), images, retain_graph=True)
        weight = gradient[0].double().square().sum(0)
        assert weight.sum() > 0, f"stride {stride}: cell ({row}, {column}) does not depend on the image"
        for side, cell, profile in (("row", row, weight.sum(1)), ("column", column, weight.sum(0))):
            centre = float((profile * (torch.arange(len(profile)) + 0.5)).sum() / profile.sum())
            wanted = (cell + 0.5) * stride
            fault = f"stride {stride}: {side} {cell} looks at pixel {centre:.1f}, but its own centre is {wanted:.1f}"
            assert abs(centre - wanted) <= 1.5 * stride, fault


def check_batch_equals_single(backbone: Backbone) -> None:
    backbone.eval()
    images = images_for(backbone, 2, 1, count=2)
    with torch.no_grad():
        together = backbone(images).maps
        alone = [backbone(images[index : index + 1]).maps for index in range(2)]
    for stride, found in together.items():
        expected = torch.cat([maps[stride] for maps in alone])
        assert close(found, expected), (
            f"stride {stride}: an image's map depends on the batch it is in (evaluation mode)"
        )


def check_gradients(backbone: Backbone) -> None:
    """Every trainable parameter learns from the published maps."""
    backbone = copy.deepcopy(backbone).eval()
    for module in backbone.modules():
        if isinstance(module, _BatchNorm):
            nn.init.ones_(
                module.weight
            )  # residual branches that start at zero may start so, but must learn later
    generator = torch.Generator().manual_seed(1)
    loss = torch.zeros(())
    for found in backbone(images_for(backbone, 2, 2)).maps.values():
        scaled = found / (found.detach().abs().max() + 1e-6)
        loss = loss + (scaled * torch.rand(found.shape, generator=generator)).sum()
    loss.backward()
    unreached = [name for name, p in backbone.named_parameters() if p.grad is None or not p.grad.any()]
    assert not unreached, (
        f"no gradient reaches {unreached[:5]}: every trainable parameter must have a part in a published map"
    )


def check_stages_and_freeze(backbone: Backbone) -> None:
    stages = backbone.stages()
    own = {name: id(p) for name, p in backbone.named_parameters()}
    listed = [id(p) for stage in stages for p in stage.parameters()]
    lost = [name for name, key in own.items() if key not in set(listed)]
    assert not lost, f"stages() leaves out {lost[:5]}"
    assert len(listed) == len(own), "stages() holds a parameter twice, or one that the backbone does not have"
    assert all(any(True for _ in stage.parameters()) for stage in stages), "a stage without parameters"
    for wrong in (-1, len(stages) + 1):
        with pytest.raises(ValueError, match=f"has {len(stages)} stages; cannot freeze {wrong}"):
            backbone.freeze(wrong, False)
    backbone.freeze(1, False)
    first = {id(p) for p in stages[0].parameters()}
    for name, parameter in backbone.named_parameters():
        assert parameter.requires_grad == (id(parameter) not in first), (
            f"freeze(1): requires_grad of {name} is wrong"
        )
    check_frozen_statistics(backbone, list(stages[0].modules()), "freeze(1, False)")
    backbone.freeze(0, True)
    check_frozen_statistics(backbone, list(backbone.modules()), "freeze(0, True)")
    backbone.freeze(0, False)
    assert all(p.requires_grad for p in backbone.parameters()), "freeze(0, False) does not thaw"


def check_frozen_statistics(backbone: Backbone, frozen: list[nn.Module], call: str) -> None:
    """BatchNorms among ``frozen`` stay as they are in training mode; the others learn."""
    norms = [module for module in backbone.modules() if isinstance(module, _BatchNorm)]
    before = [copy.deepcopy(norm.state_dict()) for norm in norms]
    backbone.train()
    with torch.no_grad():
        backbone(images_for(backbone, 2, 2, count=2))
    for norm, old in zip(norms, before, strict=True):
        held = any(norm is module for module in frozen)
        changed = any(not torch.equal(value, old[name]) for name, value in norm.state_dict().items())
        assert changed != held, (
            f"{call}: a BatchNorm of {norm.num_features} channels {'changes' if held else 'stands still'}"
        )
        if held:
            assert not any(p.requires_grad for p in norm.parameters()), (
                f"{call}: a frozen BatchNorm is trainable"
            )
        norm.load_state_dict(old)


def check_train_and_eval(backbone: Backbone) -> None:
    """train() and eval() reach all modules and come back to the same function."""
    images = images_for(backbone, 2, 2)
    with torch.no_grad():
        backbone.eval()
        first = backbone(images).maps
        assert not any(module.training for module in backbone.modules()), (
            "eval() leaves a module in training mode"
        )
        assert backbone.train() is backbone, "train() must return the backbone"
        assert all(module.training for module in backbone.modules()), (
            "train() leaves a module in evaluation mode"
        )
        backbone.eval()
        again = backbone(images).maps
    assert all(torch.equal(first[s], again[s]) for s in first), (
        "the maps in evaluation mode change after train() and eval()"
    )


def check_pooling(backbone: Backbone) -> None:
    """Indices only on request; they unpool back, and the maps stay the same."""
    backbone.eval()
    images = images_for(backbone, 2, 1)
    with torch.no_grad():
        plain = backbone(images)
        assert not plain.pooling, "gives pooling indices that nobody asked for"
        backbone.publish_pooling = True
        features = backbone(images)
    backbone.publish_pooling = False
    listed, given = sorted(backbone.pooling), sorted(features.pooling)
    assert listed == given, f"pooling lists the strides {listed}, forward gives indices for {given}"
    for stride, stage in backbone.pooling.items():
        left = features.pooling[stride]
        source = features.maps[stride // 2]
        shape = (1, stage.channels, images.shape[2] // stride, images.shape[3] // stride)
        assert tuple(left.indices.shape) == shape, (
            f"pooling {stride}: indices {tuple(left.indices.shape)}, expected {shape}"
        )
        assert left.indices.dtype == torch.int64, f"pooling {stride}: indices are {left.indices.dtype}"
        assert left.size == tuple(source.shape[2:]), (
            f"pooling {stride}: size {left.size}, before it {tuple(source.shape[2:])}"
        )
        assert min(stage.convs, stage.kernel) >= 1, f"pooling {stride}: {stage} has no convolution"
        pooled = F.max_pool2d(source, 2, 2)
        unpooled = F.max_unpool2d(pooled, left.indices, 2, 2, output_size=list(left.size))
        kept = unpooled != 0
        assert torch.equal(unpooled[kept], source[kept]), (
            f"pooling {stride}: the indices do not point at the maxima"
        )
        assert torch.equal(F.max_pool2d(unpooled, 2, 2), pooled), (
            f"pooling {stride}: unpooling and pooling again differ"
        )
    if backbone.pooling:
        last = max(backbone.channels)
        assert backbone.channels[last] == backbone.pooling[last].channels, (
            f"stride {last} is not the last pooling's map"
        )
    assert all(torch.equal(plain.maps[s], features.maps[s]) for s in plain.maps), (
        "publish_pooling changes the maps"
    )


def check_state_dict(backbone: Backbone) -> None:
    """Another backbone that takes the state dict gives the same maps."""
    other = copy.deepcopy(backbone).eval()
    images = images_for(backbone, 1, 1)
    state = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    with torch.no_grad():
        expected = backbone.eval()(images).maps
        for tensor in [*other.parameters(), *other.buffers()]:
            tensor.zero_()
        other.load_state_dict(state, strict=True)
        found = other(images).maps
    assert all(torch.equal(found[s], expected[s]) for s in expected), (
        "state_dict does not hold all that the maps depend on"
    )


def check_neck(neck: nn.Module, trunk: dict[int, int]) -> None:
    """A neck over random maps of the trunk's channels: what it publishes is what it gives, and it learns."""
    stride = max(trunk)
    for rows, columns in ((1, 1), (3, 2)):
        size = (rows * stride, columns * stride)
        maps = {s: torch.randn(2, c, size[0] // s, size[1] // s) for s, c in trunk.items()}
        features = neck.eval()(Features(maps=maps))
        check_published(features, neck.channels, size)
        alone = neck(Features(maps={s: found[:1] for s, found in maps.items()}))
        for s, found in features.maps.items():
            assert close(alone.maps[s], found[:1]), (
                f"stride {s}: an image's map depends on the batch it is in"
            )
    neck.zero_grad()
    sum((found * torch.rand_like(found)).sum() for found in features.maps.values()).backward()
    unreached = [name for name, p in neck.named_parameters() if p.grad is None or not p.grad.any()]
    assert not unreached, f"no gradient reaches {unreached[:5]}"
