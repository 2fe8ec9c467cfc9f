"""Augmentation: everything of a sample moves together, the same for the same seed, and bad configs say
where.
"""

from __future__ import annotations

import inspect
import pickle
import random
import warnings
from dataclasses import replace

import albumentations as A
import numpy as np
import pytest
from albumentations.core.composition import BaseCompose
from hypothesis import given, settings
from hypothesis import strategies as st

from vistasks.loading.augment import Augment, _known
from vistasks.types import Labelled, Sample

WIDTH, HEIGHT = 64, 48


def sample_of(
    boxes: list[list[float]],
    *,
    proposals: list[list[float]] | None = None,
    size: tuple[int, int] = (HEIGHT, WIDTH),
) -> Sample:
    """Object i has label i, is painted with 40 + 10 i in the image and with i + 1 in the mask."""
    height, width = size
    image, mask = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)
    array = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    for index, (x1, y1, x2, y2) in enumerate(array.astype(int)):
        image[y1:y2, x1:x2], mask[y1:y2, x1:x2] = 40 + 10 * index, index + 1
    count = len(array)
    return Sample(
        image_id="one",
        path="photos/one.jpg",
        image=image,
        boxes=array,
        labels=np.arange(count),
        difficult=np.arange(count) % 2 == 0,
        crowd=np.arange(count) % 3 == 0,
        segmentation=mask,
        proposals=None if proposals is None else np.array(proposals, dtype=np.float32).reshape(-1, 4),
        labelled=Labelled(frozenset({0, 1}), frozenset({0})),
    )


