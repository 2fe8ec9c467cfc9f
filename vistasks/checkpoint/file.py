"""Save and load: safetensors with a JSON header, nothing pickled.

A checkpoint is one file: tensors under ``model.`` (the weights that predict) and, in ``last``, also ``raw.``
(the weights that are trained, where the averaged ones predict) and ``optimizer.``; its header carries the
config, the class names and the state of the run, and the checksum of all that. Beside it lies the same header
as ``NAME.json`` for people."""

from __future__ import annotations

import errno
import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vistasks.checkpoint.foreign import checked_header, decided
from vistasks.config import Config, to_json
from vistasks.system.atomic import replacing, write_text
from vistasks.system.version import VERSION
from vistasks.types import ClassNames

HEADER, CHECKSUM = "vistasks", "sha256"


def save_checkpoint(
    path: Path, tensors: Mapping[str, Tensor], *, config: Config, classes: ClassNames, state: Any
) -> None:
    """Writes ``path`` (.safetensors) and the JSON beside it: to a temporary name, synced, then renamed.

    An ``OSError`` where that fails, as on a full disk; what was there before is then still there.
    """
    header = {
        "version": VERSION,
        "classes": classes.by_task(),
        "config": to_json(config),
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
        raise OSError(
            errno.ENOSPC if full else errno.EIO, "No space left on device" if full else str(error), str(path)
        ) from None
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
    """What a checkpoint file holds.

    Attributes:
        config: what of its config counts, see `vistasks.checkpoint.foreign`; build from this one.
        written: its config as it stands there, to be shown, compared and copied.
        withheld: what it wants to decide and may not, by key.
    """

    path: Path
    config: Config
    classes: ClassNames
    state: dict[str, Any]
    tensors: dict[str, Tensor]
    written: Config
    withheld: Mapping[str, Any] = field(default_factory=dict)

    @property
    def trusted(self) -> bool:
        """Whether its whole config counts."""
        return self.config is self.written

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under ``prefix.``, without it."""
        return {
            name[len(prefix) + 1 :]: t for name, t in self.tensors.items() if name.startswith(f"{prefix}.")
        }


def free_target(output: str | Path) -> Path:
    """``best.safetensors`` in a folder for a checkpoint that is made of another; a ``ValueError`` where there
    is one.
    """
    target = Path(output) / "best.safetensors"
    if target.exists():
        raise ValueError(f"{target} already exists; choose another folder")
    return target


def save_made_of(
    source: Checkpoint, target: Path, model: Mapping[str, Tensor], config: Config, *, how: str
) -> None:
    """Writes a checkpoint with the weights ``model`` and no state but from which file it was made, and
    ``how``.
    """
    named = {f"model.{name}": tensor for name, tensor in model.items()}
    save_checkpoint(
        target, named, config=config, classes=source.classes, state={f"{how}_from": str(source.path)}
    )


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint file itself: a run folder stands for its ``best.safetensors``, or else its ``last``."""
    path = Path(path)
    if path.is_dir():
        for name in ("best.safetensors", "last.safetensors"):
            if (path / name).is_file():
                return path / name
        raise ValueError(
            f"{path.resolve()}: no best.safetensors or last.safetensors in this folder; is it a run folder?"
        )
    if not path.is_file():
        raise ValueError(f"{path.resolve()}: no such checkpoint or run folder")
    return path


def read_checkpoint(path: str | Path, *, trust: bool = False) -> Checkpoint:
    """Reads a checkpoint or a run folder's best one. A file that is damaged or not ours is a ``ValueError``
    that names it.

    Args:
        path: the checkpoint or the run folder.
        trust: its whole config counts, with the files, programs and sizes that it names.
    """
    path = find_checkpoint(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            text = metadata.get(HEADER, "null")
            header = json.loads(text)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: not a readable checkpoint (.safetensors written by vistasks): {error}"
        ) from None
    if metadata.get(CHECKSUM, checksum(text, tensors)) != checksum(text, tensors):
        raise ValueError(f"{path}: corrupt: SHA-256 mismatch")
    if header is None:
        raise ValueError(
            f"{path}: safetensors without the vistasks header. Plain weights of a backbone go into the config: "
            f"model.backbone.weights={path}"
        )
    classes, written, state = checked_header(header, str(path))
    if CHECKSUM not in metadata:
        warnings.warn(f"{path}: no checksum, so corruption cannot be detected", stacklevel=2)
    if trust:
        return Checkpoint(path, written, classes, state, tensors, written)
    config, withheld = decided(written, str(path))
    return Checkpoint(path, config, classes, state, tensors, written, withheld)


def state_of(path: Path) -> dict[str, Any]:
    """The state in a checkpoint's header, without reading its tensors; the errors of `safe_open` and of
    missing keys.
    """
    with safe_open(path, framework="pt") as file:
        state: dict[str, Any] = json.loads(file.metadata()[HEADER])["state"]
    return state
