"""The multi-task model: one trunk, a neck, one or two heads, nothing more."""

from vistasks.models.multitask import MultiTaskModel

__all__ = ["MultiTaskModel"]
