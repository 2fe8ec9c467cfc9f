"""Checkpoints: safetensors files with a JSON header (`file`), and what a foreign one may decide (`foreign`)."""

from vistasks.checkpoint.file import (
    CHECKSUM,
    HEADER,
    Checkpoint,
    checksum,
    find_checkpoint,
    free_target,
    read_checkpoint,
    save_checkpoint,
    save_made_of,
    state_of,
)

__all__ = [
    "CHECKSUM",
    "HEADER",
    "Checkpoint",
    "checksum",
    "find_checkpoint",
    "free_target",
    "read_checkpoint",
    "save_checkpoint",
    "save_made_of",
    "state_of",
]
