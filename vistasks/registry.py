"""A table from names to parts, one per seam: backbones, necks, heads, datasets, proposals, ..."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any, TypeVar, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

# For an option that is a group of options, a pydantic dataclass: without it a misspelt key in the group would
# pass unseen
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

Part = TypeVar("Part", bound=Callable[..., object])


def nearest(name: str, known: list[str]) -> str:
    """`` Did you mean 'resnet18'?`` for a misspelt name, or an empty string."""
    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean '{matches[0]}'?" if matches else ""


class Registry:
    """Names of one kind of part.

    The parts register themselves when their modules are imported, which the table does when it is first read:
    whoever names a part by a string (a config, a command line) depends on no room.

    Args:
        kind: what the parts are, for messages.
        rooms: the modules whose import fills the table.

    >>> BACKBONES = Registry("backbone")
    >>> @BACKBONES.register("lenet")
    ... def lenet(): ...
    """

    def __init__(self, kind: str, *rooms: str) -> None:
        self.kind = kind
        self._rooms = rooms
        self._parts: dict[str, Callable[..., object]] = {}

    def register(self, name: str) -> Callable[[Part], Part]:
        """Decorator: puts the part into the table and returns it unchanged. A name that is taken is a
        ValueError.
        """

        def add(part: Part) -> Part:
            if name in self._parts:
                raise ValueError(f"the {self.kind} '{name}' is registered already, by {self._parts[name]!r}")
            self._parts[name] = part
            return part

        return add

    def _filled(self) -> dict[str, Callable[..., object]]:
        rooms, self._rooms = self._rooms, ()  # first, because a room may read the table while it is imported
        for room in rooms:
            importlib.import_module(room)
        return self._parts

    def __getitem__(self, name: str) -> Callable[..., object]:
        parts = self._filled()
        if name not in parts:
            known = sorted(parts)
            raise ValueError(f"unknown {self.kind} '{name}'.{nearest(name, known)} Known: {', '.join(known)}")
        return parts[name]

    def __contains__(self, name: object) -> bool:
        return name in self._filled()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._filled()))

    def __len__(self) -> int:
        return len(self._filled())

    def build(
        self,
        options: Mapping[str, Any],
        *,
        where: str,
        key: str = "name",
        given: Mapping[str, Any] | None = None,
    ) -> Any:
        """Calls the part that ``options[key]`` names with the other options as keywords.

        The part's signature is the schema: an unknown, missing or ill-typed option is a ``ValueError`` that
        names its full path under ``where`` (for example ``model.backbone``), what was expected and the
        nearest name. ``given`` are keywords that the program passes and a config must not."""
        given = dict(given or {})
        values = self.check(options, where=where, key=key, given=given)
        return self._parts[options[key]](**values, **given)

    def check(
        self, options: Mapping[str, Any], *, where: str, key: str = "name", given: Collection[str] = ()
    ) -> dict[str, Any]:
        """The options that the part takes, validated and converted; the errors of `build`, without a call.

        ``given``: the names of the keywords that the program will pass."""
        if key not in options:
            raise ValueError(f"{where}.{key} is missing; expected one of: {', '.join(self)}")
        name: Any = options[key]
        if not isinstance(name, str) or name not in self:
            guess = nearest(str(name), list(self))
            raise ValueError(f"{where}.{key}: unknown {self.kind} '{name}'.{guess} Known: {', '.join(self)}")
        values = {option: value for option, value in options.items() if option != key}
        return checked_options(self._parts[name], values, where=where, given=given)


def checked_options(
    part: Callable[..., object], values: Mapping[str, Any], *, where: str, given: Collection[str]
) -> dict[str, Any]:
    """``values`` validated and converted by the annotations of ``part``'s keywords; errors as in
    `Registry.build`.
    """
    if isinstance(part, partial):
        bound: partial[object] = part
        part, given = bound.func, {*bound.keywords, *given}
    parameters = {name: p for name, p in inspect.signature(part).parameters.items() if name not in given}
    hints = get_type_hints(part.__init__ if inspect.isclass(part) else part, include_extras=True)
    problems = [
        f"{where}.{name}: unknown option.{nearest(name, list(parameters))} Known: {', '.join(parameters) or 'none'}"
        for name in values
        if name not in parameters
    ]
    problems += [
        f"{where}.{name} is missing"
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and name not in values
    ]
    converted = {}
    for name in [name for name in values if name in parameters]:
        try:
            converted[name] = TypeAdapter(hints.get(name, Any)).validate_python(values[name])
        except ValidationError as error:
            problems += [_explain(e, f"{where}.{name}", hints.get(name, Any)) for e in error.errors()]
    if problems:
        raise ValueError("\n".join(problems))
    return converted


def _explain(error: Any, where: str, hint: Any) -> str:
    path = ".".join([where, *map(str, error["loc"])])
    if error["type"] == "unexpected_keyword_argument":  # in a group of options
        known = (
            [field.name for field in fields(hint)] if is_dataclass(hint) and len(error["loc"]) == 1 else []
        )
        guess = nearest(str(error["loc"][-1]), known)
        return f"{path}: unknown option.{guess}" + (f" Known: {', '.join(known)}" if known else "")
    return f"{path}: {error['msg']}; received {shown(error['input'])}"


def shown(value: object) -> str:
    """What was received, for a message: its begin where it is long."""
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}..."


# what numbers that make no layer end in; the last four are PyTorch's and Python's own
_OF_OPTIONS = (ValueError, RuntimeError, TypeError, OverflowError, ZeroDivisionError)


def build_part(
    registry: Registry, options: Mapping[str, Any], *, where: str, given: Mapping[str, Any] | None = None
) -> Any:
    """`Registry.build`; what the part itself says about its options is prefixed with their path as well."""
    try:
        return registry.build(options, where=where, given=given)
    except _OF_OPTIONS as error:
        if type(error) not in _OF_OPTIONS:  # a kind of its own, which its caller explains
            raise
        text = str(error) if isinstance(error, ValueError) else str(error).partition("\n")[0]
        raise ValueError(text if text.startswith(f"{where}.") else f"{where}: {text}") from error


TASKS = Registry("task", "vistasks.tasks")
BACKBONES = Registry("backbone", "vistasks.backbones")
NECKS = Registry("neck", "vistasks.necks")
HEADS = Registry("head", "vistasks.heads")
DATASETS = Registry("dataset format", "vistasks.datasets")
PROPOSALS = Registry("proposal method", "vistasks.proposals", "vistasks.models.trained_proposals")
WEIGHTINGS = Registry("loss weighting", "vistasks.models.weighting")
SAMPLINGS = Registry("sampling", "vistasks.loading.sampling")
