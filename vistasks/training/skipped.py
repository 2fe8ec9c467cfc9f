"""Pictures that a run left out by ``data.on_error: skip``: counted, listed, kept in the run folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning_fabric import Fabric

from vistasks.config import Config
from vistasks.loading.loader import Batches
from vistasks.system.atomic import write_text

SHOWN = 5


def explained(error: Exception, config: Config) -> ValueError:
    """The error of a picture that could not be read in the middle of a training, with the ways out."""
    text = "data.on_error=skip leaves such pictures out"
    if config.train.preflight != "full":
        text += f"; the preflight (train.preflight={config.train.preflight}) did not read every file, and full does"
    return ValueError(f"{error} ({text})")


def report_skipped(folder: Path, loaders: Sequence[Batches], fabric: Fabric) -> list[str]:
    """Lines for people, and ``skipped.json`` with all of them; nothing where nothing was skipped.

    The file has ``opening``, the faults that were found when the data were opened, and ``reading``, picture
    -> what was wrong. To be called by every process of the run."""
    skipped = {path: text for loader in loaders for path, text in loader.skipped.items()}
    if fabric.world_size > 1:
        states: list[dict[str, str]] = [{}] * fabric.world_size
        torch.distributed.all_gather_object(states, skipped)
        skipped = {path: text for state in states for path, text in state.items()}
    opening = list(
        dict.fromkeys(fault for loader in loaders for fault in loader.dataset.pipeline.dataset.skipped)
    )
    if not (skipped or opening) or not fabric.is_global_zero:
        return []
    reading = dict(sorted(skipped.items()))
    write_text(folder / "skipped.json", json.dumps({"opening": opening, "reading": reading}, indent=1))
    lines = [
        f"skipped      {text}" for text in list(reading.values())[:SHOWN]
    ]  # those of opening were told then
    counts = f"{len(skipped)} unreadable images, {len(opening)} faults found before"
    return [*lines, f"skipped      {counts} (data.on_error: skip): {(folder / 'skipped.json').resolve()}"]
