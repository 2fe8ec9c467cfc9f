from __future__ import annotations

import pytest
import torch

from tests.heads.contract import CLASSES, model_with, scene, small_trunk
from vistasks.heads.test_time import TestTime, View, parse_views
from vistasks.models import MultiTaskModel
from vistasks.registry import HEADS


def segmenter() -> MultiTaskModel:
    backbone, trunk = small_trunk()
    head = HEADS.build({"name": "skip_decoder"}, where="head", given={"trunk": trunk, "classes": CLASSES})
    return model_with(head, backbone).eval()


def colours(images: torch.Tensor) -> torch.Tensor:
    """A stand-in for a network: each pixel's logits are its colour."""
    assert images.shape[2] % 32 == 0 and images.shape[3] % 32 == 0
    return images * 5


def picture(height: int, width: int) -> torch.Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_views_are_every_scale_plain_and_mirrored() -> None:
    assert parse_views("flip, 0.5,1").views == [View(1.0), View(1.0, True), View(0.5), View(0.5, True)]
    assert parse_views("1.25").views == [View(1.0), View(1.25)]
    assert parse_views("").views == [View()]


@pytest.mark.parametrize("view", [View(flip=True), View(2.0), View(0.5, True), View(1.3, True)])
def test_undo_puts_every_pixel_back(view: View) -> None:
    rows, columns = torch.meshgrid(torch.arange(48), torch.arange(72), indexing="ij")
    smooth = (torch.sin(rows / 9) + torch.cos(columns / 7)).view(1, 1, 48, 72)
    back = view.undo(view.apply(smooth), (48, 72))
    inner = (..., slice(4, -4), slice(4, -4))
    torch.testing.assert_close(back[inner], smooth[inner], atol=0.05, rtol=0)


def test_a_pixelwise_network_gives_the_same_map_in_windows() -> None:
    images = picture(70, 150)
    plain = (images * 5).softmax(1)
    for window in (None, 64, 40):
        found = TestTime(window=window).window_probabilities(images, colours, 32)
        torch.testing.assert_close(found, plain)


@pytest.mark.parametrize(
    ("size", "overlap"), [((64, 64), 0.25), ((65, 200), 0.0), ((300, 64), 0.5), ((64, 129), 0.9)]
)
def test_windows_cover_every_pixel_and_are_never_larger_than_asked(
    size: tuple[int, int], overlap: float
) -> None:
    seen = []

    def scores(images: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(images.shape[2:]))
        return images

    found = TestTime(window=64, overlap=overlap).window_probabilities(picture(*size), scores, 32)
    assert torch.isfinite(found).all()  # a pixel that no window covers would be 0 / 0
    assert set(seen) == {(64, 64)}


def test_averaging_is_the_mean_of_the_views() -> None:
    model, batch = segmenter(), scene(1)
    head = model.heads["segmentation"]
    features = model.features(batch)
    with torch.no_grad():
        plain = head(features, (64, 96)).softmax(1)
        mirrored = head(model.encode(features.images.flip(-1)), (64, 96)).softmax(1).flip(-1)
    model.look(parse_views("flip"))
    found = model.predict(batch)[0].segmentation.labels
    assert (torch.from_numpy(found) == ((plain + mirrored) / 2).argmax(1)[0]).all()


def test_a_batch_gives_what_its_pictures_give_alone() -> None:
    model = segmenter()
    model.look(parse_views("0.75", window=48))
    both, first = model.predict(scene()), model.predict(scene(1))
    assert (both[0].segmentation.labels == first[0].segmentation.labels).mean() > 0.999
    assert both[1].segmentation.labels.shape == (100, 140)


def test_windows_leave_the_large_picture_out_of_the_trunk() -> None:
    model = segmenter()
    sizes = []
    model.backbone.register_forward_hook(lambda module, args, out: sizes.append(tuple(args[0].shape[2:])))
    model.look(TestTime(window=64))
    model.predict(scene(1))
    assert set(sizes) == {(64, 64)}
    sizes.clear()
    model.look(None)
    model.predict(scene(1))
    assert sizes == [(64, 96)]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("flop", {}, "takes 'flip' and scales, such as flip,0.75,1.25; received 'flop'"),
        ("0", {}, "from 0.1 to 10; received 0.0"),
        ("nan", {}, "from 0.1 to 10; received nan"),
        ("", {"window": 16}, "at least 32 pixels; received 16"),
        ("", {"window": 64, "overlap": 1.0}, "from 0 to 0.9 of their side; received 1.0"),
    ],
)
def test_what_makes_no_sense_is_an_error(text: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_views(text, **options)
