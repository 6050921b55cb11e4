"""Arrows run one way: what may import what, read from the sources. Imports inside functions and under TYPE_CHECKING do not
count."""

from __future__ import annotations

import ast
from pathlib import Path

import tinyengine
import tinyviz

ENGINE = Path(tinyengine.__file__).parent
VIZ = Path(tinyviz.__file__).parent
FOREIGN = {"tinyviz", "IPython", "ipywidgets", "anywidget", "matplotlib", "graphviz"}
LAYERS = ("runtime", "stages", "backends", "tensor", "nn")
# a layer -> the layers it may import at module level, besides the plain modules beneath them all
ALLOWED = {
    "runtime": set(),
    "stages": set(),
    "backends": {"stages", "runtime"},
    "tensor": {"stages", "runtime"},
    "nn": {"tensor", "stages", "runtime"},
}
UPPER = {"pipeline", "realize", "jit", "optim", "state", "data", "nn", "tensor", "probes"}  # modules above the layers


def imports(path: Path) -> set[str]:
    """Modules imported when `path` is imported."""
    out: set[str] = set()

    def visit(body: list[ast.stmt]) -> None:
        for s in body:
            if isinstance(s, ast.Import):
                out.update(a.name for a in s.names)
            elif isinstance(s, ast.ImportFrom) and s.module:
                out.add(s.module)
                out.update(f"{s.module}.{a.name}" for a in s.names)
            elif isinstance(s, ast.If) and not (isinstance(s.test, ast.Name) and s.test.id == "TYPE_CHECKING"):
                visit(s.body)
                visit(s.orelse)
            elif isinstance(s, ast.Try):
                visit(s.body)

    visit(ast.parse(path.read_text()).body)
    return out


def everywhere(path: Path) -> set[str]:
    """Modules named by any import in `path`, inside functions too."""
    out: set[str] = set()
    for s in ast.walk(ast.parse(path.read_text())):
        if isinstance(s, ast.Import):
            out.update(a.name for a in s.names)
        elif isinstance(s, ast.ImportFrom) and s.module:
            out.add(s.module)
    return out


def test_the_engine_knows_no_observer_and_no_notebook() -> None:
    for path in ENGINE.rglob("*.py"):
        for m in everywhere(path):
            assert m.split(".")[0] not in FOREIGN, f"{path}: {m}"


def test_layers_of_the_engine() -> None:
    for layer in LAYERS:
        for path in (ENGINE / layer).rglob("*.py"):
            for m in imports(path):
                parts = m.split(".")
                if parts[0] != "tinyengine" or len(parts) < 2:
                    continue
                if parts[1] in LAYERS and parts[1] != layer:
                    assert parts[1] in ALLOWED[layer], f"{path.relative_to(ENGINE)} imports {m}"
                elif parts[1] in UPPER and parts[1] != layer:
                    assert layer == "nn" and parts[1] in ("tensor", "state"), f"{path.relative_to(ENGINE)} imports {m}"


def test_hooks_import_nothing_of_the_engine() -> None:
    assert not [m for m in everywhere(ENGINE / "hooks.py") if m.startswith("tinyengine")]


def test_the_wire_format_stands_alone() -> None:
    assert not [m for m in imports(VIZ / "wire.py") if m.startswith("tinyengine")]
    for path in VIZ.glob("views/*.py"):
        engine = [m for m in everywhere(path) if m.startswith("tinyengine")]
        assert not engine, f"{path.name}: a view reads recordings, not the engine"


def test_stages_are_the_table_of_contents() -> None:
    from tinyengine.pipeline import STAGES

    names = [s.name for s in STAGES]
    assert names == ["record", "differentiate", "simplify", "fuse", "loops", "schedule", "plan", "emit", "run"]
    for name in names[:-1]:
        assert (ENGINE / "stages" / f"{name}.py").exists() or (ENGINE / "stages" / name / "__init__.py").exists()
