"""The graph as a tree: every node has one home, figures of parts add up, and its text stays short when the graph is large."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

import tinyviz as tv
from tests.browser.programs import transformer
from tinyengine import Tensor, optim
from tinyviz import analysis, wire
from tinyviz.explore import make
from tinyviz.recording import Recording
from tinyviz.views import graph
from tinyviz.wire import Selection


@pytest.fixture(scope="module")
def recording() -> Recording:
    with tv.watch("transformer") as rec:
        transformer.train(2, width=16, heads=2, length=8)
    return rec


@pytest.fixture(scope="module")
def data(recording: Recording) -> Any:
    return graph.data(recording.data)


def program(recording: Recording, data: Any) -> wire.Program:
    return recording.programs[data.program]


def names(data: Any, group: int) -> str:
    out: list[str] = []
    while group >= 0:
        out.append(data.groups[group].name)
        group = data.groups[group].parent
    return ".".join(reversed(out))


def test_every_node_has_one_home_and_groups_know_their_size(recording: Recording, data: Any) -> None:
    p = program(recording, data)
    assert len(data.home) == len(data.drawn) and all(-1 <= home < len(data.groups) for home in data.home)
    assert all(g.parent < i for i, g in enumerate(data.groups)), "outer groups come first"
    count: Counter[int] = Counter()
    for home in data.home:
        while home >= 0:
            count[home] += 1
            home = data.groups[home].parent
    assert [g.nodes for g in data.groups] == [count[i] for i in range(len(data.groups))]
    for n, home in zip(data.drawn, data.home, strict=True):
        if p.nodes.module[n] and p.nodes.phase[n] != "optimizer":
            assert names(data, home) == p.nodes.module[n]
        if p.nodes.phase[n] == "optimizer":
            assert names(data, home).startswith("optimizer")


def test_parameters_stand_in_their_module_and_their_update_in_the_optimizer(recording: Recording, data: Any) -> None:
    p = program(recording, data)
    home = {p.nodes.arg[n]: names(data, h) for n, h in zip(data.drawn, data.home, strict=True) if p.nodes.op[n] == "buffer"}
    assert home["blocks.1.up.weight"] == "model.blocks.1.up"
    assert home["blocks.1.up.weight.m"] == "optimizer.blocks.1.up.weight"
    assert home["lr"] == "optimizer"
    parts = {names(data, i): g for i, g in enumerate(data.groups)}
    assert parts["optimizer.head.bias"].kind == "parameter" and parts["model.blocks.0"].kind == "module"
    lines = [g for g in data.groups if g.kind == "line"]
    assert any("cross_entropy" in recording.data.lines.text[g.line] for g in lines), "the loss is of no module, but of a line"


def test_gradients_stand_with_what_they_serve(recording: Recording, data: Any) -> None:
    p = program(recording, data)
    home = dict(zip(data.drawn, data.home, strict=True))
    pairs = [(n, p.nodes.forward[n]) for n in data.drawn if p.nodes.phase[n] == "backward" and p.nodes.forward[n] in home]
    assert len(pairs) > 100
    assert sum(home[n] == home[f] for n, f in pairs) > 0.95 * len(pairs)


def test_figures_of_nodes_add_up_to_those_of_the_kernels(recording: Recording, data: Any) -> None:
    p = program(recording, data)
    rows = analysis.kernel_rows(p)
    assert data.measured
    for name, whole in (("time", [r.seconds for r in rows]), ("FLOPs", [r.flops for r in rows])):
        known = sum(v for v in data.overlays[name] if v is not None)
        assert known == pytest.approx(analysis.total(whole), rel=0.02), name
    kept = {s.node for s in p.slots if s.node >= 0}
    assert all((v is None) == (n not in kept) for n, v in zip(data.drawn, data.overlays["memory"], strict=True))
    assert {c.name for c in data.dtypes} == {f"dtype {p.nodes.dtype[n]}" for n in data.drawn}
    assert len({c.mark for c in data.dtypes}) == len(data.dtypes), "never colour alone"


def test_the_text_of_a_large_graph_is_its_outline(recording: Recording, data: Any) -> None:
    text = make(recording.data, "graph").text
    assert len(data.drawn) > graph.TEXT_LIMIT and len(text.split("\n")) < 80
    rows = {line.split("  module")[0].strip(): line for line in text.split("\n") if "  module" in line}
    assert {"model", "blocks", "0", "qkv"} <= set(rows)


def test_around_one_node(recording: Recording, data: Any) -> None:
    p = program(recording, data)
    node = next(n for n in data.drawn if p.nodes.op[n] == "exp")
    made = make(recording.data, "graph", selection=Selection("node", f"{data.program}.{node}"))
    assert made.data.around == node and "steps of" in made.text
    near = set(graph.neighbourhood(graph.operands(p, data.drawn), node, 2))
    assert {node, *graph.operands(p, data.drawn)[node]} <= near and len(near) < 40
    assert sum(line.startswith("%") for line in made.text.split("\n")) == len(near)
    replaced = {n for s in p.stages for n in s.frames.replaced}
    gone = next(n for n in range(len(p.nodes)) if n not in p.simplified and n not in replaced)
    assert "there is no node" in make(recording.data, "graph", selection=Selection("node", f"{data.program}.{gone}")).text


def test_an_optimizer_with_one_parameter_is_one_part() -> None:
    w = Tensor(np.ones(4, np.float32), requires_grad=True)
    with tv.watch() as rec:
        (w * 2).sum().backward()
        optim.SGD([w], lr=0.1).step()
    found = graph.data(rec.data)
    assert "optimizer" in {g.kind for g in found.groups}
