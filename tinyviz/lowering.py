"""`tv.lower`: a computation as a value of every stage, without running it. `tv.tune`: its kernels, measured."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tinyengine import pipeline
from tinyengine.choices import Choices
from tinyengine.node import Graph, toposort

if TYPE_CHECKING:
    from tinyviz.recording import Recording


class Lowered:
    """What `lower` gives: `graph`, `simplified`, `fusion`, `nests`, `scheduled`, `kernels`, `plan`, `certificate`, `run()` are
    those of `tinyengine.pipeline.Lowered`; `with_fusion`, `with_schedule` and `with_choices` continue from an edit. `recording`
    is the same as data for the views; in a notebook this draws itself as an explorer."""

    def __init__(self, engine: pipeline.Lowered, title: str) -> None:
        self.engine, self.title = engine, title

    @cached_property
    def recording(self) -> Recording:
        from tinyviz.record import build_lowered
        from tinyviz.recording import Recording, name_file

        return Recording(build_lowered(self.engine, self.title, name_file()), programs=[self.engine])

    def view(self, name: str | None = None, **options: Any) -> Any:
        """One view of it; see `Recording.view`."""
        return self.recording.view(name, **options)

    def with_choices(self, choices: Choices) -> Lowered:
        return Lowered(self.engine.with_choices(choices), self.title)

    def with_fusion(self, edge: str, verdict: str) -> Lowered:
        return Lowered(self.engine.with_fusion(edge, verdict), self.title)

    def with_schedule(self, kernel: int, primitives: Any) -> Lowered:
        """Continue from another schedule of that kernel: text with one primitive per line, or a list of them."""
        return Lowered(self.engine.kernels[kernel].with_schedule(primitives), self.title)

    def with_backend(self, name: str) -> Lowered:
        return Lowered(self.engine.with_backend(name), self.title)

    def tune(self, budget: float = 2.0, **options: Any) -> Any:
        """`tune` for this program. What it found is used by later lowering; `Tuning.lowered` is this program with it."""
        return tune(self, budget=budget, **options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.engine, name)

    def __repr__(self) -> str:
        return self.engine.text()

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return self.recording._repr_mimebundle_(**kwargs)


def lower(*what: Any, gradients: bool = True, **kwargs: Any) -> Lowered:
    """All stages of a computation that has not run.

    `what`: lazy tensors (results, updates); or a function and its arguments: it is traced as `jit` does, so that a whole
    training step can be lowered; nothing is computed and no parameter changes. `gradients`: with one scalar tensor, take in the
    gradients of the tensors below it that require one: those that `backward()` left, or else new ones, which are left nowhere.

    Raises TypeError for anything else; ValueError when the tensors are computed already, so that there is nothing to lower."""
    from tinyengine.tensor import Tensor

    show_stages()
    if what and callable(what[0]) and not isinstance(what[0], Tensor):
        return _function(what[0], what[1:], kwargs)
    if not what or kwargs or not all(isinstance(t, Tensor) for t in what):
        given = ", ".join(type(t).__name__ for t in what) or "nothing"
        raise TypeError(f"lower takes tensors, or a function and its arguments; got {given}{' and keywords' if kwargs else ''}")
    tensors: list[Any] = list(what)
    if gradients and len(tensors) == 1:
        tensors += _gradients(tensors[0])
    if all(t.node.op == "buffer" for t in tensors):
        raise ValueError("there is nothing to lower: the value is in memory already. Lower a tensor before it is computed")
    from tinyengine import realize

    graph = Graph(realize.last_updates([t.node for t in tensors]))
    lowered = pipeline.lower(graph, realize.current_choices())
    if lowered.choices.pinned:
        from tinyengine.pinned import warn

        _ = lowered.plan
        warn(lowered, asked=True)
    return Lowered(lowered, "lowered")


def _gradients(t: Any) -> list[Any]:
    """The lazy gradients of the leaves below `t`; made anew, without leaving them anywhere, where backward() was not called."""
    from tinyengine.tensor import core

    if t.flow != core.FLOWS or t.node.size != 1:
        return []
    below = set(toposort([t.node]))
    leaves: list[Any] = [x for r in list(core.leaves.values()) if (x := r()) is not None and x.node in below]
    if any(x.grad is not None for x in leaves):
        return [x.grad for x in leaves if x.grad is not None and x.grad.node.op != "buffer"]
    return list(t.gradient(*leaves)) if leaves else []


def _function(f: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Lowered:
    from tinyengine import jit

    lowered = (f if isinstance(f, jit) else jit(f)).lower(*args, **kwargs)
    name = getattr(f, "__qualname__", type(f).__name__)
    return Lowered(lowered, name.rpartition(".")[2])


def tune(what: Any, *args: Any, budget: float = 2.0, **kwargs: Any) -> Any:
    """Measure schedules for the kernels of a Lowered, or of a function with its arguments, for `budget` seconds, and keep the
    fastest: see `tinyengine.tune.tune`. In a notebook the progress stands below the cell. Returns a `tinyengine.tune.Tuning`."""
    from tinyengine.tune import tune as engine_tune

    kwargs.setdefault("progress", _progress())
    return engine_tune(what.engine if isinstance(what, Lowered) else what, *args, budget=budget, **kwargs)


def _progress() -> Callable[[str], None] | None:
    """One line of text that changes in place, in a notebook; None elsewhere."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    display = importlib.import_module("IPython.display")
    handles: list[Any] = []

    def show(text: str) -> None:
        line = {"text/plain": text}
        if handles:
            handles[0].update(line, raw=True)
        else:
            handles.append(display.display(line, raw=True, display_id=True))

    return show


_shown: list[bool] = []


def show_stages() -> None:
    """In a notebook, let the outputs of single stages draw themselves. Does nothing elsewhere, and nothing twice."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or _shown:
        return
    _shown.append(True)
    formatter = shell.display_formatter.mimebundle_formatter
    formatter.for_type_by_name("tinyengine.node", "Graph", lambda g, **_: _graph(g))
    formatter.for_type_by_name("tinyengine.pipeline", "Lowered", lambda low, **k: Lowered(low, "lowered")._repr_mimebundle_(**k))
    formatter.for_type_by_name("tinyengine.pipeline", "Compiled", lambda c, **k: _kernel(c, k))
    formatter.for_type_by_name("tinyengine.stages.fuse", "Fusion", lambda f, **_: _fusion(f))


def _of(parts: Any) -> Recording:
    from tinyviz.record import build_parts
    from tinyviz.recording import Recording, name_file

    return Recording(build_parts(parts, name_file()))


def _graph(graph: Any) -> Any:
    from tinyviz.convert import Parts

    return _of(Parts("graph", graph)).view("graph")._repr_mimebundle_()


def _fusion(fusion: Any) -> Any:
    from tinyviz.convert import Parts

    parts = Parts("fusion", fusion.graph, fusion.graph, fusion, decisions=list(fusion.decisions))
    return _of(parts).view("fusion")._repr_mimebundle_()


def _kernel(compiled: Any, options: Any) -> Any:
    view = Lowered(compiled.lowered, "lowered").view("kernel", selection=("kernel", f"0.{compiled.call}"))
    return view._repr_mimebundle_(**options)
