"""Random scenes of shapes, still and moving; every draw comes from a seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vistasks.datasets.shapes.drawing import (
    CLASSES,
    Scene,
    Shape,
    draw_scene,
    footprint,
    random_background,
    random_texture,
)

SPLITS = ("train", "val", "test")

EMPTY_SHARE = 0.08  # of the images have no object
MOST_SHAPES = 6
DIFFICULT_BELOW = 0.3  # of its area in sight: an object is marked difficult
LEAST_IN_SIGHT, LEAST_PIXELS = 0.1, 40  # no object is hidden further than this


@dataclass(frozen=True, eq=False)
class SceneObject:
    """What a scene's annotation says of one object: ``mask`` (H, W) bool, the pixels where it is seen."""

    label: int
    mask: np.ndarray
    box: tuple[int, int, int, int]
    difficult: bool
    truncated: bool
    occluded: bool


def still_scene(*, seed: int, split: str, index: int, height: int, width: int) -> Scene:
    """Picture ``index`` of a split: the same for the same arguments, whatever else is generated."""
    generator = np.random.default_rng([seed, SPLITS.index(split), index])
    background = random_background(generator, height, width)
    shapes = _random_shapes(generator, height, width)
    scene = draw_scene(background, shapes)
    noise = np.float32(generator.uniform(0.0, 5.0)) * generator.standard_normal(
        scene.image.shape, dtype=np.float32
    )
    return replace(scene, image=np.clip(scene.image + noise + 0.5, 0, 255).astype(np.uint8))


def _random_shapes(generator: np.random.Generator, height: int, width: int) -> list[Shape]:
    wanted = 0 if generator.random() < EMPTY_SHARE else int(generator.integers(1, MOST_SHAPES + 1))
    crowded = generator.random() < 0.35  # a third of the pictures may hide much of an object behind another
    owners = np.full((height, width), -1, dtype=np.int16)
    shapes: list[Shape] = []
    areas: list[int] = []
    for _ in range(wanted):
        for _ in range(12):
            candidate = _random_shape(generator, height, width, inside=generator.random() < 0.75)
            if crowded and shapes and generator.random() < 0.5:  # in front of one that is there
                behind = shapes[int(generator.integers(len(shapes)))]
                dx, dy = generator.normal(0.0, 0.7 * behind.radius, 2)
                candidate = replace(candidate, x=behind.x + dx, y=behind.y + dy)
            mask, area = footprint(candidate, height, width)
            tried = np.where(mask, np.int16(len(shapes)), owners)
            if _in_sight(tried, [*areas, area], LEAST_IN_SIGHT if crowded else 0.6):
                owners = tried
                shapes.append(candidate)
                areas.append(area)
                break
    return shapes


def _random_shape(generator: np.random.Generator, height: int, width: int, *, inside: bool) -> Shape:
    """``inside``: the whole shape lies in the picture; otherwise only its centre is near enough to be
    seen.
    """
    side = min(height, width)
    radius = side * float(np.exp(generator.uniform(np.log(0.06), np.log(0.26))))
    least = radius if inside else -0.3 * radius
    return Shape(
        kind=int(generator.integers(len(CLASSES))),
        x=generator.uniform(least, width - least),
        y=generator.uniform(least, height - least),
        radius=radius,
        angle=generator.uniform(0.0, 2 * np.pi),
        look=random_texture(generator),
    )


def _in_sight(owners: np.ndarray, areas: Sequence[int], least: float) -> bool:
    seen = np.bincount(owners[owners >= 0], minlength=len(areas))
    return bool((seen >= np.maximum(least * np.array(areas), LEAST_PIXELS)).all())


def scene_objects(scene: Scene) -> list[SceneObject]:
    """The objects that can be seen, back to front. Boxes are (x1, y1, x2, y2) around the pixels in sight."""
    height, width = scene.owners.shape
    objects = []
    for index, shape in enumerate(scene.shapes):
        mask = scene.owners == index
        if not mask.any():
            continue
        columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
        box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
        within = int(footprint(shape, height, width)[0].sum())
        objects.append(
            SceneObject(
                label=shape.kind,
                mask=mask,
                box=box,
                difficult=bool(mask.sum() < DIFFICULT_BELOW * scene.full_areas[index]),
                truncated=bool(within < 0.95 * scene.full_areas[index]),
                occluded=bool(mask.sum() < 0.95 * within),
            )
        )
    return objects


def scene_mask(scene: Scene) -> np.ndarray:
    """(H, W) uint8: 0 is background, i + 1 is class ``CLASSES[i]``."""
    values = np.array([*(shape.kind + 1 for shape in scene.shapes), 0], dtype=np.uint8)
    return values[scene.owners]  # an owner of -1 takes the last value, the background


def clip_scenes(
    *, seed: int, frames: int, height: int = 240, width: int = 320, shapes: int = 5
) -> Iterator[Scene]:
    """A clip, frame by frame: shapes that drift, turn and bounce off the borders over a background that
    stands still.
    """
    generator = np.random.default_rng([seed, len(SPLITS)])
    background = random_background(generator, height, width)
    starts = [_random_shape(generator, height, width, inside=True) for _ in range(shapes)]
    side = min(height, width)
    starts = [
        replace(shape, kind=index % len(CLASSES), radius=max(shape.radius, 0.1 * side))
        for index, shape in enumerate(starts)
    ]
    speeds = generator.uniform(0.004, 0.012, (shapes, 2)) * side * generator.choice([-1, 1], (shapes, 2))
    turns = generator.uniform(-0.06, 0.06, shapes)
    for frame in range(frames):
        moved = [
            replace(
                shape,
                x=_bounced(shape.x + frame * speed[0], width, 0.5 * shape.radius),
                y=_bounced(shape.y + frame * speed[1], height, 0.5 * shape.radius),
                angle=shape.angle + frame * turn,
            )
            for shape, speed, turn in zip(starts, speeds, turns, strict=True)
        ]
        yield draw_scene(background, moved)


def _bounced(place: float, length: float, margin: float) -> float:
    """``place`` reflected at ``margin`` and ``length - margin`` until it lies between."""
    free = length - 2 * margin
    folded = (place - margin) % (2 * free)
    return margin + (folded if folded <= free else 2 * free - folded)


def clip_frames(
    *, seed: int, frames: int, height: int = 240, width: int = 320, shapes: int = 5
) -> Iterator[np.ndarray]:
    """The pictures of `clip_scenes`, (H, W, 3) uint8 RGB each."""
    return (
        scene.image
        for scene in clip_scenes(seed=seed, frames=frames, height=height, width=width, shapes=shapes)
    )
