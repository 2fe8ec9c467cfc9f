"""Checkpoints made to do harm, and a process that loads them one after the other under an audit hook.

``python -m tests.forged FOLDER --every N --first I`` tries every N-th of all forgeries and prints what happened
as JSON; see `test_forged`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import resource
import signal
import struct
import sys
import time
import traceback
import types
import typing
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from safetensors import safe_open

import vistasks
from tests.tiny_data import DETECTION, config_values
from vistasks.checkpoint import CHECKSUM, HEADER, checksum, save_checkpoint
from vistasks.config import Config, parse_config
from vistasks.models.building import build_model
from vistasks.registry import BACKBONES, HEADS, NECKS, PROPOSALS, WEIGHTINGS, Registry
from vistasks.types import ClassNames

CLASSES = ClassNames(("red", "blue"), ("background", "red", "blue"))
GIGABYTE = 1 << 30
SECONDS = 60  # of one forgery, on a machine with much else to do
STARTED = frozenset({"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork",
                     "os.forkpty", "pty.spawn", "os.startfile"})  # fmt: skip
CONNECTED = frozenset(
    {"socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto", "urllib.Request"}
)
FILE_EVENTS = frozenset({"open", "os.listdir", "os.scandir", "os.mkdir", "os.remove", "os.rename", "os.truncate",
                         "os.chmod", "os.link", "os.symlink", "os.rmdir", "shutil.rmtree", "glob.glob"})  # fmt: skip
TOLD = (ValueError, OSError, ImportError)  # what the command line shows as one line

BASES: dict[str, dict[str, Any]] = {
    "align": {"detection": DETECTION, "segmentation": {"name": "segnet"}},
    "warp": {"detection": {"name": "region_classifier", "roi": "warp", "warp": {"crop": 64, "context": 4}, "hidden": [8]}},
    "rpn": {"detection": DETECTION | {"rpn": {"stride": [8]}, "refine": {"foreground_iou": [0.6]}}},
    "skip_decoder": {"segmentation": {"name": "skip_decoder", "widths": [8]}},
    "fcn16s": {"segmentation": {"name": "fcn16s", "hidden": 8}},
    "aspp": {"segmentation": {"name": "aspp", "channels": 8, "skip_channels": 8}},
    "lr_aspp": {"segmentation": {"name": "lr_aspp", "channels": 8}},
}  # fmt: skip


@dataclass(frozen=True)
class Canary:
    """Files that nothing may touch, and the address at which nobody may call."""

    folder: Path

    def values(self) -> list[Any]:
        """What is written to each key in turn."""
        program, secret, weights = (
            str(self.folder / name) for name in ("run.sh", "secret.json", "w.safetensors")
        )
        peer = {"name": "peer", "python": program}
        return [
            None, True, -1, 0, 3, 200, 200_000, 10**12, 10**400, -0.5, 1e-3, 1e308, float("nan"), "", "x", "200000",
            program, secret, weights, str(self.folder), "http://127.0.0.1:9/x", [], [0], [2_000_000, 2_000_000],
            [1e-3] * 3, ["x"], {}, {"x": 1}, peer, {"name": "union", "methods": [peer]},
            {"name": "file", "path": secret}, {"name": "rpn", "weights": weights}, _nested(200),
            [1] * 100_000,
        ]  # fmt: skip

    def write(self) -> None:
        """Makes them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "run.sh").write_text(f"#!/bin/sh\ntouch {self.folder}/started\n")
        (self.folder / "run.sh").chmod(0o755)
        (self.folder / "secret.json").write_text('[{"secret": "swordfish"}]')
        (self.folder / "w.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")


def _nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def keys_of_config() -> Iterator[str]:
    """Every key of the schema, sections too."""

    def within(section: type[BaseModel], prefix: str) -> Iterator[str]:
        for name, info in section.model_fields.items():
            yield f"{prefix}{name}"
            for kind in (info.annotation, *typing.get_args(info.annotation)):
                if isinstance(kind, type) and issubclass(kind, BaseModel):
                    yield from within(kind, f"{prefix}{name}.")

    yield from within(Config, "")


