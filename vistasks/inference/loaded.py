"""A trained model with what turns images into its batches."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vistasks.build import build_dataset, build_loader, build_pipeline, build_proposals
from vistasks.checkpoint import Checkpoint, read_checkpoint
from vistasks.checkpoint.foreign import MOST_PROPOSALS, TRUST, refuse_withheld
from vistasks.config import Config, ProposalsConfig
from vistasks.heads.region_classifier import RegionClassifier
from vistasks.heads.region_decoding import region_decoding
from vistasks.heads.test_time import TestTime
from vistasks.inference.backend import Backend
from vistasks.loading.batching import Preparation, image_samples, to_device
from vistasks.loading.loader import Batches
from vistasks.models.building import trained_model
from vistasks.models.cuda_graphs import GraphedEncoder
from vistasks.models.views import Regions
from vistasks.system.devices import pick_device
from vistasks.task import task_of
from vistasks.types import Batch, ClassNames, Prediction, Sample


class LoadedModel(Backend):
    """A trained model with what turns pictures into its batches; what
    `vistasks.inference.predictor.Predictor` drives.
    """

    selects = True

    def __init__(
        self, checkpoint: Checkpoint, device: torch.device, *, proposals: ProposalsConfig | None = None
    ) -> None:
        self.path = checkpoint.path
        self.paths = [self.path]
        self.config = checkpoint.config
        self.classes = checkpoint.classes
        self.device = device
        self.written = checkpoint.written
        self.withheld = checkpoint.withheld
        self._trusted = checkpoint.trusted
        self.model = trained_model(
            self.config.model, self.classes, checkpoint.part("model"), str(checkpoint.path)
        )
        self.model.to(device).to(memory_format=torch.channels_last).eval()
        self._uploads = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self.wants_proposals and proposals is None:
            refuse_withheld(self.withheld, "proposals.", str(checkpoint.path))
        withheld = any(key.startswith("proposals.") for key in self.withheld)
        method = (proposals or ProposalsConfig()) if withheld else self.config.proposals
        self._method = build_proposals(method.model_copy(update={"cache": None}))

    @property
    def tasks(self) -> list[str]:
        """The names of the tasks that it answers."""
        return list(self.heads)

    @property
    def heads(self) -> Mapping[str, Mapping[str, Any]]:
        """The options of each task's head, as the config has them."""
        return self.config.model.heads

    @property
    def wants_proposals(self) -> bool:
        """Whether it has a head that classifies region proposals."""
        return any(task_of(task).takes_proposals for task in self.heads)

    @property
    def slides_windows(self) -> bool:
        """Whether it has a head that can go through large images window by window."""
        return any(head.slides_windows for head in self.model.heads.values())

    @property
    def takes_proposals(self) -> bool:
        """Whether there is a detector that was trained on proposals from outside; one with an rpn may have
        none but its own.
        """
        return self.wants_proposals and not self._method.within_detector

    def speed_up(self, *, half: bool = False, compiled: bool = False, cuda_graphs: bool = False) -> None:
        """Predicts in 16 bits (float16 on CUDA, bfloat16 elsewhere), with a compiled trunk, or with one from
        CUDA graphs.

        The first two change results a little. Compiling happens at the first batch of each size, and takes a
        minute or so.

        Raises:
            ValueError: nothing here can compile, there is no GPU for graphs, or both were asked for.
        """
        if cuda_graphs and self.device.type != "cuda":
            raise ValueError(
                f"--cuda-graphs needs a GPU, and this model runs on {self.device.type}; leave it out"
            )
        if cuda_graphs and compiled:
            raise ValueError("--compile and --cuda-graphs cannot be combined; choose one")
        if half:
            self.model.precision = torch.float16 if self.device.type == "cuda" else torch.bfloat16
        if compiled:
            if self.device.type == "cpu" and shutil.which("c++") is None and shutil.which("g++") is None:
                raise ValueError(
                    "--compile on the CPU needs a C++ compiler (g++), and there is none on the PATH; leave it out"
                )
            self.model.encode = torch.compile(self.model.encode)  # type: ignore[method-assign]
        if cuda_graphs:
            self.model.encode = GraphedEncoder(self.model.encode)  # type: ignore[method-assign]

    def look(self, test_time: TestTime) -> None:
        """Looks at each picture flipped, scaled and window by window; see `vistasks.heads.test_time`.

        A ``ValueError`` where windows are asked of a model without a class map.
        """
        if test_time.window is not None and not self.slides_windows:
            raise ValueError(f"{self.path}: --window needs a segmentation head, and this model only detects")
        self.model.look(test_time)

    def decode_with(self, decoding: Mapping[str, Any]) -> None:
        """Lets a ``region_classifier`` decode in another way than it was trained with; other heads have no
        such options.

        A calibration stays where ``decoding`` says nothing of it and is otherwise what it was fitted to. A
        ``ValueError`` names an option that there is not."""
        for head in self.model.heads.values():
            if isinstance(head, RegionClassifier):
                given = region_decoding(decoding)
                given.check(head.classes)
                own = replace(given, calibration=head.decoding.calibration)
                head.decoding = own if own == head.decoding and "calibration" not in decoding else given

    def predict_at(self, scale: float) -> None:
        """Sees pictures at this factor of the size that it was trained at, instead of the config's
        ``input.predict_scale``.
        """
        given = self.config.input.model_copy(update={"predict_scale": scale})
        self.config = self.config.model_copy(update={"input": given})

    def propose(self, image: np.ndarray) -> np.ndarray | None:
        """Region proposals (P, 4) of one picture (H, W, 3) uint8 RGB; None where the model has no
        detector.
        """
        if not self.wants_proposals:
            return None
        found = self._method(Sample(image_id="image", path="image", image=image))
        if len(found) > MOST_PROPOSALS and not self._trusted:
            raise ValueError(
                f"{self.path}: its proposals.method gives {len(found):,} boxes of one image, expected at most "
                f"{MOST_PROPOSALS:,}; {TRUST}"
            )
        return found

    def predict(
        self,
        batch: Batch,
        *,
        rows: Mapping[str, Sequence[int]] | None = None,
        regions: Regions | None = None,
    ) -> list[Prediction]:
        """As `vistasks.models.MultiTaskModel.predict`."""
        return self.model.predict(batch, rows=rows, regions=regions)

    def make_batch(self, images: Sequence[np.ndarray], proposals: Sequence[np.ndarray] | None) -> Batch:
        """Images (H, W, 3) uint8 RGB and their proposals, in one batch on the model's device."""
        # without the masks that nothing is compared with
        prepare = Preparation(ClassNames(self.classes.detection), self.config.input, self.model.divisor)
        return self.to_device(prepare(image_samples(images, proposals)))

    @property
    def prepare(self) -> Preparation:
        """Samples -> the batch that the model takes, with targets; for a loader's workers."""
        return Preparation(self.classes, self.config.input, self.model.divisor)

    def to_device(self, batch: Batch) -> Batch:
        """The batch where the model is."""
        if self._uploads is None:
            return to_device(batch, self.device)
        # from pinned memory on a stream of its own, so that it does not wait for what the device computes
        with torch.cuda.stream(self._uploads):
            moved = to_device(replace(batch, images=batch.images.pin_memory()), self.device)
        self._uploads.synchronize()
        return moved


def labelled_batches(loaded: LoadedModel, config: Config, part: str) -> Batches:
    """The batches of a config's "train" or "val" part as a trained model takes them, with their samples; not
    augmented.
    """
    config = config.model_copy(update={"model": loaded.config.model, "input": loaded.config.input})
    pipeline = build_pipeline(config, build_dataset(config, part, loaded.classes), training=False)
    _, found = build_loader(
        config, pipeline, classes=loaded.classes, divisor=loaded.model.divisor, training=False
    )
    return found


def load_model(
    path: str | Path, device: str = "auto", *, trust: bool = False, proposals: ProposalsConfig | None = None
) -> LoadedModel:
    """A trained model from a checkpoint or a run folder.

    Args:
        path: the checkpoint or the run folder.
        device: "cpu", "cuda", or "auto": whichever is there.
        trust: its config decides files, programs and sizes, too.
        proposals: the user's own, instead of proposals that the checkpoint may not decide.
    """
    return LoadedModel(read_checkpoint(path, trust=trust), pick_device(device), proposals=proposals)
