"""Task heads: a trunk's features -> losses, or detections or a class map. Importing this package registers them."""

from vistasks.heads import fcn, region_classifier, segnet, skip_decoder
from vistasks.heads.head import Head

__all__ = ["Head", "fcn", "region_classifier", "segnet", "skip_decoder"]
