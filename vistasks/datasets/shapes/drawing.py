"""Pictures of textured shapes over textured backgrounds, drawn from numbers alone, with the owner of every
pixel known.

Each shape is a signed distance field: negative inside, 0 on the outline, in pixels. That gives smooth edges,
shadows and exact masks with NumPy only, so a seed gives the same scene everywhere."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CLASSES = ("circle", "square", "triangle", "star", "ring", "cross")
TEXTURES = ("plain", "stripes", "checks", "dots", "waves", "mottled")
BACKGROUNDS = ("clouds", "wood", "tiles", "grain", "slope")

_SHADOW = (3.0, 4.0)  # pixels right and down: the light comes from the upper left
_MARGIN = 12  # pixels around a shape that its shadow may reach


@dataclass(frozen=True, eq=False)
class Texture:
    """How a shape's face is painted: two RGB colours in [0, 1] mixed by a texture with ``waves`` periods."""

    texture: str
    colours: tuple[np.ndarray, np.ndarray]
    waves: float
    phase: float
    noise_seed: int


@dataclass(frozen=True)
class Shape:
    """One object: class id, centre and radius (of the outer circle) in pixels, angle in radians."""

    kind: int
    x: float
    y: float
    radius: float
    angle: float
    look: Texture


@dataclass(frozen=True, eq=False)
class Scene:
    """A drawn picture.

    ``image`` (H, W, 3) uint8 RGB; ``owners`` (H, W) int16, the index of the shape seen at each pixel or -1;
    ``full_areas`` (N,) the pixels that each shape would have if nothing hid it and the picture went on.
    """

    image: np.ndarray
    owners: np.ndarray
    shapes: tuple[Shape, ...]
    full_areas: np.ndarray


