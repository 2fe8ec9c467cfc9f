"""Region proposals: image -> boxes. Importing the room fills the table `vistasks.registry.PROPOSALS`."""

from vistasks.proposals.cache import CachedProposals
from vistasks.proposals.graph_segmentation import graph_segmentation
from vistasks.proposals.methods import ProposalMethod
from vistasks.proposals.peers import PeerProposals
from vistasks.proposals.selective_search import selective_search
from vistasks.proposals.union import Union

__all__ = [
    "CachedProposals",
    "PeerProposals",
    "ProposalMethod",
    "Union",
    "graph_segmentation",
    "selective_search",
]
