"""Config files: YAML in and out, ``key.path=value`` overrides, and errors that name file, line and key."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from vistasks.config.parts import part_problems
from vistasks.config.schema import Config
from vistasks.registry import nearest, shown


class _Loader(yaml.SafeLoader):
    """YAML where ``1e-3`` is a number (PyYAML follows YAML 1.1 and reads text) and a repeated key is an
    error.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        written = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        keys = [self.construct_object(key, deep=True) for key in written]  # type: ignore[no-untyped-call]
        for index, (key_node, key) in enumerate(zip(written, keys)):
            if key in keys[:index]:
                raise yaml.MarkedYAMLError(problem=f"duplicate key '{key}'", problem_mark=key_node.start_mark)
        return super().construct_mapping(node, deep)


class Dumper(yaml.SafeDumper):
    """Quotes a text such as ``1e-3``, which `_Loader` would read as a number."""


_EXPONENT = re.compile(r"^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$")
for _kind in (_Loader, Dumper):
    _kind.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


_MOST_NODES = 1_000_000
# a date such as 2024-99-99 is a ValueError, a list within 1,000 others a RecursionError
_UNREADABLE = (yaml.YAMLError, ValueError, RecursionError, OverflowError)

Where = Callable[[tuple[Any, ...]], str]  # key path -> where its value was written


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads, overrides and checks a config file.

    Raises a ``ValueError`` that lists every problem with file, line, full key path, what was expected and
    what came."""
    return checked_config(*read_config(path, overrides))


def checked_config(values: Mapping[str, Any], where: Where) -> Config:
    """As `parse_config`, with the names and options of every part checked against the part's signature."""
    config = parse_config(values, where=where)
    if problems := part_problems(config):
        raise ValueError("\n".join(f"{where(keys)}: {problem}" for keys, problem in problems))
    return config


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], Where]:
    """The plain values of a config file with its overrides, and where each was written; nothing is checked
    yet.
    """
    path = Path(path)
    if not path.is_file():
        beside = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise ValueError(f"{path}: no such config file.{nearest(path.name, beside)}")
    values, lines = read_yaml(path)
    overridden: dict[tuple[Any, ...], str] = {}
    for override in overrides:
        keys = apply_override(values, override)
        # what stood under the key before is gone, and so are the places where it was written
        lines = {k: line for k, line in lines.items() if k[: len(keys)] != keys}
        overridden = {k: text for k, text in overridden.items() if k[: len(keys)] != keys} | {keys: override}

    def where(keys: tuple[Any, ...]) -> str:
        for length in range(len(keys), 0, -1):
            if keys[:length] in overridden:
                return f"command line, {overridden[keys[:length]]}"
            if keys[:length] in lines:
                return f"{path}:{lines[keys[:length]]}"
        return str(path)

    return values, where


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[tuple[Any, ...], int]]:
    """The values of a YAML file, and the line of each key path."""
    try:
        values, node = _parsed(path.read_text(encoding="utf-8"))
        lines = dict(_key_lines(node, ()))
    except yaml.MarkedYAMLError as error:
        mark, what = (
            error.problem_mark,
            f"{error.context}: {error.problem}" if error.context else error.problem,
        )
        raise ValueError(f"{path}:{mark.line + 1 if mark else 1}: not readable as YAML: {what}") from None
    except _UNREADABLE as error:
        raise ValueError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(
            f"{path}: expected keys and values (output, data, model, ...), received {type(values).__name__}"
        )
    return values, lines


def _parsed(text: str) -> tuple[Any, yaml.Node | None]:
    """A YAML text's value, and the nodes that it was made from, once they are known to be few."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, None
        size = _expanded(node, {})
        if size > _MOST_NODES:
            raise ValueError(f"its anchors (&name, *name) expand to more than {_MOST_NODES:,} values")
        return loader.construct_document(node), node  # type: ignore[no-untyped-call]
    finally:
        loader.dispose()  # type: ignore[no-untyped-call]


def _expanded(node: yaml.Node, known: dict[int, int]) -> int:
    """How many nodes there are where each alias is written out; infinitely many are a ``ValueError``."""
    if id(node) in known:
        if not known[id(node)]:
            raise ValueError("an anchor (&name) contains itself")
        return known[id(node)]
    known[id(node)] = 0  # not known yet
    inner: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        inner = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        inner = node.value
    known[id(node)] = 1 + sum(_expanded(part, known) for part in inner)
    return known[id(node)]


def parse_config(values: Mapping[str, Any], *, where: Where = lambda keys: "config") -> Config:
    """A checked `Config` from plain values; ``where(keys)`` says where a key was written, for the
    messages.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ValueError("\n".join(_explain(e, where) for e in error.errors())) from None


