"""The imports of the package run one way: no circle of modules, and no arrow from a lower room to a higher one.

Imports inside functions and under TYPE_CHECKING count, so that none hides a circle.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "vistasks"

# From the lowest to the highest; a room may import from the rooms before it.
ROOMS = [
    *("types", "registry", "task", "system", "ops", "config", "losses"),
    *("drawing", "backbones", "necks", "heads", "datasets", "proposals", "metrics"),
    *("loading", "checkpoint", "models", "build"),
    *("inference", "evaluation", "tasks", "refining", "training", "inspection", "studies", "benchmarks"),
    *("demo", "commands", "cli", "__init__"),
]


def module_name(path: Path, package: Path) -> str:
    """``vistasks.ops.boxes`` of its file; a room's ``__init__.py`` is the room, the package's own its name."""
    parts = [package.name, *path.relative_to(package).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def imports(package: Path) -> dict[str, set[str]]:
    """Module -> the modules of the package that it imports."""
    files = {module_name(path, package): path for path in sorted(package.rglob("*.py"))}
    found: dict[str, set[str]] = {name: set() for name in files}
    for name, path in files.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                wanted = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
                wanted = [module if module in files else str(node.module) for module in whole]
            else:
                continue
            for module in wanted:
                if module == package.name:
                    module += ".__init__"
                if module in files and module != name:
                    found[name].add(module)
    return found


def circle(graph: Mapping[str, set[str]]) -> list[str] | None:
    """The modules of some circle, in order, or None."""
    finished: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str] | None:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in finished:
            return None
        for other in sorted(graph[module]):
            if found := visit(other, [*path, module]):
                return found
        finished.add(module)
        return None

    for module in graph:
        if found := visit(module, []):
            return found
    return None


def upward(graph: Mapping[str, set[str]]) -> list[str]:
    """The arrows from a lower room to a higher one."""
    places = {room: place for place, room in enumerate(ROOMS)}
    return [
        f"{module} -> {other}"
        for module, others in graph.items()
        for other in sorted(others)
        if places[module.split(".")[1]] < places[other.split(".")[1]]
    ]


def test_there_is_no_circle() -> None:
    graph = imports(PACKAGE)
    assert sum(map(len, graph.values())) > 500  # it sees the imports
    assert circle(graph) is None


def test_imports_run_from_higher_rooms_to_lower_ones() -> None:
    assert upward(imports(PACKAGE)) == []


def test_every_room_has_its_place() -> None:
    assert {module.split(".")[1] for module in imports(PACKAGE)} == set(ROOMS)


def test_few_modules_lie_loose() -> None:
    loose = sorted(path.name for path in PACKAGE.glob("*.py"))
    assert len(loose) <= 8, loose


@pytest.mark.parametrize(
    "planted",
    ["import vistasks.ops.b", "def later():\n    from vistasks.ops.b import x", "from vistasks.ops import b"],
)
def test_a_planted_circle_is_found(tmp_path: Path, planted: str) -> None:
    room = tmp_path / "vistasks" / "ops"
    room.mkdir(parents=True)
    (room / "a.py").write_text(planted)
    (room / "b.py").write_text("if TYPE_CHECKING:\n    from vistasks.ops.a import y")
    assert circle(imports(tmp_path / "vistasks")) == ["vistasks.ops.a", "vistasks.ops.b", "vistasks.ops.a"]


def test_a_planted_arrow_upwards_is_found(tmp_path: Path) -> None:
    for room, text in (("ops", "from vistasks.cli import main"), ("cli", "")):
        (tmp_path / "vistasks" / room).mkdir(parents=True)
        (tmp_path / "vistasks" / room / "a.py").write_text(text)
    (tmp_path / "vistasks" / "cli" / "__init__.py").write_text("main = 1")
    assert upward(imports(tmp_path / "vistasks")) == ["vistasks.ops.a -> vistasks.cli"]
