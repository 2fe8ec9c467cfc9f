"""Tables of parts, and options checked against the parts' own signatures."""

from __future__ import annotations

import inspect
from dataclasses import is_dataclass
from functools import partial
from typing import Any, Literal, get_args, get_type_hints

import pytest
from pydantic.dataclasses import dataclass as checked_dataclass

from vistasks.registry import BACKBONES, DATASETS, HEADS, NECKS, PROPOSALS, STRICT, Registry, nearest

TABLES = (BACKBONES, NECKS, HEADS, DATASETS, PROPOSALS)


@checked_dataclass(frozen=True, config=STRICT)
class Inner:
    size: int = 7
    share: float = 0.5


def tables() -> Registry:
    registry = Registry("widget")

    @registry.register("plain")
    def plain(
        *,
        width: float,
        mode: Literal["a", "b"] = "a",
        sizes: tuple[int, ...] = (1, 2),
        inner: Inner = Inner(),  # noqa: B008 - frozen
    ) -> dict:
        return {"width": width, "mode": mode, "sizes": sizes, "inner": inner}

    @registry.register("class")
    class Part:
        def __init__(self, *, trunk: object, depth: int | None = None) -> None:
            self.trunk, self.depth = trunk, depth

    def deep(*, layers: list[int], width: int = 1) -> tuple[list[int], int]:
        return layers, width

    registry.register("deep18")(partial(deep, layers=[2, 2]))
    return registry


def build_message(options: dict[str, Any], **keywords: Any) -> str:
    with pytest.raises(ValueError) as caught:
        tables().build(options, where="model.widget", **keywords)
    return str(caught.value)


def test_register_returns_the_part_and_lists_names_sorted() -> None:
    registry = Registry("widget")
    part = registry.register("b")(tables)
    registry.register("a")(tables)
    assert part is tables and registry["b"] is tables
    assert list(registry) == ["a", "b"] and len(registry) == 2 and "a" in registry and "c" not in registry


def test_a_taken_name_is_refused() -> None:
    registry = tables()
    with pytest.raises(ValueError, match="the widget 'plain' is registered already, by <function"):
        registry.register("plain")(tables)


def test_unknown_names() -> None:
    with pytest.raises(
        ValueError, match=r"unknown widget 'plane'\. Did you mean 'plain'\? Known: class, deep18, plain"
    ):
        tables()["plane"]
    assert build_message({"name": "plane"}) == (
        "model.widget.name: unknown widget 'plane'. Did you mean 'plain'? Known: class, deep18, plain"
    )
    assert "unknown widget '['plain']'" in build_message({"name": ["plain"]})
    assert (
        build_message({"width": 1}) == "model.widget.name is missing; expected one of: class, deep18, plain"
    )
    assert build_message({"name": "plain"}, key="format").startswith("model.widget.format is missing")
    assert nearest("zzz", ["plain"]) == ""


def test_options_are_converted_by_the_annotations() -> None:
    built = tables().build({"name": "plain", "width": 2, "sizes": [3, 4], "inner": {"size": 5}}, where="w")
    assert built == {"width": 2.0, "mode": "a", "sizes": (3, 4), "inner": Inner(size=5)}
    assert isinstance(built["width"], float) and isinstance(built["inner"], Inner)


def test_every_wrong_option_is_told_at_once() -> None:
    lines = build_message({"name": "plain", "wdth": 1, "mode": "c", "sizes": [1, "x"]}).splitlines()
    assert lines == [
        "model.widget.wdth: unknown option. Did you mean 'width'? Known: width, mode, sizes, inner",
        "model.widget.width is missing",
        "model.widget.mode: Input should be 'a' or 'b'; received 'c'",
        "model.widget.sizes.1: Input should be a valid integer, unable to parse string as an integer; received 'x'",
    ]


def test_groups_of_options_are_checked_inside() -> None:
    def found(inner: object) -> str:
        return build_message({"name": "plain", "width": 1, "inner": inner})

    assert (
        found({"sizze": 3})
        == "model.widget.inner.sizze: unknown option. Did you mean 'size'? Known: size, share"
    )
    assert found({"size": "big"}).startswith("model.widget.inner.size: Input should be a valid integer")
    assert found({"share": float("nan")}).startswith(
        "model.widget.inner.share: Input should be a finite number"
    )
    assert found(3).startswith("model.widget.inner: Input should be a dictionary")


def test_what_the_program_gives_is_no_option() -> None:
    trunk = object()
    assert tables().build({"name": "class", "depth": 3}, where="w", given={"trunk": trunk}).trunk is trunk
    found = build_message({"name": "class", "trunk": 1}, given={"trunk": trunk})
    assert found == "model.widget.trunk: unknown option. Known: depth"


def test_partial_parts_show_only_what_is_open() -> None:
    assert tables().build({"name": "deep18", "width": 3}, where="w") == ([2, 2], 3)
    assert "model.widget.layers: unknown option. Known: width" in build_message(
        {"name": "deep18", "layers": [1]}
    )
    assert "model.widget.width: Input should be a valid integer" in build_message(
        {"name": "deep18", "width": "x"}
    )


@pytest.mark.parametrize("registry", TABLES, ids=lambda r: r.kind)
def test_every_part_can_be_checked(registry: Registry) -> None:
    """No **options that swallow a misspelling, no option without a type, and groups of options that refuse
    unknown keys.
    """
    assert len(registry) > 0
    for name in registry:
        part = registry[name]
        function = part.func if isinstance(part, partial) else part
        hints = get_type_hints(function.__init__ if inspect.isclass(function) else function)
        for parameter in inspect.signature(function).parameters.values():
            assert parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL), (
                f"{name}: {parameter}"
            )
            assert parameter.name in hints, f"{name}: {parameter.name} has no type"
            for kind in (hints[parameter.name], *get_args(hints[parameter.name])):
                if is_dataclass(kind) and hasattr(kind, "__pydantic_config__"):
                    assert kind.__pydantic_config__.get("extra") == "forbid", (
                        f"{name}: {kind.__name__} takes any key"
                    )