def apply_override(values: dict[str, Any], override: str) -> tuple[Any, ...]:
    """Puts ``a.b=value`` (value in YAML; a number picks a list's entry) into nested values; returns the key
    path.
    """
    dotted, equals, text = override.partition("=")
    if not equals or not all(dotted.split(".")):
        raise ValueError(f"command line: expected key.path=value, received '{override}'")
    try:
        value, _ = _parsed(text)
    except _UNREADABLE as error:
        why = "" if isinstance(error, yaml.YAMLError) else f": {error}"
        raise ValueError(f"command line, {override[:300]}: the value is not readable as YAML{why}") from None
    keys: list[Any] = dotted.split(".")
    node: Any = values
    for depth, key in enumerate(keys):
        if isinstance(node, list):
            if not key.isdigit() or int(key) >= len(node):
                place, known = (
                    ".".join(map(str, keys[:depth])),
                    f"must be 0 to {len(node) - 1}" if node else "is not in it",
                )
                raise ValueError(
                    f"command line, {override}: {place} is a list of {len(node)}; '{key}' {known}"
                )
            keys[depth] = key = int(key)
        elif not isinstance(node, dict):
            raise ValueError(
                f"command line, {override}: {'.'.join(map(str, keys[:depth]))} is a single value and has no key '{key}'"
            )
        elif key not in node and key.isdigit() and int(key) in node:  # such as data.mask_values.11=ignore
            keys[depth] = key = int(key)
        if depth == len(keys) - 1:
            node[key] = value
        elif isinstance(node, list):
            node = node[key]
        else:
            if node.get(key) is None:
                node[key] = {}
            node = node[key]
    return tuple(keys)


def _key_lines(node: yaml.Node | None, keys: tuple[Any, ...]) -> list[tuple[tuple[Any, ...], int]]:
    found = []
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            found.append(((*keys, key.value), key.start_mark.line + 1))
            found += _key_lines(value, (*keys, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            found.append(((*keys, index), value.start_mark.line + 1))
            found += _key_lines(value, (*keys, index))
    return found


def _explain(error: Any, where: Any) -> str:
    keys = tuple(error["loc"])
    place = f"{where(keys)}: {'.'.join(str(key) for key in keys)}"
    if error["type"] == "extra_forbidden":
        known = list(_section_at(keys[:-1]).model_fields)
        return f"{place}: unknown key.{nearest(str(keys[-1]), known)} Known: {', '.join(known)}"
    if error["type"] == "missing":
        return f"{place} is missing"
    if error["type"] == "value_error":  # of our own checks, which say what was received
        return f"{place}: {error['ctx']['error']}" if keys else f"{where(keys)}: {error['ctx']['error']}"
    return f"{place}: {error['msg']}; received {shown(error['input'])}"


def _section_at(keys: tuple[Any, ...]) -> type[BaseModel]:
    section: type[BaseModel] = Config
    for key in keys:
        if not isinstance(key, int):  # an entry of a list
            section = _section_of(section.model_fields[key].annotation) or section
    return section


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """The section within an annotation such as ``FoldsConfig | None`` or ``list[StageConfig]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for kind in get_args(annotation) if (found := _section_of(kind))), None)


def to_json(config: Config) -> dict[str, Any]:
    """The whole config in JSON's own types; unlike pydantic's it takes any text that a class may be called."""
    plain: dict[str, Any] = json.loads(json.dumps(config.model_dump()))
    return plain


def to_yaml(config: Config) -> str:
    """The whole config with every default written out; `load_config` reads it back to an equal config."""
    return yaml.dump(config.model_dump(), Dumper=Dumper, sort_keys=False, width=130, allow_unicode=True)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by their dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