def options_of(part: Callable[..., Any]) -> Iterator[str]:
    """Every option of a part, those within groups of options too; taken from its signature."""
    function = getattr(part, "func", part)
    hints = typing.get_type_hints(function.__init__ if isinstance(function, type) else function)
    given = {"return", "trunk", "classes", "in_channels", "tasks", *getattr(part, "keywords", {})}
    for name, kind in hints.items():
        if name in given:
            continue
        yield name
        kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
        for group in kinds:
            if dataclasses.is_dataclass(group):
                yield from (f"{name}.{member.name}" for member in dataclasses.fields(group))


def part_keys() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(base, key, the part to put there first) of every option of every registered part."""
    places: list[tuple[Registry, str]] = [
        (BACKBONES, "model.backbone"), (NECKS, "model.neck"), (PROPOSALS, "proposals.method"),
        (WEIGHTINGS, "model.weighting"),
    ]  # fmt: skip
    for registry, place in places:
        for name in registry:
            kept = {"name": name, "width": 0.1} if name == "vgg11_bn" else {"name": name}
            for option in options_of(registry[name]):
                yield "align", f"{place}.{option}", {place: kept}
    for option in options_of(PROPOSALS["peer"]):
        yield (
            "align",
            f"proposals.method.methods.0.{option}",
            {"proposals.method": {"name": "union", "methods": [{"name": "peer"}]}},
        )
    of = {"align": ("detection", "segmentation"), "warp": ("detection",), "rpn": ("detection",)}
    for base, heads in BASES.items():
        for task in of.get(base, ("segmentation",)):
            for option in options_of(HEADS[heads[task]["name"]]):
                yield base, f"model.heads.{task}.{option}", {}


@dataclass(frozen=True)
class Forgery:
    """A base and the keys that are written over."""

    base: str
    changes: Mapping[str, Any]

    def __str__(self) -> str:
        shown = ", ".join(f"{key}={repr(value)[:60]}" for key, value in self.changes.items())
        return f"{self.base}: {shown}"


def forgeries(canary: Canary) -> list[Forgery]:
    """All of them, in a fixed order."""
    values = canary.values()
    found = [Forgery("align", {key: value}) for key in keys_of_config() for value in values]
    found += [Forgery(base, {**first, key: value}) for base, key, first in part_keys() for value in values]
    return found


def put(values: dict[str, Any], key: str, value: Any) -> None:
    """Writes ``value`` at a dotted key; what stands in the way is replaced."""
    name, _, rest = key.partition(".")
    at: Any = int(name) if isinstance(values, list) else name
    if not rest:
        values[at] = value
        return
    inner = values[at] if isinstance(values, list) else values.get(name)
    if not isinstance(inner, dict) and not (isinstance(inner, list) and rest[0].isdigit()):
        values[at] = inner = {}
    put(inner, rest, value)


class Forge:
    """Good checkpoints of every base, and forged copies of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bases: dict[str, tuple[dict[str, Any], dict[str, torch.Tensor], bytes]] = {}

    def base(self, name: str) -> tuple[dict[str, Any], dict[str, torch.Tensor], bytes]:
        """Its header, tensors, and the bytes after the header."""
        if name not in self.bases:
            values = config_values(self.folder / "run", {"format": "voc", "root": "x"}, "detection")
            values["model"]["heads"] = BASES[name]
            config, path = parse_config(values), self.folder / f"{name}.safetensors"
            torch.manual_seed(0)
            model = build_model(config.model, CLASSES)
            tensors = {f"model.{key}": tensor for key, tensor in model.state_dict().items()}
            save_checkpoint(path, tensors, config=config, classes=CLASSES, state={"step": 0})
            with safe_open(path, framework="pt") as file:
                header = json.loads(file.metadata()[HEADER])
            content = path.read_bytes()
            self.bases[name] = header, tensors, content
        return self.bases[name]

    def write(self, forgery: Forgery, path: Path) -> Path:
        """The forged copy, with a checksum that fits."""
        header, tensors, content = self.base(forgery.base)
        header = deepcopy(header)
        for key, value in forgery.changes.items():
            put(header["config"], key, value)
        return write_header(path, json.dumps(header), tensors, content)


