"""``vistasks inspect``: what a trained model has learnt, as pictures of one image."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from vistasks.checkpoint.foreign import refuse_withheld
from vistasks.drawing.palette import model_colours
from vistasks.heads.region_classifier import RegionClassifier
from vistasks.inference.loaded import LoadedModel
from vistasks.inspection import figures
from vistasks.inspection.gradcam import Score, class_score, detection_score, grad_cam, occlusion, pixel_score
from vistasks.models.building import build_model
from vistasks.system.atomic import write_text
from vistasks.system.text import few
from vistasks.types import Batch, Detections, SegmentationMap

LEAST_REGIONS, MOST_REGIONS, CHANNELS = 4, 400, 16


class Inspection:
    """A loaded model, a picture (H, W, 3) uint8 RGB and what the model says of it.

    Args:
        loaded: the model.
        image: the picture.
        output: the folder of the pictures.
    """

    def __init__(self, loaded: LoadedModel, image: np.ndarray, output: Path) -> None:
        self.loaded, self.model, self.image, self.output = loaded, loaded.model, image, output
        proposals = loaded.propose(image)
        self.batch: Batch = loaded.make_batch([image], None if proposals is None else [proposals])
        (prediction,) = self.model.predict(self.batch)
        self.detections: Detections | None = prediction.detections
        self.map: SegmentationMap | None = prediction.segmentation
        height, width = self.batch.sizes[0]
        self.small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        self.scale = np.array([width / image.shape[1], height / image.shape[0]] * 2, dtype=np.float32)
        self.facts: dict[str, Any] = {}
        output.mkdir(parents=True, exist_ok=True)

    def filters(self) -> None:
        """filters.png: the first convolution's filters as the training started, as it ended, and the
        difference.

        Each filter has its own range of colours, so that a small change shows too.
        """
        after = _first_convolution(self.model).weight.detach().cpu()
        try:
            refuse_withheld(self.loaded.withheld, "model.backbone.weights", str(self.loaded.path))
            torch.manual_seed(self.loaded.config.seed)  # as the training did
            before = _first_convolution(
                build_model(self.loaded.config.model, self.loaded.classes)
            ).weight.detach()
        except (ValueError, OSError, ImportError) as error:
            self.facts["filters_before"] = f"not shown: {error}"
            before = None
        sheets = {"after training": _filter_sheet(after)}
        if before is not None:
            changed = float((after - before).norm() / before.norm())
            self.facts["filters"] = {"of": f"changed by {changed:.0%} of their size", "changed": changed}
            sheets = {"before training": _filter_sheet(before), **sheets}
            if changed:
                sheets[f"what training has changed ({changed:.0%} of their size)"] = _filter_sheet(
                    after - before
                )
        figures.save_sheets(self.output / "filters.png", sheets, "filters of the first convolution")

    def features(self) -> None:
        """features.png: at each stride the mean over channels and the channels that vary most."""
        height, width = self.batch.sizes[0]
        with torch.no_grad():
            images = self.model.features(self.batch).images
            assert images is not None
            maps = self.model.backbone(images).maps
        sheets = {}
        for stride, values in maps.items():
            one = values[0, :, : -(-height // stride), : -(-width // stride)].float().cpu()
            chosen = one.flatten(1).var(dim=1).topk(min(7, len(one))).indices
            tiles = torch.cat([one.mean(dim=0, keepdim=True), one[chosen]]).numpy()
            name = f"stride {stride}, {len(one)} channels: their mean, then channels {', '.join(map(str, chosen.tolist()))}"
            sheets[name] = figures.tiled(tiles, len(tiles))
        figures.save_sheets(self.output / "features.png", sheets, "feature maps of the backbone by depth")

    def detection(self, number: int, *, cells: int) -> None:
        """gradcam_detection.png, occlusion_detection.png, roi.png of a detection, 0 the best; a ValueError if
        it is not there.
        """
        found = self.detections
        if found is None or not 0 <= number < len(found):
            count = 0 if found is None else len(found)
            raise ValueError(
                f"--detection {number}: the model finds {count} objects in this image, numbered from 0"
            )
        box, label = found.boxes[number] * self.scale, int(found.labels[number])
        region = torch.from_numpy(box).to(self.loaded.device)
        score = detection_score(self.model, self.batch, region, label)
        title = f"{found.names[number]} {found.scores[number]:.2f}"
        head: Any = self.model.head_of(RegionClassifier)
        self._explain(head.task, score, title, box=box, cells=cells, crops=not head.reads_image_features)
        with torch.no_grad():
            pooled = (
                head.regions(self.model.features(self.batch), [region[None]], self.model.encode)[0]
                .float()
                .cpu()
            )
        best = pooled.flatten(1).mean(dim=1).topk(min(CHANNELS, len(pooled))).indices
        x1, y1, x2, y2 = np.clip(np.round(box).astype(int), 0, None)
        crop = self.small[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)] / np.float32(255)
        title = (
            f"the {CHANNELS} strongest of {len(pooled)} channels, each {pooled.shape[1]}x{pooled.shape[2]}"
        )
        aside = max(0, 4 * crop.shape[0] - crop.shape[1]) // 2  # or the region would fill the page
        crop = np.pad(crop, ((0, 0), (aside, aside), (0, 0)), constant_values=1)
        sheets = {"the region": crop, title: figures.tiled(pooled[best].numpy(), 8)}
        figures.save_sheets(
            self.output / "roi.png", sheets, f"the region's pooled feature: {found.names[number]}"
        )

    def class_of_map(self, name: str | None, *, cells: int) -> None:
        """gradcam_class.png and occlusion_class.png; None takes the class with most pixels besides the
        background.
        """
        present = self._map()
        counts = np.bincount(present.labels.ravel(), minlength=len(present.names))
        if name is None:
            ranked = [
                present.names[i]
                for i in np.argsort(-counts)
                if counts[i] and present.names[i] != "background"
            ]
            name = ranked[0] if ranked else present.names[int(counts.argmax())]
        if name not in present.names:
            raise ValueError(f"--class {name}: the segmentation map's classes are {few(present.names)}")
        label = present.names.index(name)
        share = counts[label] / counts.sum()
        self._explain(
            "class",
            class_score(self.model, self.batch, label),
            f"{name} ({share:.0%} of the map)",
            cells=cells,
        )

    def pixel(self, at: tuple[int, int] | None) -> None:
        """gradcam_pixel.png of a pixel x, y of the picture; None: the middle of the largest object's
        pixels.
        """
        found = self._map()
        height, width = found.labels.shape
        if at is None:
            objects = found.labels != (
                found.names.index("background") if "background" in found.names else 255
            )
            chosen = objects if objects.any() else np.ones_like(objects)
            inside = cv2.distanceTransform(np.pad(chosen, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
            row, column = np.unravel_index(int(inside.argmax()), inside.shape)
            at = (int(column), int(row))
        x, y = at
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f"--pixel {x},{y} is outside the {width}x{height} image")
        label = int(found.labels[y, x])
        scaled = int((x + 0.5) * self.scale[0]), int((y + 0.5) * self.scale[1])
        score = pixel_score(self.model, self.batch, *scaled, label)
        self._explain("pixel", score, f"{found.names[label]} at {x}, {y}", point=scaled, cells=0)

    def regions(self) -> None:
        """regions.png: the features of the proposals by PCA and, where scikit-learn is installed, by
        t-SNE.
        """
        head: Any = self.model.head_of(RegionClassifier)
        with torch.no_grad():
            features = self.model.features(self.batch)
            proposals = head.proposals(features, self.batch)[0][
                :MOST_REGIONS
            ]  # an rpn's are not in the batch
            if len(proposals) < LEAST_REGIONS:
                self.facts["regions"] = f"not shown: {len(proposals)} proposals are too few"
                return
            pooled = head.regions(features, [proposals], self.model.encode)
            hidden = head.stages[0].fc(pooled)
            likeliest = head.stages[0].classify(hidden).argmax(dim=1).tolist()
        names = [*self.loaded.classes.detection, "background"]
        values = hidden.float().cpu().numpy()
        centred = values - values.mean(axis=0)
        _, singular, axes = np.linalg.svd(centred, full_matrices=False)
        kept = float((singular[:2] ** 2).sum() / max(float((singular**2).sum()), 1e-12))
        clouds = {f"PCA, {kept:.0%} of the variance": centred @ axes[:2].T}
        self.facts["regions"] = {"count": len(values), "pca_variance": round(kept, 4)}
        try:
            from sklearn.manifold import TSNE

            clouds["t-SNE"] = TSNE(
                perplexity=min(30.0, (len(values) - 1) / 3), random_state=0, init="pca"
            ).fit_transform(values)
        except ImportError:
            self.facts["tsne"] = "not shown: it needs scikit-learn (pip install scikit-learn)"
        colours = model_colours(self.loaded.classes)
        figures.save_scatter(self.output / "regions.png", clouds, [names[i] for i in likeliest], colours)

    def finish(self, path: str) -> None:
        """inspect.json: what was looked at."""
        facts = {"weights": str(self.loaded.path), "image": path, **self.facts}
        write_text(self.output / "inspect.json", json.dumps(facts, indent=1))

    def _map(self) -> SegmentationMap:
        if self.map is None:
            raise ValueError(
                "this model has no segmentation map; --class and --pixel need a segmentation head"
            )
        return self.map

    def _explain(
        self,
        name: str,
        score: Score,
        title: str,
        *,
        box: np.ndarray | None = None,
        point: tuple[int, int] | None = None,
        cells: int,
        crops: bool = False,
    ) -> None:
        height, width = self.small.shape[:2]
        heat = grad_cam(self.model, self.batch, score, local=box is not None or point is not None)
        values, image, shown = heat.values[:height, :width], self.small, box
        if crops and box is not None:  # what the trunk saw is the crop
            x1, y1, x2, y2 = np.clip(np.round(box).astype(int), 0, None)
            image, values, shown = self.small[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)], heat.values, None
        where = f"Grad-CAM for {title}, at stride {heat.stride}"
        target = self.output / f"gradcam_{name}.png"
        figures.save_heat(target, image, values, where, box=shown, point=point, unit="share of the largest")
        self.facts[name] = {"of": title, "stride": heat.stride}
        if cells:
            falls = occlusion(self.model, self.batch, score, cells=cells)
            self.facts[name]["largest_fall"] = round(float(falls.max()), 4)
            target = self.output / f"occlusion_{name}.png"
            figures.save_heat(
                target, self.small, falls, f"occlusion: {title}", box=box, unit="fall of the logit"
            )


def inspect(
    loaded: LoadedModel,
    image: np.ndarray,
    output: Path,
    *,
    path: str,
    detection: int = 0,
    class_name: str | None = None,
    pixel: tuple[int, int] | None = None,
    cells: int = 10,
) -> Mapping[str, Any]:
    """Writes every picture that the model's heads allow into ``output`` and returns what was looked at.

    Args:
        loaded: the model.
        image: (H, W, 3) uint8 RGB.
        output: the folder.
        path: the picture's name, for inspect.json.
        detection: which detection, 0 the best.
        class_name: which class of the map; None: the one with most pixels.
        pixel: which pixel (x, y) of the map; None: one amid the objects.
        cells: of the occlusion along the shorter side; 0: none.
    """
    look = Inspection(loaded, image, output)
    look.filters()
    look.features()
    if look.detections is not None:
        if len(look.detections) or detection:
            look.detection(detection, cells=cells)
        else:
            look.facts["detection"] = "nothing found in this image"
        look.regions()
    if look.map is not None or class_name is not None or pixel is not None:
        look.class_of_map(class_name, cells=cells)
        look.pixel(pixel)
    look.finish(path)
    return look.facts


def _first_convolution(model: nn.Module) -> nn.Conv2d:
    return next(module for module in model.modules() if isinstance(module, nn.Conv2d))


def _filter_sheet(weights: Tensor) -> np.ndarray:
    """(O, 3, h, w) -> colour tiles; filters of other depths as their mean."""
    tiles = weights.permute(0, 2, 3, 1).float().numpy()
    tiles = tiles if tiles.shape[3] == 3 else tiles.mean(axis=3)
    return figures.tiled(tiles, 16)
