"""The rooms: imports go one way, nothing goes in a circle, every file says what it is for.

.venv/bin/python -m pytest tests/test_rooms.py
"""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from places import ROOT

PACKAGES = ("cli", "extract", "tasks", "train", "analyze", "omni")
# A room may import itself and what is named here.
ABOVE = {
    "cli": {"extract", "tasks", "train", "analyze", "omni"},
    "extract": {"omni"},
    "tasks": {"omni"},
    "train": {"omni"},
    "analyze": {"omni"},
    "omni": set(),
}
NO_MODEL = ("omni.whisper", "omni.nanochat", "omni.bridge", "omni.evaluation", "omni.runs")


def modules() -> Iterator[tuple[str, Path]]:
    """Dotted names and files of the product."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


FILES = dict(modules())


def imported(path: Path, at_start: bool = False) -> set[str]:
    """Our modules that a file imports; `at_start`: only those that its own import needs."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in _at_start(tree) if at_start else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in FILES else node.module)
    return {name for name in found if name.partition(".")[0] in PACKAGES}


def _at_start(tree: ast.Module) -> Iterator[ast.AST]:
    """Statements outside functions and `if TYPE_CHECKING:`."""
    left: list[ast.AST] = list(tree.body)
    while left:
        node = left.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        left += list(ast.iter_child_nodes(node))


@pytest.mark.parametrize("name", FILES)
def test_imports_go_one_way(name: str) -> None:
    room = name.partition(".")[0]
    wrong = {m for m in imported(FILES[name]) if m.partition(".")[0] not in ABOVE[room] | {room}}
    assert not wrong, f"{name} imports {sorted(wrong)}"
    if name.startswith("omni.formats"):
        models = {m for m in imported(FILES[name]) if m.startswith(NO_MODEL)}
        assert not models, f"{name} must know no model, and imports {sorted(models)}"


def test_nothing_goes_in_a_circle() -> None:
    """Module by module, and room by room inside omni."""
    graph = {name: imported(path, at_start=True) - {name} for name, path in FILES.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle
    rooms: dict[str, set[str]] = {}
    for name, path in FILES.items():
        if name.startswith("omni."):
            mine = ".".join(name.split(".")[:2])
            others = {".".join(m.split(".")[:2]) for m in imported(path) if m.startswith("omni.")}
            rooms.setdefault(mine, set()).update(others - {mine})
    TopologicalSorter(rooms).prepare()


def test_omni_holds_at_most_a_dozen_rooms() -> None:
    inside = [
        path.name
        for path in (ROOT / "omni").iterdir()
        if path.name not in ("__init__.py", "__pycache__")
    ]
    assert len(inside) <= 12, inside


@pytest.mark.parametrize("name", [n for n, p in FILES.items() if p.name != "__init__.py"])
def test_a_file_opens_with_what_it_is_for(name: str) -> None:
    """And, outside the commands, with what it must not know or do."""
    said = " ".join((ast.get_docstring(ast.parse(FILES[name].read_text())) or "").split())
    assert said, f"{name} has no docstring"
    if not name.startswith("cli."):
        assert "ust not" in said, f"{name} does not say what it must not know"


@pytest.mark.parametrize("name", FILES)
def test_files_stay_readable(name: str) -> None:
    """At most about 400 lines a file, and no function beyond a screen."""
    text = FILES[name].read_text()
    assert text.count("\n") <= 410, f"{name} has {text.count(chr(10))} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            lines = (node.end_lineno or 0) - node.lineno
            assert lines <= 70, f"{name}:{node.lineno} {node.name} has {lines} lines"
