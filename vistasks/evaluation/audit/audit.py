"""``vistasks audit``: evidence of every picture, then one ranking, a COCO json and a page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from vistasks.build import build_dataset, build_loader, build_pipeline
from vistasks.config import Config
from vistasks.datasets import Dataset
from vistasks.evaluation.audit.evidence import AuditModel
from vistasks.evaluation.audit.export import coco
from vistasks.evaluation.audit.findings import judge_all
from vistasks.evaluation.audit.page import audit_page
from vistasks.evaluation.audit.pictures import Crops
from vistasks.evaluation.audit.places import PictureEvidence, Vocabulary, vocabulary
from vistasks.evaluation.audit.result import Audit
from vistasks.heads.region_classifier import RegionClassifier
from vistasks.heads.segmentation import SegmentationHead
from vistasks.inference.loaded import LoadedModel, load_model
from vistasks.loading.batching import to_device
from vistasks.loading.loader import Pipeline
from vistasks.system.atomic import write_text
from vistasks.system.locks import owned


def audit(
    config: Config,
    weights: str,
    output: Path,
    *,
    split: Literal["train", "val"] = "train",
    top: int = 60,
    device: str = "auto",
    track: Any = lambda loader: loader,
    trust: bool = False,
) -> Audit:
    """Ranks what is probably wrong with the labels of a config's data; writes ``audit.json`` and
    ``audit.html``.

    Memory grows with the number of objects; pictures are read again for the entries that are shown.

    Args:
        config: what data and which proposals; the model and its input size are the checkpoint's.
        weights: a checkpoint or a run folder.
        output: the folder that is written to.
        split: which part of the data.
        top: so many entries have pictures on the page.
        device: "auto", "cpu" or "cuda".
        track: wraps the loader, for a progress bar.
        trust: the checkpoint's config may ask for any sizes.

    Raises:
        ValueError: nothing to look at, a detector that cannot be asked about boxes, or labels without any
            class of the model.
    """
    if split == "val" and not config.data.evaluates:
        raise ValueError("--split val: data.val is empty: name a part there, such as data.val={split: val}")
    with owned(output):
        loaded = load_model(weights, device, trust=trust, proposals=config.proposals)
        tasks = list(loaded.config.model.heads)
        words = vocabulary(loaded.classes, tasks)
        trained_on = loaded.written.data
        config = config.model_copy(update={"model": loaded.config.model, "input": loaded.config.input})
        data = build_dataset(config, split, loaded.classes)
        pipeline = build_pipeline(config, data, training=False)
        evidence = list(_evidence(loaded, config, pipeline, words, track))
        judgement = judge_all(evidence, words.boxes, words.areas)
        own = (
            split == "train"
            and trained_on.source("train") == config.data.source("train")
            and trained_on.folds is None
        )
        labels = sum(
            int(usual.labels.sum()) for usual in (judgement.of_boxes, judgement.of_areas) if usual is not None
        )
        found = Audit(
            judgement, _notes(tasks, words, data, evidence, trained=own), len(evidence), labels, words
        )
        about = {"weights": str(loaded.path), "data": config.data.source(split), "split": split}
        folder = Path(str(config.data.root))
        write_text(
            output / "audit.json", json.dumps(coco(found, evidence, about=about, root=folder), indent=1)
        )
        shown = [*judgement.faults[:top], *judgement.disagreements[: top // 3]]
        pictures = Crops(loaded, pipeline).of(shown, batch_size=config.evaluate.batch_size)
        write_text(output / "audit.html", audit_page(found, shown, pictures, about=about))
        return found


def _evidence(
    loaded: LoadedModel, config: Config, pipeline: Pipeline, words: Vocabulary, track: Any
) -> Iterator[PictureEvidence]:
    classes, divisor = loaded.classes, loaded.model.divisor
    _, loader = build_loader(config, pipeline, classes=classes, divisor=divisor, training=False)
    witness, places = (
        AuditModel(loaded.model, words),
        {path: i for i, path in enumerate(pipeline.dataset.paths)},
    )
    for batch, originals in track(loader):
        yield from witness(
            to_device(batch, loaded.device), originals, [places[sample.path] for sample in originals]
        )


def _notes(
    tasks: list[str], words: Vocabulary, data: Dataset, evidence: list[PictureEvidence], *, trained: bool
) -> list[str]:
    notes = []
    if trained:
        notes.append(
            "The model was trained on these labels and may have learnt their errors. For a sharper audit, train with "
            "data.folds={count: 5, fold: 0} and audit each held-out fold with --split val."
        )
    if SegmentationHead.task not in tasks:
        notes.append(
            "No segmentation map: detections are not cross-checked, and no disagreements are reported."
        )
    if RegionClassifier.task not in tasks:
        notes.append(
            "No detector: connected components of the mask are audited instead of boxes; their boundaries are not."
        )
        if words.background < 0:
            notes.append(
                "The segmentation map has no background: only wrong classes can be found, not missing or spurious labels."
            )
    if len(tasks) == 2:
        lacking = [name for name, column in zip(words.boxes, words.columns) if column < 0]
        if lacking:
            notes.append(
                f"The segmentation map does not have {', '.join(lacking)}: audited by the detector alone."
            )
        if words.areas:
            notes.append(
                f"The detector does not have {', '.join(words.areas)}: audited by the segmentation map alone, by "
                "connected components."
            )
    unlabelled = sum(not one.labelled for one in evidence)
    if unlabelled:
        notes.append(f"{unlabelled} of {len(evidence)} images are not labelled: only ranked for annotation.")
    if RegionClassifier.task in tasks:
        notes.append("Difficult objects and crowds are not audited.")
    return notes
