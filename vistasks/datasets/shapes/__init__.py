"""Generated data: textured shapes with boxes and masks, reproducible from a seed."""

from vistasks.datasets.shapes import dataset  # registered by being imported

__all__ = ["dataset"]
