"""The tasks, a file each: everything that only one of them knows. Importing the room fills `vistasks.registry.TASKS`."""

from vistasks.tasks.detection import DetectionTask
from vistasks.tasks.segmentation import SegmentationTask

__all__ = ["DetectionTask", "SegmentationTask"]
