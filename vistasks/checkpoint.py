"""Save and load: safetensors with a JSON header, nothing pickled.

A checkpoint is one file: tensors under ``model.`` (the weights that predict) and, in ``last``, also ``raw.`` (the weights that
are trained, where the averaged ones predict) and ``optimizer.``; its header carries the config, the class names and the state of
the run, and the checksum of all that. Beside it lies the same header as ``NAME.json`` for people.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

import vistasks
from vistasks.atomic import replacing, write_text
from vistasks.batching import collate, input_size, scale_sample, scaled_size, to_device
from vistasks.build import build_dataset, build_loader, build_model, build_pipeline, build_proposals
from vistasks.config import Config, parse_config
from vistasks.devices import pick_device
from vistasks.heads.region_classifier import RegionClassifier
from vistasks.heads.region_decoding import region_decoding
from vistasks.heads.test_time import TestTime
from vistasks.loading import Batches
from vistasks.models import MultiTaskModel
from vistasks.models.cuda_graphs import GraphedEncoder
from vistasks.proposals.trained import LearnedProposals
from vistasks.types import Batch, ClassNames, Sample

HEADER, CHECKSUM = "vistasks", "sha256"


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], *, config: Config, classes: ClassNames, state: Any) -> None:
    """Writes ``path`` (.safetensors) and the JSON beside it: to a temporary name, synced, then renamed.

    An ``OSError`` where that fails, as on a full disk; what was there before is then still there.
    """
    header = {
        "version": vistasks.__version__,
        "classes": asdict(classes),
        "config": config.model_dump(mode="json"),
        "state": state,
    }
    # plain copies: safetensors refuses tensors that share memory, and the device is no property of a weight
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    text = json.dumps(header)
    try:
        with replacing(path) as temporary:
            save_file(plain, temporary, {HEADER: text, CHECKSUM: checksum(text, plain)})
    except SafetensorError as error:
        full = "No space left" in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, "No space left on device" if full else str(error), str(path)) from None
    write_text(path.with_suffix(".json"), json.dumps(header, indent=1))


def checksum(header: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the header and every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds."""

    path: Path
    config: Config
    classes: ClassNames
    state: dict[str, Any]
    tensors: dict[str, Tensor]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under ``prefix.``, without it."""
        return {name[len(prefix) + 1 :]: t for name, t in self.tensors.items() if name.startswith(f"{prefix}.")}


def free_target(output: str | Path) -> Path:
    """``best.safetensors`` in a folder for a checkpoint that is made of another; a ``ValueError`` where there is one."""
    target = Path(output) / "best.safetensors"
    if target.exists():
        raise ValueError(f"{target} is there already; choose another folder")
    return target


def save_made_of(source: Checkpoint, target: Path, model: Mapping[str, Tensor], config: Config, *, how: str) -> None:
    """Writes a checkpoint with the weights ``model`` and no state but from which file it was made, and ``how``."""
    named = {f"model.{name}": tensor for name, tensor in model.items()}
    save_checkpoint(target, named, config=config, classes=source.classes, state={f"{how}_from": str(source.path)})


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint file itself: a run folder stands for its ``best.safetensors``, or else its ``last``."""
    path = Path(path)
    if path.is_dir():
        for name in ("best.safetensors", "last.safetensors"):
            if (path / name).is_file():
                return path / name
        raise ValueError(f"{path.resolve()}: no best.safetensors or last.safetensors in this folder; is it a run folder?")
    if not path.is_file():
        raise ValueError(f"{path.resolve()}: there is no such checkpoint or run folder")
    return path


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a checkpoint or a run folder's best one. A file that is damaged or not ours is a ``ValueError`` that names it."""
    path = find_checkpoint(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            text = metadata.get(HEADER, "null")
            header = json.loads(text)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path}: not a readable checkpoint (.safetensors written by vistasks): {error}") from None
    if metadata.get(CHECKSUM, checksum(text, tensors)) != checksum(text, tensors):
        raise ValueError(f"{path}: damaged: its checksum is not that of its content")
    if header is None:
        raise ValueError(
            f"{path}: safetensors without the vistasks header. Plain weights of a trunk go into the config: "
            f"model.backbone.weights={path}"
        )
    try:
        classes = ClassNames(*(tuple(header["classes"][task]) for task in ("detection", "segmentation")))
        values, state = header["config"], dict(header["state"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path}: its vistasks header is incomplete; was it written by another version?") from None
    return Checkpoint(path, parse_config(values, where=lambda keys: f"{path}, its config"), classes, state, tensors)


def state_of(path: Path) -> dict[str, Any]:
    """The state in a checkpoint's header, without reading its tensors; the errors of `safe_open` and of missing keys."""
    with safe_open(path, framework="pt") as file:
        state: dict[str, Any] = json.loads(file.metadata()[HEADER])["state"]
    return state


def restore(model: MultiTaskModel, weights: Mapping[str, Tensor], where: str) -> None:
    """Loads weights whose names and shapes must be the model's; the ``ValueError`` lists what differs."""
    own = model.state_dict()
    weights = {_present_name(name, model): tensor for name, tensor in weights.items()}
    shapes = [
        f"{name}: {tuple(weights[name].shape)} in the file, {tuple(own[name].shape)} in the model"
        for name in own.keys() & weights.keys()
        if weights[name].shape != own[name].shape
    ]
    missing, unexpected = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    differing = [("missing", missing), ("unexpected", unexpected), ("other shapes", sorted(shapes))]
    lines = [f"  {what} ({len(names)}): {'; '.join(names[:10])}" for what, names in differing if names]
    if lines:
        raise ValueError("\n".join([f"{where}: these weights are not of this model:", *lines]))
    model.load_state_dict(weights)


def _present_name(name: str, model: MultiTaskModel) -> str:
    for task, head in model.heads.items():
        for before, now in head.earlier_names.items():
            if name.startswith(f"heads.{task}.{before}"):
                return f"heads.{task}.{now}{name.removeprefix(f'heads.{task}.{before}')}"
    return name


class LoadedModel:
    """A trained model with what turns pictures into its batches; what `vistasks.predictor.Predictor` drives."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        self.path, self.config, self.classes, self.device = checkpoint.path, checkpoint.config, checkpoint.classes, device
        self.model = build_model(self.config.model, self.classes, pretrained=False)
        restore(self.model, checkpoint.part("model"), str(checkpoint.path))
        self.model.to(device).to(memory_format=torch.channels_last).eval()
        self._uploads = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._method = build_proposals(self.config.proposals.model_copy(update={"cache": None}))

    @property
    def paths(self) -> list[Path]:
        """The file, as those of several models that answer as one."""
        return [self.path]

    @property
    def heads(self) -> Mapping[str, Mapping[str, Any]]:
        """The options of each task's head, as the config has them."""
        return self.config.model.heads

    @property
    def takes_proposals(self) -> bool:
        """Whether there is a detector that was trained on proposals from outside; one with an rpn may have none but its own."""
        return "detection" in self.heads and not (isinstance(self._method, LearnedProposals) and self._method.trained is None)

    def speed_up(self, *, half: bool = False, compiled: bool = False, cuda_graphs: bool = False) -> None:
        """Predicts in 16 bits (float16 on CUDA, bfloat16 elsewhere), with a compiled trunk, or with one from CUDA graphs.

        The first two change results a little. Compiling happens at the first batch of each size, and takes a minute or so.

        Raises:
            ValueError: nothing here can compile, there is no GPU for graphs, or both were asked for.
        """
        if cuda_graphs and self.device.type != "cuda":
            raise ValueError(f"--cuda-graphs needs a GPU, and this model runs on {self.device.type}; leave it out")
        if cuda_graphs and compiled:
            raise ValueError("--compile and --cuda-graphs both take the trunk's place; leave one out")
        if half:
            self.model.precision = torch.float16 if self.device.type == "cuda" else torch.bfloat16
        if compiled:
            if self.device.type == "cpu" and shutil.which("c++") is None and shutil.which("g++") is None:
                raise ValueError("--compile on the CPU needs a C++ compiler (g++), and there is none on the PATH; leave it out")
            self.model.encode = torch.compile(self.model.encode)  # type: ignore[method-assign]
        if cuda_graphs:
            self.model.encode = GraphedEncoder(self.model.encode)  # type: ignore[method-assign]

    def look(self, test_time: TestTime) -> None:
        """Looks at each picture flipped, scaled and window by window; see `vistasks.heads.test_time`.

        A ``ValueError`` where windows are asked of a model without a class map.
        """
        if test_time.window is not None and "segmentation" not in self.model.heads:
            raise ValueError(f"{self.path}: windows are there for class maps, and this model only detects; leave out --window")
        self.model.look(test_time)

    def decode_with(self, decoding: Mapping[str, Any]) -> None:
        """Lets a ``region_classifier`` decode in another way than it was trained with; other heads have no such options.

        A calibration stays where ``decoding`` says nothing of it and is otherwise what it was fitted to. A ``ValueError`` names
        an option that there is not.
        """
        for head in self.model.heads.values():
            if isinstance(head, RegionClassifier):
                given = region_decoding(decoding)
                given.check(head.classes)
                own = replace(given, calibration=head.decoding.calibration)
                head.decoding = own if own == head.decoding and "calibration" not in decoding else given

    def predict_at(self, scale: float) -> None:
        """Sees pictures at this factor of the size that it was trained at, instead of the config's ``input.predict_scale``."""
        given = self.config.input.model_copy(update={"predict_scale": scale})
        self.config = self.config.model_copy(update={"input": given})

    def propose(self, image: np.ndarray) -> np.ndarray | None:
        """Region proposals (P, 4) of one picture (H, W, 3) uint8 RGB; None where the model has no detector."""
        if "detection" not in self.config.model.heads:
            return None
        return self._method(Sample(image_id="image", path="image", image=image))

    def make_batch(self, images: Sequence[np.ndarray], proposals: Sequence[np.ndarray] | None) -> Batch:
        """Pictures (H, W, 3) uint8 RGB and their proposals, in one batch on the model's device."""
        samples = [
            Sample(image_id=str(i), path=f"image {i}", image=image, proposals=None if proposals is None else proposals[i])
            for i, image in enumerate(images)
        ]
        wanted = self.config.input
        sizes = [input_size(s.size, min_side=wanted.min_side, max_side=wanted.max_side) for s in samples]
        scaled = [scale_sample(sample, scaled_size(size, wanted.predict_scale or 1.0)) for sample, size in zip(samples, sizes)]
        # without the masks that nothing is compared with
        classes = ClassNames(self.classes.detection)
        batch = collate(scaled, [s.size for s in samples], classes=classes, divisor=self.model.divisor)
        if self._uploads is None:
            return to_device(batch, self.device)
        # from pinned memory on a stream of its own, so that it does not wait for what the device computes
        with torch.cuda.stream(self._uploads):
            moved = to_device(replace(batch, images=batch.images.pin_memory()), self.device)
        self._uploads.synchronize()
        return moved


def labelled_batches(loaded: LoadedModel, config: Config, part: str) -> Batches:
    """The batches of a config's "train" or "val" part as a trained model takes them, with their samples; not augmented."""
    config = config.model_copy(update={"model": loaded.config.model, "input": loaded.config.input})
    pipeline = build_pipeline(config, build_dataset(config, part, loaded.classes), training=False)
    _, found = build_loader(config, pipeline, classes=loaded.classes, divisor=loaded.model.divisor, training=False)
    return found


def load_model(path: str | Path, device: str = "auto") -> LoadedModel:
    """A trained model from a checkpoint or a run folder, on "cpu", "cuda" or whichever is there ("auto")."""
    return LoadedModel(read_checkpoint(path), pick_device(device))
