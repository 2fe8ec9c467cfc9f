"""What a checkpoint may decide.

A checkpoint may come from anybody. Its config says how the model is built, and no more: which files are read,
which programs run and how much of the machine is taken is for the config and the command line of whoever
uses it. `MAY_DECIDE` is the whole list; everything else of the config is there to be read by people.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from vistasks.config import Config, DataConfig, InputConfig, ProposalsConfig, parse_config
from vistasks.types import ClassNames

MAY_DECIDE = (
    "seed",
    "input.min_side",
    "input.max_side",
    "input.predict_scale",
    "model",  # without what FILES names
    "proposals.method",  # where it is one of METHODS, or a union of them; without what FILES names
)
METHODS = ("selective_search", "grid", "rpn", "ground_truth_jitter", "union")
# options of parts that name a file, a program or an address, and the values that name none
FILES: Mapping[str, tuple[Any, ...]] = {"weights": (None, "imagenet-offline"), "path": (), "python": ()}
NO_EFFECT = ("threads",)  # options that change no result; they keep their defaults

# numbers that no tensor of the file bounds, with the largest that is taken from it
LARGEST: Mapping[str, float] = {
    "input.min_side": 16_384,
    "input.max_side": 16_384,
    "model.heads.*.align.size": 64,
    "model.heads.*.warp.crop": 1024,
    "model.heads.*.rpn.before_nms": 20_000,
    "model.heads.*.rpn.keep": 20_000,
    "model.heads.*.refine.keep": 20_000,
    "model.heads.*.decoding.max_detections": 20_000,
    "model.heads.*.decoding.passes": 10,
    "model.heads.*.rates.*": 1000,
    "proposals.method.*max_boxes": 20_000,
}
MOST_CLASSES = 50_000
MOST_PROPOSALS = 20_000  # of an image
_MOST_VALUES, _MOST_LEVELS, _LONGEST_LIST = 1_000_000, 30, 1000
TRUST = "if you trust it, say so: --trust, or trust=True in vistasks.load"


def checked_header(header: Any, where: str) -> tuple[ClassNames, Config, dict[str, Any]]:
    """Class names, config and state of a checkpoint's header, whoever wrote it; a ``ValueError`` says what is
    wrong.
    """
    if sum(1 for _ in _values(header)) >= _MOST_VALUES:
        raise ValueError(
            f"{where}: its header has more than {_MOST_VALUES:,} values, or {_MOST_LEVELS} levels"
        )
    try:
        classes = ClassNames.of_tasks(header["classes"])
        values, state = header["config"], dict(header["state"])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ValueError(
            f"{where}: its vistasks header is incomplete; was it written by another version?"
        ) from None
    for names in classes.by_task().values():
        if not all(isinstance(name, str) for name in names):
            raise ValueError(f"{where}: its class names are not all text")
        if len(names) > MOST_CLASSES:
            raise ValueError(f"{where}: it has {len(names):,} classes, expected at most {MOST_CLASSES:,}")
    return classes, parse_config(values, where=lambda keys: f"{where}, its config"), state


def _values(node: Any) -> Iterator[Any]:
    """Every value within; no end of them where they lie too deep."""
    level = [node]
    for _ in range(_MOST_LEVELS):
        yield from level
        parts = [node for node in level if isinstance(node, Mapping | list)]
        level = [value for part in parts for value in (part.values() if isinstance(part, Mapping) else part)]
        if not level:
            return
    yield from range(_MOST_VALUES)


def decided(written: Config, where: str) -> tuple[Config, dict[str, Any]]:
    """The config as far as a checkpoint may decide it, and what it may not, by key.

    Args:
        written: the checkpoint's config.
        where: the file, for messages.

    Raises:
        ValueError: a number or a list that would take the machine.
    """
    withheld: dict[str, Any] = {}
    backbone = _without_files(written.model.backbone, "model.backbone", withheld)
    method = _method(written.proposals.method, "proposals.method", withheld)
    if any(key.startswith("proposals.") for key in withheld):
        method = ProposalsConfig().method  # which nobody builds, see `refuse_withheld`
    given = {name: getattr(written.input, name) for name in ("min_side", "max_side", "predict_scale")}
    config = Config(
        output="",
        data=DataConfig(format="", root=""),
        seed=written.seed,
        input=InputConfig(**given),
        model=written.model.model_copy(update={"backbone": backbone}),
        proposals=ProposalsConfig(method=method, cache=None),
    )
    for section in ("input", "model", "proposals"):
        _check_bounds(getattr(config, section).model_dump(), section, where)
    return config, withheld


def _without_files(options: Mapping[str, Any], key: str, withheld: dict[str, Any]) -> dict[str, Any]:
    named = {k: v for k, v in options.items() if k in FILES and v not in FILES[k]}
    withheld.update({f"{key}.{name}": value for name, value in named.items()})
    return {k: v for k, v in options.items() if k not in named and k not in NO_EFFECT}


def _method(options: Mapping[str, Any], key: str, withheld: dict[str, Any]) -> dict[str, Any]:
    if options.get("name") not in METHODS:
        withheld[f"{key}.name"] = options.get("name")
    own = _without_files(options, key, withheld)
    members = own.get("methods")
    if isinstance(members, list):
        own["methods"] = [
            _method(member, f"{key}.methods.{index}", withheld) if isinstance(member, Mapping) else member
            for index, member in enumerate(members)
        ]
    return own


def refuse_withheld(withheld: Mapping[str, Any], section: str, where: str) -> None:
    """A ``ValueError`` that names what a checkpoint wants to decide of ``section`` and may not."""
    wanted = [f"{key}={value!r}"[:200] for key, value in withheld.items() if key.startswith(section)]
    if wanted:
        raise ValueError(
            f"{where}: its config says {', '.join(wanted)}. A checkpoint does not decide which files are read and "
            f"which programs run; {TRUST}"
        )


def _check_bounds(node: Any, key: str, where: str) -> None:
    if isinstance(node, Mapping | list):
        items = list(node.items() if isinstance(node, Mapping) else enumerate(node))
        if len(items) > _LONGEST_LIST and not key.endswith("class_weights") and "calibration" not in key:
            raise ValueError(f"{where}: its config has {len(items):,} values in {key}; {TRUST}")
        for name, value in items:
            _check_bounds(value, f"{key}.{name}", where)
        return
    largest = min((n for pattern, n in LARGEST.items() if fnmatchcase(key, pattern)), default=None)
    if largest is None or node is None:
        return
    with contextlib.suppress(TypeError, ValueError, OverflowError):  # a text is read as a number by the part
        if float(node) <= largest:
            return
    raise ValueError(f"{where}: its config says {key}={node!r}, expected at most {largest:,}; {TRUST}"[:500])
