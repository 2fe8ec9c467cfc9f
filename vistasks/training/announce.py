"""The first lines of a run on the screen."""

from __future__ import annotations

from pathlib import Path

from lightning_fabric import Fabric

from vistasks.config import Config
from vistasks.datasets import Dataset
from vistasks.models import MultiTaskModel
from vistasks.task import task_of


def announce(
    config: Config,
    fabric: Fabric,
    data: Dataset,
    val: Dataset | None,
    model: MultiTaskModel,
    steps_per_epoch: int,
    accumulate: int,
) -> None:
    """Where everything is and what is about to be trained."""
    print(f"run folder   {Path(config.output).resolve()}")
    roots = [config.data.root, *(source["root"] for source in config.data.also if "root" in source)]
    count = len(val) if val is not None else 0
    folders = ", ".join(str(Path(root).resolve()) for root in roots)
    print(f"data         {folders}: {len(data)} training, {count} evaluation")
    for task in config.model.heads:
        print(f"{task:12} {', '.join(data.classes.of(task))}")
    if any(task_of(task).takes_proposals for task in config.model.heads):
        method, cache = config.proposals.method["name"], config.proposals.cache
        print(
            f"proposals    {method}, {'not cached' if cache is None else f'cached in {Path(cache).resolve()}'}"
        )
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(f"model        {config.model.backbone['name']}, {parameters / 1e6:.2f} M trainable parameters")
    train, world = config.train, fabric.world_size
    parts = (
        [f"{train.batch_size}"]
        + [f"{world} processes"] * (world > 1)
        + [f"{accumulate} batches"] * (accumulate > 1)
    )
    pictures = train.batch_size * world * accumulate
    product = f" ({' x '.join(parts)})" if len(parts) > 1 else ""
    steps = f"{steps_per_epoch} steps of {pictures} images{product}"
    print(f"training     {train.epochs} epochs of {steps} on {fabric.device}, {train.precision}", flush=True)
    for note in [*data.notes, *(val.notes if val is not None else [])]:
        print(f"note         {note}")
