"""The proposal methods by name: each is built with its options and called with a `Sample`.

A method returns (P, 4) float32 boxes, best first, inside the picture, and has a ``key``: a text that changes
whenever its boxes for the same picture could, or None where the boxes do not depend on the picture alone and
so cannot be cached. ``within_detector`` says that (a part of) its boxes are found by the detector itself."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from vistasks.proposals.selective_search import VERSION, Mode, selective_search
from vistasks.registry import PROPOSALS
from vistasks.types import Sample


@runtime_checkable
class ProposalMethod(Protocol):
    """What stands in the table PROPOSALS."""

    @property
    def key(self) -> str | None:
        """See the module's text."""
        ...

    @property
    def within_detector(self) -> bool:
        """See the module's text."""
        ...

    def __call__(self, sample: Sample) -> np.ndarray:
        """(P, 4) float32 boxes, best first, valid in the sample's image."""
        ...


def clipped(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """(N, 4) any float -> (M, 4) float32 inside the picture; what is empty or not finite afterwards is
    dropped.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    boxes = boxes[np.isfinite(boxes).all(axis=1)]
    inside = np.clip(boxes, 0, [width, height, width, height]).astype(np.float32)
    return inside[(inside[:, 2] > inside[:, 0]) & (inside[:, 3] > inside[:, 1])]


@PROPOSALS.register("selective_search")
class SelectiveSearch:
    """Selective search; the options are those of `vistasks.proposals.selective_search`."""

    within_detector = False

    def __init__(
        self,
        mode: Mode = "fast",
        *,
        max_boxes: int | None = 2000,
        min_size: int | None = None,
        min_side: int = 1,
        seed: int = 0,
        threads: int = 1,
    ) -> None:
        self.mode: Mode = mode
        self.max_boxes = max_boxes
        self.min_size = min_size
        self.min_side = min_side
        self.seed = seed
        self.threads = threads
        # threads do not change the boxes
        options = f"mode={mode} max_boxes={max_boxes} min_size={min_size} min_side={min_side} seed={seed}"
        self.key: str | None = f"selective_search-{VERSION} {options}"

    def __call__(self, sample: Sample) -> np.ndarray:
        """(P, 4) float32 boxes, best first."""
        return selective_search(
            sample.image,
            self.mode,
            max_boxes=self.max_boxes,
            min_size=self.min_size,
            min_side=self.min_side,
            seed=self.seed,
            threads=self.threads,
        )


MOST_WINDOWS = 1_000_000


@PROPOSALS.register("grid")
class Grid:
    """Sliding windows of several sizes and shapes, the largest first; the baseline that a method must beat.

    Args:
        sizes: side lengths of the square of equal area, as shares of the picture's shorter side.
        ratios: width / height.
        stride: step as a share of the window's sides.
    """

    within_detector = False

    def __init__(
        self,
        sizes: tuple[float, ...] = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18),
        *,
        ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
        stride: float = 0.4,
        max_boxes: int | None = 2000,
    ) -> None:
        if not sizes or not ratios or min(*sizes, *ratios, stride, 1) <= 0:
            raise ValueError(
                f"grid: sizes, ratios and stride must be > 0, not {sizes}, {ratios} and {stride}"
            )
        self.sizes, self.ratios, self.stride, self.max_boxes = tuple(sizes), tuple(ratios), stride, max_boxes
        self.key: str | None = (
            f"grid-1 sizes={self.sizes} ratios={self.ratios} stride={stride} max_boxes={max_boxes}"
        )

    def __call__(self, sample: Sample) -> np.ndarray:
        """(P, 4) float32 boxes, the largest first."""
        height, width = sample.size
        windows = 0
        parts = [np.array([[0, 0, width, height]], dtype=np.float64)]
        for size in sorted(self.sizes, reverse=True):
            for ratio in self.ratios:
                w = min(width, size * min(height, width) * ratio**0.5)
                h = min(height, size * min(height, width) / ratio**0.5)
                across = 1 + np.ceil((width - w) / (self.stride * w))
                down = 1 + np.ceil((height - h) / (self.stride * h))
                windows += across * down
                if not windows <= MOST_WINDOWS:
                    raise ValueError(
                        f"grid: sizes, ratios and stride make more than {MOST_WINDOWS:,} windows of a "
                        f"{width}x{height} image; use fewer or larger ones"
                    )
                columns, rows = np.linspace(0, width - w, int(across)), np.linspace(0, height - h, int(down))
                y, x = (axis.ravel() for axis in np.meshgrid(rows, columns, indexing="ij"))
                parts.append(np.stack([x, y, x + w, y + h], axis=1))
        boxes = clipped(np.concatenate(parts), height, width)
        _, once = np.unique(boxes, axis=0, return_index=True)
        return boxes[np.sort(once)][: self.max_boxes]


@PROPOSALS.register("ground_truth_jitter")
class GroundTruthJitter:
    """The sample's own objects and shaken copies of them: for tests and for judging a head alone. Not
    cacheable.

    Args:
        copies: shaken copies of each object.
        strength: each side moves by at most this share of the box's side.
    """

    within_detector = False
    key: str | None = None

    def __init__(self, copies: int = 20, *, strength: float = 0.3, seed: int = 0) -> None:
        if copies < 0 or not 0 <= strength < 0.5:
            raise ValueError(
                f"ground_truth_jitter: expected copies >= 0 and 0 <= strength < 0.5, not {copies} and {strength}"
            )
        self.copies, self.strength, self.seed = copies, strength, seed

    def __call__(self, sample: Sample) -> np.ndarray:
        """(P, 4) float32: the objects, then their copies."""
        generator = np.random.default_rng([self.seed, zlib.crc32(sample.image_id.encode())])
        boxes = sample.boxes.astype(np.float64)
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        shifts = generator.uniform(-self.strength, self.strength, (self.copies, len(boxes), 4))
        shaken = (boxes + shifts * sides).reshape(-1, 4)
        return clipped(np.concatenate([boxes, shaken]), *sample.size)


@PROPOSALS.register("file")
class File:
    """Boxes that another program computed.

    Args:
        path: a .npz file that maps an image id to (P, 4) x1, y1, x2, y2 boxes, best first; or a COCO results
            json (a list of ``{"image_id", "bbox": [x, y, width, height], "score"}``), sorted by score here.
    """

    within_detector = False

    def __init__(self, path: str, *, max_boxes: int | None = 2000) -> None:
        self.path = Path(path)
        self.max_boxes = max_boxes
        self.key: str | None = None  # reading is as fast as a cache would be
        if not self.path.is_file():
            raise ValueError(
                f"{path}: there is no such file; expected an .npz or a COCO results .json with proposals"
            )
        if self.path.suffix not in (".npz", ".json"):
            raise ValueError(f"{path}: expected an .npz or a .json file with proposals")
        self._boxes: dict[str, np.ndarray] = (
            _read_results(self.path) if self.path.suffix == ".json" else _read_arrays(self.path)
        )

    def __call__(self, sample: Sample) -> np.ndarray:
        """(P, 4) float32 boxes, best first; a ValueError where the file does not know the picture."""
        boxes = self._boxes.get(sample.image_id)
        if boxes is None:
            example = next(iter(self._boxes), "none at all")
            message = (
                f"no proposals for image '{sample.image_id}' ({sample.path}); it has, for example: {example}"
            )
            raise ValueError(f"{self.path}: {message}")
        return clipped(boxes, *sample.size)[: self.max_boxes]


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            result = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, zlib.error, KeyError) as error:
        raise ValueError(f"{path}: not a readable .npz file of proposals: {error}") from error
    for name, boxes in result.items():
        if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype.kind not in "fiu":
            raise ValueError(f"{path}: '{name}' must be (P, 4) numbers, not {boxes.shape} {boxes.dtype}")
    return result


def _read_results(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, list[tuple[float, list[float]]]] = {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        for index, entry in enumerate(entries):
            try:
                x, y, width, height = (float(value) for value in entry["bbox"])
                row = (-float(entry.get("score", 0)), [x, y, x + width, y + height])
                found.setdefault(str(entry["image_id"]), []).append(row)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                expected = '{"image_id": ..., "bbox": [x, y, width, height], "score": ...}'
                raise ValueError(f"{path}: entry {index} is {entry!r}; expected {expected}") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not a JSON file: {error}") from error
    return {
        image: np.array([box for _, box in sorted(rows, key=lambda row: row[0])])
        for image, rows in found.items()
    }