def noisy(seed: int = 0) -> Sample:
    rng = np.random.default_rng(seed)
    sample = sample_of([[4, 6, 30, 40], [20, 10, 60, 44], [40, 2, 50, 12]], proposals=random_boxes(rng, 20))
    image = np.maximum(sample.image, rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    return replace(sample, image=image)


def random_boxes(rng: np.random.Generator, count: int) -> list[list[float]]:
    low = rng.uniform(0, 0.8, (count, 2))
    high = low + rng.uniform(0.1, 0.2, (count, 2))
    return (np.concatenate([low, high], axis=1) * [WIDTH, HEIGHT, WIDTH, HEIGHT]).tolist()


def bounds(mask: np.ndarray, value: int) -> list[int]:
    rows, columns = np.nonzero(mask == value)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


boxes_inside = st.lists(
    st.tuples(
        st.floats(0, WIDTH - 2, width=32),
        st.floats(0, HEIGHT - 2, width=32),
        st.floats(0.1, 1),
        st.floats(0.1, 1),
    ).map(
        lambda b: [
            b[0],
            b[1],
            b[0] + 1.5 + b[2] * (WIDTH - b[0] - 1.5),
            b[1] + 1.5 + b[3] * (HEIGHT - b[1] - 1.5),
        ]
    ),
    max_size=6,
)


@settings(deadline=None, max_examples=50)
@given(boxes_inside, boxes_inside, st.sampled_from(["HorizontalFlip", "VerticalFlip", "Transpose"]))
def test_a_flip_done_twice_changes_nothing(
    boxes: list[list[float]], proposals: list[list[float]], name: str
) -> None:
    sample = sample_of(boxes, proposals=proposals)
    back = Augment([{name: {"p": 1}}, {name: {"p": 1}}])(sample, seed=0)
    for field in ("image", "labels", "difficult", "crowd", "segmentation"):
        np.testing.assert_array_equal(getattr(back, field), getattr(sample, field))
    np.testing.assert_allclose(back.boxes, sample.boxes, atol=1e-4)
    np.testing.assert_allclose(back.proposals, sample.proposals, atol=1e-4)
    np.testing.assert_allclose(back.areas, sample.areas, rtol=1e-4)


@settings(deadline=None, max_examples=50)
@given(boxes_inside, boxes_inside, st.integers(WIDTH, 3 * WIDTH), st.integers(HEIGHT, 3 * HEIGHT))
def test_scaling_scales_boxes_and_areas(
    boxes: list[list[float]], proposals: list[list[float]], width: int, height: int
) -> None:
    sample = sample_of(boxes, proposals=proposals)
    scaled = Augment([{"Resize": {"width": width, "height": height, "p": 1}}])(sample, seed=0)
    factor = np.array([width / WIDTH, height / HEIGHT] * 2)
    assert scaled.size == (height, width)
    np.testing.assert_allclose(scaled.boxes, sample.boxes * factor, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(scaled.proposals, sample.proposals * factor, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(scaled.areas, sample.areas * factor[0] * factor[1], rtol=1e-3)


@pytest.mark.parametrize(
    "transform",
    [
        "HorizontalFlip",
        "VerticalFlip",
        "Transpose",
        "RandomRotate90",
        {"Affine": {"translate_px": {"x": 7, "y": -5}}},
        {"Affine": {"scale": 1.4}},
        {"Resize": {"height": 90, "width": 100}},
        {"RandomCrop": {"height": 40, "width": 50}},
        {"PadIfNeeded": {"min_height": 100, "min_width": 120}},
    ],
)
def test_image_mask_and_boxes_move_together(transform: str | dict[str, dict[str, object]]) -> None:
    sample = sample_of([[10, 8, 24, 20], [30, 22, 52, 40]], proposals=[[30, 22, 52, 40], [10, 8, 24, 20]])
    name, arguments = (transform, {}) if isinstance(transform, str) else next(iter(transform.items()))
    moved = Augment([{name: {**arguments, "p": 1}}])(sample, seed=3)
    assert not np.array_equal(moved.image, sample.image)
    assert len(moved.boxes) == 2
    for box, label in zip(moved.boxes, moved.labels):
        np.testing.assert_allclose(box, bounds(moved.segmentation, label + 1), atol=1.01)
        # interpolation blurs the image's edges
        np.testing.assert_allclose(box, bounds(moved.image[..., 0], 40 + 10 * label), atol=1.5)
    np.testing.assert_allclose(moved.proposals, moved.boxes[::-1], atol=1e-4)
    np.testing.assert_array_equal(moved.difficult, sample.difficult[moved.labels])
    np.testing.assert_array_equal(moved.crowd, sample.crowd[moved.labels])
    assert (moved.image_id, moved.path, moved.labelled) == (sample.image_id, sample.path, sample.labelled)


def test_the_box_of_a_rotated_box_is_upright_and_encloses_it() -> None:
    sample = sample_of([[24, 20, 40, 28]])
    turned = Augment([{"Affine": {"rotate": [30, 30], "p": 1}}])(sample, seed=0)
    angle = np.radians(30)
    sides = np.abs([[np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ [16, 8]
    centre = np.array([32, 24])
    np.testing.assert_allclose(turned.boxes[0], [*(centre - sides / 2), *(centre + sides / 2)], atol=0.01)
    np.testing.assert_allclose(turned.boxes[0], bounds(turned.segmentation, 1), atol=1.5)


def crop(x1: int, y1: int, x2: int, y2: int) -> dict[str, dict[str, object]]:
    return {"Crop": {"x_min": x1, "y_min": y1, "x_max": x2, "y_max": y2, "p": 1}}


def test_objects_that_leave_the_picture() -> None:
    boxes = [[0, 0, 20, 20], [12, 0, 32, 20], [21, 0, 41, 20], [40, 0, 60, 20], [21.5, 0, 22.5, 20]]
    sample = sample_of(boxes, proposals=boxes)
    cropped = Augment([crop(0, 0, 22, 48)])(sample, seed=0)
    # box 2 has 5 % left: below min_visibility; 3 is gone; 4 has half a pixel left
    assert cropped.labels.tolist() == [0, 1]
    np.testing.assert_allclose(cropped.boxes, [[0, 0, 20, 20], [12, 0, 22, 20]], atol=1e-4)
    np.testing.assert_allclose(cropped.areas, [400, 200], atol=0.1)
    np.testing.assert_allclose(
        cropped.proposals, [[0, 0, 20, 20], [12, 0, 22, 20], [21, 0, 22, 20]], atol=1e-4
    )
    assert Augment([crop(0, 0, 22, 48)], min_visibility=0.04)(sample, seed=0).labels.tolist() == [0, 1, 2]
    assert Augment([crop(0, 0, 22, 48)], min_visibility=1)(sample, seed=0).labels.tolist() == [0]


def test_visibility_is_counted_over_the_whole_pipeline() -> None:
    sample = sample_of([[0, 0, 40, 40]])
    halves = [crop(0, 0, 20, 48), crop(0, 0, 10, 48), crop(0, 0, 5, 48), crop(0, 0, 2, 48)]
    assert len(Augment(halves[:3])(sample, seed=0).boxes) == 1
    assert len(Augment(halves)(sample, seed=0).boxes) == 0
    assert len(Augment([{"Sequential": {"transforms": halves, "p": 1}}])(sample, seed=0).boxes) == 0


def test_a_cropped_part_does_not_come_back_in_a_padding() -> None:
    pad = {"Pad": {"padding": 10, "p": 1}}
    sample = sample_of([[10, 10, 30, 30]])
    for pipeline in (
        [crop(0, 0, 20, 48), pad],
        [{"Sequential": {"transforms": [crop(0, 0, 20, 48), pad], "p": 1}}],
    ):
        np.testing.assert_allclose(Augment(pipeline)(sample, seed=0).boxes, [[20, 20, 30, 40]], atol=1e-4)


def test_outside_is_black_and_ignored() -> None:
    sample = replace(sample_of([]), image=np.full((HEIGHT, WIDTH, 3), 200, np.uint8))
    move = {"translate_px": {"x": 10, "y": 0}, "p": 1}
    moved = Augment([{"Affine": move}])(sample, seed=0)
    assert (moved.image[:, :10] == 0).all() and (moved.segmentation[:, :10] == 255).all()
    assert (moved.image[:, 10:] == 200).all() and (moved.segmentation[:, 10:] == 0).all()
    filled = Augment([{"Affine": {**move, "fill": 9, "fill_mask": 7}}])(sample, seed=0)
    assert (filled.image[:, :10] == 9).all() and (filled.segmentation[:, :10] == 7).all()


def test_erasing_leaves_mask_and_proposals() -> None:
    sample = noisy()
    holes = {"num_holes_range": [4, 4], "hole_height_range": [10, 10], "hole_width_range": [10, 10], "p": 1}
    erased = Augment([{"CoarseDropout": holes}])(sample, seed=0)
    assert (erased.image != sample.image).any()
    np.testing.assert_array_equal(erased.segmentation, sample.segmentation)
    np.testing.assert_allclose(erased.proposals, sample.proposals, atol=1e-4)


@pytest.mark.parametrize(
    "entry",
    [
        {"ElasticTransform": {"alpha": 300, "sigma": 12, "p": 1}},
        {"GridDistortion": {"distort_limit": [0.2, 0.3], "p": 1}},
        {"OpticalDistortion": {"distort_limit": [0.3, 0.3], "p": 1}},
        {"ThinPlateSpline": {"scale_range": [0.1, 0.1], "p": 1}},
    ],
)
def test_boxes_under_distortions_agree_with_the_mask(entry: dict[str, object]) -> None:
    sample = sample_of([[40, 40, 90, 80], [100, 90, 180, 130]], size=(180, 240), proposals=[[40, 40, 90, 80]])
    bent = Augment([entry])(sample, seed=1)
    assert (bent.segmentation != sample.segmentation).sum() > 100
    for box, label in zip(bent.boxes, bent.labels):
        np.testing.assert_allclose(box, bounds(bent.segmentation, label + 1), atol=2.5)
    np.testing.assert_allclose(bent.proposals[0], bent.boxes[0], atol=1e-4)


def test_proposals_do_not_steer_crops_that_look_at_the_boxes() -> None:
    sample = noisy()
    augment = Augment([{"RandomSizedBBoxSafeCrop": {"height": 40, "width": 40, "p": 1}}])
    for seed in range(5):
        alone = augment(replace(sample, proposals=None), seed=seed)
        np.testing.assert_array_equal(augment(sample, seed=seed).boxes, alone.boxes)


PIPELINE = [
    {"HorizontalFlip": {"p": 0.5}},
    {"OneOf": [{"GaussNoise": {"p": 1}}, {"Blur": {"p": 1}}]},
    {
        "SomeOf": {
            "transforms": ["CLAHE", {"Sequential": {"transforms": ["RandomGamma", "VerticalFlip"]}}],
            "n": 1,
        }
    },
    {"Affine": {"scale": [0.8, 1.2], "rotate": [-20, 20], "p": 0.9}},
    {"RandomBrightnessContrast": {"p": 0.5}},
]


def assert_same(one: Sample, other: Sample) -> None:
    for field in ("image", "boxes", "labels", "areas", "segmentation", "proposals"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))


def test_the_seed_decides_and_nothing_else() -> None:
    sample, augment = noisy(), Augment(PIPELINE)
    first = [augment(sample, seed=seed) for seed in range(8)]
    np.random.seed(99)
    random.seed(99)
    other = pickle.loads(pickle.dumps(augment))  # as a data worker gets it
    for seed in reversed(range(8)):
        assert_same(other(sample, seed=seed), first[seed])
        assert_same(Augment(PIPELINE)(sample, seed=seed), first[seed])
    assert len({picture.image.tobytes() for picture in first}) == 8


def test_transforms_draw_independently() -> None:
    sample = noisy()
    augment = Augment([{"HorizontalFlip": {"p": 0.5}}, {"VerticalFlip": {"p": 0.5}}])
    results = [augment(sample, seed=seed).image for seed in range(60)]
    for expected in (sample.image, sample.image[:, ::-1], sample.image[::-1], sample.image[::-1, ::-1]):
        assert sum(np.array_equal(result, expected) for result in results) >= 5


def test_an_empty_pipeline_is_the_identity() -> None:
    sample = noisy()
    assert Augment([])(sample, seed=0) is sample
    assert len(Augment([])) == 0 and len(Augment(PIPELINE)) == 5


SMALL = {"height": 30, "width": 40}
ARGUMENTS: dict[str, dict[str, object]] = {
    **dict.fromkeys(
        ("AtLeastOneBBoxRandomCrop", "CenterCrop", "CropNonEmptyMaskIfExists", "RandomCrop"), SMALL
    ),
    "RandomSizedBBoxSafeCrop": SMALL,
    "Resize": SMALL,
    "Crop": {"x_max": 40, "y_max": 30},
    "CropAndPad": {"px": 5},
    "GridElasticDeform": {"num_grid_xy": [3, 3], "magnitude": 4},
    "LongestMaxSize": {"max_size": 50},
    "RandomResizedCrop": {"size": [30, 40]},
    "RandomSizedCrop": {"size": [30, 40], "min_max_height": [20, 40]},
    "SmallestMaxSize": {"max_size": 50},
    "PiecewiseAffine": {"nb_rows": 2, "nb_cols": 2},
    "Superpixels": {"n_segments": 20},
}
NEED_MORE = {
    "FDA",
    "HistogramMatching",
    "Mosaic",
    "OverlayElements",
    "PixelDistributionAdaptation",
    "TextImage",
}
NEED_MORE |= {"RandomCropNearBBox"}
NEED_MASK = {"MaskDropout", "CropNonEmptyMaskIfExists"}
LEAVES = {name for name, kind in _known().items() if not issubclass(kind, BaseCompose)} - {"CubicSymmetry"}
LEAVES = {name for name in LEAVES if "3D" not in name}  # volumes


@pytest.mark.parametrize("name", sorted(LEAVES - NEED_MORE))
def test_every_transform(name: str) -> None:
    """Gives a valid sample with and without boxes, twice the same, and leaves its input alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some name a newer transform, or say that they are slow
        augment = Augment([{name: {**ARGUMENTS.get(name, {}), "p": 1}}])
        samples = [noisy(), sample_of([])]
        if name not in NEED_MASK:
            samples.append(replace(noisy(), segmentation=None))
        for sample in samples:
            before = pickle.dumps(sample)
            first = augment(sample, seed=5)
            np.random.seed(1)
            random.seed(1)
            second = augment(sample, seed=5)
            np.testing.assert_array_equal(first.image, second.image)
            np.testing.assert_array_equal(first.boxes, second.boxes)
            assert pickle.dumps(sample) == before
            assert (first.proposals is None) == (sample.proposals is None)
            assert (first.segmentation is None) == (sample.segmentation is None)


def test_most_of_albumentations_is_there() -> None:
    public = {
        name for name, kind in vars(A).items() if inspect.isclass(kind) and issubclass(kind, A.BasicTransform)
    }
    assert len(LEAVES - NEED_MORE) > 0.75 * len(public)


BAD = [
    ([{"HorizontalFlp": {}}], "augment[0].HorizontalFlp: unknown transform. Did you mean 'HorizontalFlip'?"),
    (
        ["HorizontalFlip", {"VerticalFlip": {"pp": 1}}],
        "augment[1].VerticalFlip.pp: unknown argument. Did you mean 'p'?",
    ),
    (
        [{"OneOf": ["Blur", {"GaussNoise": {"std_rnge": 1}}]}],
        "augment[0].OneOf[1].GaussNoise.std_rnge: unknown argument. Did you mean 'std_range'?",
    ),
    ([{"OneOf": {"transforms": ["Blurr"], "p": 1}}], "augment[0].OneOf[0].Blurr: unknown transform"),
    ([{"OneOf": {"transforms": ["Blur"], "q": 1}}], "augment[0].OneOf.q: unknown argument"),
    ([{"OneOf": {"transforms": ["Blur"], "p": 2}}], "augment[0].OneOf.p must be 0 to 1; received 2"),
    ([{"OneOf": []}], "augment[0].OneOf: a list of transforms is expected; received []"),
    (
        [{"HorizontalFlip": {"p": 1.5}}],
        "augment[0].HorizontalFlip.p: Input should be less than or equal to 1; received 1.5",
    ),
    ([{"Affine": {"scale": "big"}}], "augment[0].Affine.scale"),
    ([{"RandomCrop": {"height": 3}}], "augment[0].RandomCrop.width: Field required"),
    (
        [{"LongestMaxSize": {}}],
        "augment[0].LongestMaxSize: Value error, Either max_size or max_size_hw must be",
    ),
    (
        [{"Resize": {"height": 3, "width": 3, "mask_interpolation": 1}}],
        "Resize.mask_interpolation: 1 would mix class ids",
    ),
    ([{"Normalize": {}}], "augment[0].Normalize: images stay uint8 RGB here"),
    (
        ["Blur", {"Mosaic": {}}],
        "augment[1].Mosaic: combines several images",
    ),
    ([{"OneOf": ["MixUp"]}], "augment[0].OneOf[0].MixUp: combines several images"),
    ([{"CopyPaste": {"obects": 2}}], "augment[0].CopyPaste.obects: unknown option. Did you mean 'objects'?"),
    (
        [{"MixUp": {}}, {"Mosaic": {"p": 2}}],
        "augment[1].Mosaic.p: Input should be less than or equal to 1; received 2",
    ),
    ([{"MixUp": 0.5}], "augment[0].MixUp: arguments are expected as {argument: value}; received 0.5"),
    (["MixUp", {"HorizontalFlp": {}}], "augment[1].HorizontalFlp: unknown transform"),
    ([{"OverlayElements": {}}], "augment[0].OverlayElements: "),
    ([{"CenterCrop3D": {"size": [1, 1, 1]}}], "augment[0].CenterCrop3D: "),
    (
        [{"HorizontalFlip": {}, "VerticalFlip": {}}],
        "augment[0]: one transform as {Name: {argument: value}} is expected",
    ),
    ([3], "augment[0]: one transform as"),
    (
        [{"HorizontalFlip": 0.5}],
        "augment[0].HorizontalFlip: arguments are expected as {argument: value}; received 0.5",
    ),
    ({"HorizontalFlip": {}}, "augment must be a list of transforms"),
    ("HorizontalFlip", "augment must be a list of transforms"),
]


@pytest.mark.parametrize(("transforms", "message"), BAD)
def test_bad_configs(transforms: list[object], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        Augment(transforms, where="augment")  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_strict_is_ours() -> None:
    with pytest.raises(ValueError, match=r"Blur.strict: unknown argument"):
        Augment([{"Blur": {"strict": False}}])


def test_min_visibility_range() -> None:
    with pytest.raises(ValueError, match="min_visibility must be 0 to 1, not 2"):
        Augment([], min_visibility=2)


def test_no_arguments_may_be_written_as_nothing() -> None:
    assert len(Augment([{"HorizontalFlip": None}, "VerticalFlip"])) == 2


def test_a_failing_transform_names_file_and_transform() -> None:
    augment = Augment(["HorizontalFlip", crop(0, 0, 1000, 1000)], where="augment.train")
    with pytest.raises(ValueError, match=r"^photos/one.jpg: augment.train\[1\] \(Crop\) failed: "):
        augment(noisy(), seed=0)


def test_a_result_that_is_no_rgb_image_names_the_transform() -> None:
    augment = Augment([{"ToGray": {"num_output_channels": 1, "p": 1}}])
    with pytest.raises(
        ValueError,
        match=r"photos/one.jpg: augment.train\[0\] \(ToGray\) failed: it gave \(48, 64\) uint8 where",
    ):
        augment(noisy(), seed=0)


def test_a_result_that_is_no_sample_names_the_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    augment = Augment([{"HorizontalFlip": {"p": 1}}])
    monkeypatch.setattr(A.HorizontalFlip, "apply_to_mask", lambda self, mask, **_: mask[:5])
    augment._steps[0]._set_keys()
    with pytest.raises(
        ValueError, match=r"photos/one.jpg: segmentation must be .*\(after the transforms of augment.train\)"
    ):
        augment(noisy(), seed=0)
