"""Which one-line changes of the product no test sees: `python tools/mutants.py vistasks/ops/boxes.py [--count 30]`.

Each mutant is made in a copy of the checkout and judged by the tests of its file, ``tests/ops/test_boxes*.py``, or
of its folder where it has none. Survivors are printed; whether one is equivalent, a person says.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SWAPS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "is": "is not", "is not": "is"}
SWAPS |= {"in": "not in", "not in": "in", "and": "or", "or": "and", "&": "|", "|": "&"}
SWAPS |= {"+": "-", "-": "+", "*": "/", "/": "*", "//": "*", "%": "*", "**": "*", "@": "*"}
NAMES = {
    "min": "max",
    "max": "min",
    "argmin": "argmax",
    "argmax": "argmin",
    "amax": "amin",
    "any": "all",
    "all": "any",
}
NAMES |= {
    "sum": "mean",
    "mean": "sum",
    "floor": "ceil",
    "ceil": "floor",
    "minimum": "maximum",
    "maximum": "minimum",
}
LEFT_ALONE = (ast.Raise, ast.Assert, ast.Import, ast.ImportFrom, ast.JoinedStr, ast.ClassDef)
Place = tuple[int, int, int, int]  # first line and column, last line and column, in bytes as `ast` has them


def changes(node: ast.AST, text: str) -> Iterator[tuple[ast.AST, str]]:
    """What is replaced by which source, for one node."""
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield node, str(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield node, repr(node.value + 1)
    elif isinstance(node, ast.Name | ast.Attribute):
        own = node.id if isinstance(node, ast.Name) else node.attr
        if own in NAMES:
            yield node, text[: -len(own)] + NAMES[own]
    elif isinstance(node, ast.UnaryOp):
        yield node, f"({ast.unparse(node.operand)})"
    elif isinstance(node, ast.If | ast.IfExp):
        yield node.test, f"(not ({ast.unparse(node.test)}))"
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield node, "pass"
    elif isinstance(node, ast.Call):
        for word in node.keywords:
            if word.arg is not None:
                rest = ast.Call(node.func, node.args, [other for other in node.keywords if other is not word])
                yield node, ast.unparse(rest)
    elif isinstance(node, ast.Compare | ast.BinOp | ast.BoolOp):
        whole = ast.unparse(node)
        parts = (
            [node.left, *node.comparators]
            if isinstance(node, ast.Compare)
            else ([node.left, node.right] if isinstance(node, ast.BinOp) else node.values)
        )
        first = ast.unparse(parts[0])
        start = whole.index(first) + len(first)
        sign = next(
            (s for s in sorted(SWAPS, key=len, reverse=True) if whole[start:].lstrip(") ").startswith(s)),
            None,
        )
        if sign is not None:
            at = whole.index(sign, start)
            yield node, f"({whole[:at]}{SWAPS[sign]}{whole[at + len(sign) :]})"


def mutants(source: str) -> list[tuple[int, str, str, str]]:
    """(line, what was there, what is there now, the whole new source) of every mutant that is Python."""
    lines, found = source.encode().splitlines(keepends=True), []

    def visit(node: ast.AST) -> None:
        for target, new in changes(node, ast.get_source_segment(source, node) or ""):
            old = ast.get_source_segment(source, target) or ""
            first, last = target.lineno - 1, target.end_lineno - 1  # type: ignore[attr-defined]
            before = b"".join(lines[:first]) + lines[first][: target.col_offset]  # type: ignore[attr-defined]
            after = lines[last][target.end_col_offset :] + b"".join(lines[last + 1 :])  # type: ignore[attr-defined]
            found.append((first + 1, old, new, (before + new.encode() + after).decode()))
        for name, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                skipped = name in ("annotation", "returns", "decorator_list", "format_spec")
                if isinstance(child, ast.AST) and not skipped and not isinstance(child, LEFT_ALONE[:-1]):
                    visit(child)

    visit(ast.parse(source))
    return [one for one in found if one[1] and one[1] != one[2] and _is_python(one[3])]


def _is_python(source: str) -> bool:
    try:
        compile(source, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def tests_of(file: Path) -> list[str]:
    """The test files of a file of the package; the folder's where there are none."""
    folder = Path("tests", *file.parts[1:-1])
    own = sorted(ROOT.glob(f"{folder}/test_{file.stem}*.py"), reverse=True)
    return [str(path.relative_to(ROOT)) for path in own] or [str(folder)]


def passes(copy: Path, tests: list[str], timeout: float) -> bool:
    """Whether the tests pass in a child that has this process's imports, but none of the package's."""
    child = os.fork()
    if not child:
        os.setsid()
        os.chdir(copy)
        sys.path.insert(0, str(copy))
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        os._exit(pytest.main(["-x", "-q", "--assert=plain", "-p", "no:cacheprovider", *tests]))
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def import_other_libraries() -> None:
    """Once, for all children; they import the package from the copy."""
    sys.path.insert(0, str(ROOT))
    for name in ("hypothesis", "vistasks.training.loop"):
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.split(".")[0] == "vistasks"]:
        del sys.modules[name]
    sys.path.remove(str(ROOT))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--count", type=int, default=30, help="mutants of a file, drawn by --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tests", nargs="+", help="instead of the tests of each file")
    parsed = parser.parse_args()
    import_other_libraries()
    tried = alive = 0
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        for path in subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines():
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, copy / path)
        for file in parsed.files:
            tests, source = parsed.tests or tests_of(file), (ROOT / file).read_text()
            start = time.monotonic()
            if not passes(copy, tests, 600):
                parser.error(f"{' '.join(tests)} fails without any mutant")
            limit = 20 + 5 * (time.monotonic() - start)
            every = mutants(source)
            for line, old, new, mutant in random.Random(parsed.seed).sample(
                every, min(parsed.count, len(every))
            ):
                (copy / file).write_text(mutant)
                tried += 1
                if passes(copy, tests, limit):
                    alive += 1
                    print(f"{file}:{line}: {old} -> {new}", flush=True)
            (copy / file).write_text(source)
            print(
                f"{file}: {min(parsed.count, len(every))} of {len(every)} mutants",
                file=sys.stderr,
                flush=True,
            )
    print(f"{tried} mutants, {alive} alive")
    return 0


if __name__ == "__main__":
    sys.exit(main())