def signed_distance(kind: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Distance to the outline of the unit shape ``CLASSES[kind]`` at (u, v): negative inside, about exact
    near the outline.
    """
    name = CLASSES[kind]
    if name == "circle":
        return np.hypot(u, v) - 1.0
    if name == "square":
        return np.maximum(np.abs(u), np.abs(v)) - 0.82
    if name == "triangle":
        half, root = 0.5, np.sqrt(3.0) / 2.0
        return np.maximum(v, np.maximum(root * u - half * v, -root * u - half * v)) - 0.5
    if name == "star":
        # five equal sectors, each mirrored: one straight edge from the tip (1, 0) to the notch between two
        # tips
        sector = np.pi / 5.0
        around = np.abs((np.arctan2(v, u) + sector) % (2 * sector) - sector)
        along, across = np.hypot(u, v) * np.cos(around), np.hypot(u, v) * np.sin(around)
        notch = 0.45 * np.array([np.cos(sector), np.sin(sector)])
        normal = np.array([notch[1], 1.0 - notch[0]]) / np.hypot(notch[1], 1.0 - notch[0])
        return (along - 1.0) * normal[0] + across * normal[1]
    if name == "ring":
        return np.abs(np.hypot(u, v) - 0.76) - 0.24
    wide, narrow = 1.0, 0.36  # cross: two bars
    across_bar = np.maximum(np.abs(u) - wide, np.abs(v) - narrow)
    return np.minimum(across_bar, np.maximum(np.abs(u) - narrow, np.abs(v) - wide))


def smooth_noise(generator: np.random.Generator, height: int, width: int, cell: float) -> np.ndarray:
    """(H, W) float in [0, 1]: random values on a grid of ``cell`` pixels, joined smoothly."""
    grid = generator.random((int(height / cell) + 2, int(width / cell) + 2), dtype=np.float32)
    row, row_part = _places(height, cell)
    column, column_part = _places(width, cell)
    lines = grid[row] + (grid[row + 1] - grid[row]) * row_part[:, None]  # (H, knots)
    return lines[:, column] + (lines[:, column + 1] - lines[:, column]) * column_part


def _places(length: int, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel the knot before it and how far it is on the way to the next, eased in and out."""
    place = (np.arange(length) / cell).astype(np.float32)
    low = place.astype(np.int64)
    part = place - low.astype(np.float32)
    return low, part * part * (3 - 2 * part)


def layered_noise(generator: np.random.Generator, height: int, width: int, cell: float) -> np.ndarray:
    """(H, W) float in [0, 1]: four octaves of `smooth_noise`."""
    total = sum(
        smooth_noise(generator, height, width, max(cell / 2**octave, 1.5)) * 0.5**octave
        for octave in range(4)
    )
    return np.asarray(total) / 1.875


def random_texture(generator: np.random.Generator) -> Texture:
    """Vivid colours, any hue: colour says nothing about the class."""
    hue = generator.random()
    first = colorsys.hsv_to_rgb(hue, generator.uniform(0.6, 0.95), generator.uniform(0.7, 1.0))
    other_hue = (hue + generator.choice([0.0, 0.08, 0.5, 0.62])) % 1.0
    second = colorsys.hsv_to_rgb(other_hue, generator.uniform(0.25, 0.8), generator.uniform(0.35, 1.0))
    return Texture(
        texture=str(generator.choice(TEXTURES)),
        colours=(np.array(first), np.array(second)),
        waves=generator.uniform(1.5, 3.5),
        phase=generator.uniform(0, 2 * np.pi),
        noise_seed=int(generator.integers(2**31)),
    )


def random_background(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) float32 in [0, 1]: a muted texture."""
    hue = generator.random()
    dark = np.array(colorsys.hsv_to_rgb(hue, generator.uniform(0.08, 0.4), generator.uniform(0.2, 0.55)))
    light = np.array(
        colorsys.hsv_to_rgb(
            (hue + generator.normal(0, 0.06)) % 1.0,
            generator.uniform(0.05, 0.35),
            generator.uniform(0.6, 0.92),
        )
    )
    mix = _background_mix(str(generator.choice(BACKGROUNDS)), generator, height, width)
    mix = np.clip(mix + 0.1 * (smooth_noise(generator, height, width, 2.0) - 0.5), 0.0, 1.0)[..., None]
    return (dark + (light - dark) * mix).astype(np.float32)


def _background_mix(kind: str, generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    rows, columns = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)
    angle = generator.uniform(0, np.pi)
    along = columns * np.cos(angle) + rows * np.sin(angle)
    across = rows * np.cos(angle) - columns * np.sin(angle)
    if kind == "clouds":
        return layered_noise(generator, height, width, generator.uniform(40, 110))
    if kind == "wood":
        bend = layered_noise(generator, height, width, 70.0)
        return 0.5 + 0.35 * np.sin(along / generator.uniform(4, 9) + 9.0 * bend)
    if kind == "tiles":
        side = generator.uniform(18, 42)
        cells = (np.floor(along / side) + np.floor(across / side)) % 2
        seams = np.minimum(along % side, across % side) < 1.5
        return np.where(
            seams, 0.05, 0.35 + 0.25 * cells + 0.25 * layered_noise(generator, height, width, 30.0)
        )
    if kind == "grain":
        fine = 0.5 * smooth_noise(generator, height, width, 1.7) + 0.5 * smooth_noise(
            generator, height, width, 4.3
        )
        return 0.2 + 0.4 * fine + 0.4 * smooth_noise(generator, height, width, 60.0)
    slope = (along - along.min()) / (along.max() - along.min())
    return 0.8 * slope + 0.2 * layered_noise(generator, height, width, 25.0)


def _mix_of(look: Texture, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(h, w) in [0, 1]: how much of the second colour each point of the unit shape gets."""
    turn = np.pi * look.waves
    if look.texture == "stripes":
        wave = np.sin(turn * u + look.phase)
    elif look.texture == "checks":
        wave = 2.0 * np.sin(turn * u + look.phase) * np.sin(turn * v + look.phase)
    elif look.texture == "dots":
        wave = np.cos(turn * u + look.phase) + np.cos(turn * v) - 0.6
    elif look.texture == "waves":
        wave = np.sin(turn * u + 1.8 * np.sin(0.7 * turn * v + look.phase))
    elif look.texture == "mottled":
        # a few sine waves in fixed random directions: a marble that turns with the shape
        directions = np.random.default_rng(look.noise_seed).normal(0, turn, (6, 3))
        wave = np.sum([np.sin(a * u + b * v + c) for a, b, c in directions], axis=0) / 2.0
    else:
        return np.clip(0.25 + 0.25 * v, 0.0, 1.0)
    return np.clip(0.5 + 1.6 * wave, 0.0, 1.0)


def draw_scene(background: np.ndarray, shapes: Sequence[Shape]) -> Scene:
    """Paints the shapes over ``background`` (H, W, 3) float32 in [0, 1], the first one furthest back."""
    canvas = background.copy()
    owners = np.full(background.shape[:2], -1, dtype=np.int16)
    full_areas = np.array(
        [_paint(canvas, owners, index, shape) for index, shape in enumerate(shapes)], dtype=np.float64
    )
    return Scene((np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8), owners, tuple(shapes), full_areas)


def footprint(shape: Shape, height: int, width: int) -> tuple[np.ndarray, int]:
    """(H, W) bool, the pixels of the picture that the shape covers, and its area in pixels with the parts
    outside counted.
    """
    patch = _patch(shape, height, width)
    inside = _field(shape, patch.columns, patch.rows)[0] < 0
    mask = np.zeros((height, width), dtype=np.bool_)
    mask[patch.target] = inside[patch.window]
    return mask, int(inside.sum())


@dataclass(frozen=True, eq=False)
class _Patch:
    """The square of pixels around a shape.

    ``columns`` (side,) and ``rows`` (side, 1) are the pixels' centres; the part ``window`` of the square lies
    in the picture, at ``target``."""

    columns: np.ndarray
    rows: np.ndarray
    window: tuple[slice, slice]
    target: tuple[slice, slice]


def _patch(shape: Shape, height: int, width: int) -> _Patch:
    reach = shape.radius * 1.25 + _MARGIN
    left, top = int(np.floor(shape.x - reach)), int(np.floor(shape.y - reach))
    side = int(np.ceil(2 * reach)) + 2
    rows = np.arange(top, top + side, dtype=np.float32)[:, None] + np.float32(0.5)
    columns = np.arange(left, left + side, dtype=np.float32) + np.float32(0.5)
    y1, y2 = (min(max(edge, 0), height) for edge in (top, top + side))
    x1, x2 = (min(max(edge, 0), width) for edge in (left, left + side))
    window = (slice(y1 - top, y2 - top), slice(x1 - left, x2 - left))
    return _Patch(columns, rows, window, (slice(y1, y2), slice(x1, x2)))


def _paint(canvas: np.ndarray, owners: np.ndarray, index: int, shape: Shape) -> int:
    """Paints one shape with its shadow; returns its area in pixels, hidden and outside parts counted."""
    patch = _patch(shape, *owners.shape)
    distance, u, v = _field(shape, patch.columns, patch.rows)
    area = int((distance < 0).sum())
    distance, u, v = (values[patch.window] for values in (distance, u, v))
    columns, rows = patch.columns[patch.window[1]], patch.rows[patch.window[0]]
    if not distance.size:
        return area  # wholly outside
    shadow = _field(shape, columns - _SHADOW[0], rows - _SHADOW[1])[0]
    target = canvas[patch.target]
    target *= (1.0 - 0.45 * np.clip(0.5 - shadow / 8.0, 0.0, 1.0))[..., None]
    cover = np.clip(0.5 - distance, 0.0, 1.0)[..., None]
    target[:] = target * (1.0 - cover) + _face(shape, distance, u, v, columns, rows) * cover
    owners[patch.target][distance < 0] = index
    return area


def _field(shape: Shape, columns: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signed distance in pixels and the coordinates (u, v) of the unit shape at pixel positions."""
    x, y = (columns - shape.x) / shape.radius, (rows - shape.y) / shape.radius
    cos, sin = np.cos(shape.angle), np.sin(shape.angle)
    u, v = cos * x + sin * y, cos * y - sin * x
    return signed_distance(shape.kind, u, v) * shape.radius, u, v


def _face(
    shape: Shape, distance: np.ndarray, u: np.ndarray, v: np.ndarray, columns: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """(h, w, 3) colours of the face: texture, light from the upper left, a darker rim."""
    mix = _mix_of(shape.look, u, v)[..., None]
    first, second = (colour.astype(np.float32) for colour in shape.look.colours)
    colour = first + (second - first) * mix
    slope = ((columns - shape.x) + (rows - shape.y)) / (2.0 * shape.radius)
    rim = np.clip(1.0 + distance / 2.5, 0.0, 1.0)
    return colour * (1.0 - 0.22 * slope - 0.35 * rim)[..., None]
