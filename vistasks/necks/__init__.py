"""Necks: `Features` -> `Features` over the same strides. Importing this room fills the table `NECKS`."""

from vistasks.necks import fpn
from vistasks.registry import NECKS

__all__ = ["NECKS", "fpn"]
