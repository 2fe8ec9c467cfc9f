"""The resolved config for people: every value, defaults included, and where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from vistasks.config.files import Dumper, Where
from vistasks.config.schema import Config


def to_annotated_yaml(config: Config, values: Mapping[str, Any], where: Where) -> str:
    """`vistasks.config.files.to_yaml` with a comment behind each value: ``file:line``, ``command line`` or
    ``default``.

    Args:
        config: the checked config.
        values, where: what `vistasks.config.files.read_config` gave for it.
    """
    lines: list[tuple[str, str]] = []
    _annotate(config.model_dump(), (), values, where, lines)
    width = min(70, max(len(text) for text, _ in lines) + 2)
    return "".join(f"{text:{width}} # {origin}\n" if origin else f"{text}\n" for text, origin in lines)


def _annotate(
    node: Mapping[Any, Any], keys: tuple[Any, ...], values: Any, where: Where, lines: list[tuple[str, str]]
) -> None:
    for key, value in node.items():
        path, indent = (*keys, key), "  " * len(keys)
        written = isinstance(values, Mapping) and key in values
        inner = values[key] if written and isinstance(values, Mapping) else None
        origin = where(path).split(",")[0] if written else "default"
        if isinstance(value, Mapping) and value:
            lines.append((f"{indent}{_flow(key)}:", ""))
            _annotate(value, path, inner, where, lines)
        elif isinstance(value, list) and any(isinstance(item, (Mapping, list)) for item in value):
            lines.append((f"{indent}{_flow(key)}:", ""))
            for index, item in enumerate(value):
                lines.append(
                    (
                        f"{indent}- {_flow(item)}",
                        where((*path, index)).split(",")[0] if written else "default",
                    )
                )
        else:
            lines.append((f"{indent}{_flow(key)}: {_flow(value)}", origin))


def _flow(value: Any) -> str:
    """A value in one line of YAML."""
    text = yaml.dump(
        [value],
        Dumper=Dumper,
        default_flow_style=True,
        sort_keys=False,
        width=float("inf"),
        allow_unicode=True,
    )
    return text.strip()[1:-1]
