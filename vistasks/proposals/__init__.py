"""Region proposals: image -> boxes."""

from vistasks.proposals.graph_segmentation import graph_segmentation
from vistasks.proposals.selective_search import selective_search

__all__ = ["graph_segmentation", "selective_search"]
