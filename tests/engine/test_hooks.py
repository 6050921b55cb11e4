"""Hooks: typed events; a subscriber that raises changes nothing; with nobody watching, no event is even built."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import threading
from pathlib import Path
from typing import Any

import pytest

import tinyengine
from tests.engine import graphs as g
from tests.engine.test_rules import buffer, complete, counts
from tinyengine import hooks
from tinyengine.machine import FIXTURE
from tinyengine.node import Graph
from tinyengine.stages import simplify


@pytest.fixture(autouse=True)
def nobody_is_watching() -> Any:
    assert not hooks.watching
    hooks.errors.clear()
    yield
    assert not hooks.watching, "a test left a subscriber behind"


def graph() -> Graph:
    return complete(g.ew("neg", g.ew("neg", g.ew("mul", buffer(3), g.num(1.0, 3)))))


def test_events_reach_the_subscribers_of_their_kind_only() -> None:
    every: list[Any] = []
    hits: list[Any] = []
    with hooks.subscribed(every.append), hooks.subscribed(hits.append, hooks.CacheHit, hooks.CacheMiss):
        hooks.publish(hooks.CacheHit("program", "k"))
        hooks.publish(hooks.HostWait("item", 0.5))
        hooks.publish(hooks.CacheMiss("program", "k", "shape of input 0", (3,), (4,)))
    assert [type(e).__name__ for e in every] == ["CacheHit", "HostWait", "CacheMiss"]
    assert [type(e).__name__ for e in hits] == ["CacheHit", "CacheMiss"]


def test_watching_follows_the_subscribers() -> None:
    first, second = hooks.subscribe(print), hooks.subscribe(print)
    first()
    assert hooks.watching
    first()  # ending twice is harmless
    assert hooks.watching
    second()
    assert not hooks.watching


def test_a_scope_that_raises_ends_its_subscription() -> None:
    with pytest.raises(KeyError), hooks.subscribed(print):
        raise KeyError
    assert not hooks.watching


def test_a_raising_subscriber_changes_nothing() -> None:
    seen: list[Any] = []

    def broken(event: hooks.Event) -> None:
        raise ValueError("from the subscriber")

    expected, _ = simplify.run(graph(), machine=FIXTURE)
    with hooks.subscribed(broken), hooks.subscribed(seen.append):
        out, _ = simplify.run(graph(), machine=FIXTURE)
    assert out.key()[0] == expected.key()[0]
    assert len(seen) == 2 and [e is s for (e, _), s in zip(hooks.errors, seen, strict=True)] == [True, True]
    assert all(isinstance(error, ValueError) for _, error in hooks.errors)


def test_kept_errors_are_bounded() -> None:
    def broken(event: hooks.Event) -> None:
        raise ValueError

    with hooks.subscribed(broken):
        for _ in range(250):
            hooks.publish(hooks.HostWait("x", 0.0))
    assert len(hooks.errors) == 100


def test_a_subscriber_may_end_itself_while_it_is_called() -> None:
    seen: list[Any] = []

    def once(event: hooks.Event) -> None:
        seen.append(event)
        end()

    end = hooks.subscribe(once)
    hooks.publish(hooks.HostWait("a", 0.0))
    hooks.publish(hooks.HostWait("b", 0.0))
    assert len(seen) == 1


def test_subscribing_from_many_threads_loses_nobody() -> None:
    ends: list[Any] = []
    threads = [threading.Thread(target=lambda: ends.extend(hooks.subscribe(print) for _ in range(200))) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for end in ends:
        end()
    assert len(ends) == 1600 and not hooks.watching


def test_unwatched_no_event_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("an event was built with nobody watching")

    monkeypatch.setattr(hooks, "RuleApplied", refuse)
    monkeypatch.setattr(hooks, "publish", refuse)
    simplify.run(graph(), machine=FIXTURE)


def test_events_are_plain_frozen_data() -> None:
    for event in hooks.EVENTS:
        assert issubclass(event, hooks.Event) and dataclasses.is_dataclass(event)
        assert event.__dataclass_params__.frozen and "__slots__" in event.__dict__  # type: ignore[attr-defined]
    defined = {c for _, c in inspect.getmembers(hooks, inspect.isclass) if issubclass(c, hooks.Event) and c is not hooks.Event}
    assert defined == set(hooks.EVENTS)


def test_hooks_import_nothing_of_the_engine() -> None:
    tree = ast.parse(Path(hooks.__file__).read_text())
    names = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    names += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    assert not any(name.startswith("tinyengine") for name in names)


def test_every_publish_in_the_engine_stands_behind_the_flag() -> None:
    """Each hooks.publish lies under `if hooks.watching`, or after `if not hooks.watching: return`, or in a private function that
    is called only from such places, or in one whose docstring says that it is for when somebody watches."""
    unguarded = []
    for path in Path(tinyengine.__file__).parent.rglob("*.py"):
        if path.name != "hooks.py":
            tree, names = ast.parse(path.read_text()), {"hooks.publish"}
            while True:
                found = _unguarded(tree, names, False, "")
                private = {f for f, _ in found if f.startswith("_")} - names
                if not private:
                    break
                names |= private
            unguarded += [f"{path.name}:{line}" for f, line in found if f not in names]
    assert unguarded == []


def _unguarded(node: ast.AST, names: set[str], guarded: bool, function: str) -> list[tuple[str, int]]:
    """(function, line) of every call of `names` that may happen with nobody watching."""
    out = []
    for child in ast.iter_child_nodes(node):
        inside, name = guarded, function
        if isinstance(node, ast.If) and child in node.body and "watching" in ast.unparse(node.test):
            inside = True
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            inside, name = "watch" in (ast.get_docstring(child) or "").lower(), child.name
        if isinstance(child, ast.If) and ast.unparse(child).startswith("if not hooks.watching:\n    return"):
            guarded = True
        if isinstance(child, ast.Call) and ast.unparse(child.func) in names and not inside:
            out.append((name, child.lineno))
        out += _unguarded(child, names, inside, name)
    return out


def test_firings_carry_what_the_stepper_shows() -> None:
    seen: list[hooks.RuleApplied] = []
    with hooks.subscribed(seen.append, hooks.RuleApplied):  # type: ignore[arg-type]
        simplify.run(graph(), machine=FIXTURE)
    assert {e.rule for e in seen} == set(counts(graph()))
    for e in seen:
        assert e.before.dtype is e.after.dtype and e.before.shape == e.after.shape and e.seconds >= 0
