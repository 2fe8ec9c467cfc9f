"""Object detection and segmentation over one shared trunk.

    files --datasets--> Sample --augment--> Sample --batching--> Batch
      --backbones--> Features{stride: tensor} --necks--> Features
      --heads--> raw --(loss)--> named scalars          [training]
                     \\-(decode)-> Detections, SegmentationMap   [inference]
      --metrics--> numbers      --drawing/sinks--> images, video, COCO json, masks
    proposals: image -> boxes, computed in data workers when training, in their own stage on video

Public names are imported when first used, so that ``import vistasks`` is cheap:

>>> predictor = vistasks.load("runs/bccd_rcnn")
>>> prediction = predictor.predict("cell.jpg")
"""

from __future__ import annotations

from typing import Any

from vistasks.system.version import VERSION

__version__ = VERSION
__all__ = ["Predictor", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name in ("load", "Predictor"):
        from vistasks.inference import predictor

        return getattr(predictor, name)
    raise AttributeError(f"module 'vistasks' has no attribute '{name}'")