def write_header(path: Path, text: str, tensors: Mapping[str, torch.Tensor], content: bytes) -> Path:
    """A checkpoint with another header of ours, and its checksum."""
    (length,) = struct.unpack("<Q", content[:8])
    outer = json.loads(content[8 : 8 + length])
    outer["__metadata__"] = {HEADER: text, CHECKSUM: checksum(text, tensors)}
    head = json.dumps(outer).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + content[8 + length :])
    return path


@dataclass
class Watch:
    """What happens in this process while it is on."""

    allowed: tuple[str, ...]
    on: bool = False
    seen: list[str] = field(default_factory=list)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """The audit hook."""
        if not self.on:
            return
        if event in STARTED or event in CONNECTED:
            self.seen.append(f"{event} {arguments!r}"[:200])
        elif event in FILE_EVENTS and arguments and isinstance(arguments[0], str | bytes | os.PathLike):
            name = os.path.realpath(os.fsdecode(arguments[0]))
            if not name.startswith(self.allowed):
                self.seen.append(f"{event} {name}"[:200])


def try_one(path: Path, image: np.ndarray) -> str:
    """Loads and predicts, with what the command shows; what happened, in a word."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt("hangs")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            predictor = vistasks.load(path, device="cpu")
            predictor.predict(image)
        return "predicted"
    except TOLD as error:
        told = str(error)
        assert "swordfish" not in told, "what a local file holds is told"
        return "told"
    finally:
        signal.alarm(0)


def run(folder: Path, *, every: int, first: int, limit: int) -> dict[str, Any]:
    """Tries forgeries; what happened, counted."""
    canary = Canary(folder / "canary")
    canary.write()
    forge, image = Forge(folder), np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    chosen = forgeries(canary)[first::every][:limit]
    for name in BASES:
        good = forge.write(Forgery(name, {}), folder / "forged.safetensors")
        assert try_one(good, image) == "predicted", name  # which also imports and compiles what is needed
    roots = (str(folder / "forged.safetensors"), sys.prefix, sys.base_prefix, str(Path(vistasks.__path__[0]).parent),
             "/usr/lib", "/usr/share", "/lib", "/proc", "/sys", "/dev/null", "/dev/urandom")  # fmt: skip
    watch = Watch(tuple(os.path.realpath(root) for root in roots))
    sys.addaudithook(watch)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + 3 * GIGABYTE,) * 2)
    before, longest, words = _peak(), (0.0, ""), Counter[str]()
    wrong: list[str] = []
    for forgery in chosen:
        path = forge.write(forgery, folder / "forged.safetensors")
        watch.seen.clear()
        start = time.monotonic()
        watch.on = True
        try:
            words[try_one(path, image)] += 1
        except BaseException:
            words["traceback"] += 1
            wrong.append(f"{forgery}\n{traceback.format_exc(limit=-3)[-600:]}")
        finally:
            watch.on = False
        longest = max(longest, (time.monotonic() - start, str(forgery)))
        wrong += [f"{forgery}: {event}" for event in watch.seen]
        words["events"] += len(watch.seen)
    return {
        "tried": len(chosen), **words, "programs": int((canary.folder / "started").exists()), "wrong": wrong,
        "megabytes": round((_peak() - before) / 1e6), "longest": [round(longest[0], 2), longest[1]],
    }  # fmt: skip


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--limit", type=int, default=10**9)
    parsed = parser.parse_args()
    parsed.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    print(
        json.dumps(
            run(parsed.folder.resolve(), every=parsed.every, first=parsed.first, limit=parsed.limit), indent=1
        )
    )
