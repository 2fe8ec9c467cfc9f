"""Task heads: a trunk's features -> losses, or detections or a class map. Importing this package registers
them.
"""

from vistasks.heads import atrous, fcn, region_classifier, segnet, skip_decoder
from vistasks.heads.head import Head

__all__ = ["Head", "atrous", "fcn", "region_classifier", "segnet", "skip_decoder"]
