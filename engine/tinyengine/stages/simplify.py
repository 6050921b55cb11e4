"""Stage 3, simplify: what need not be computed?

Input: a Graph of primitive ops (recorded, with gradients). Output: a Graph with the same roots' values, dtypes and shapes, after
named rules; equal nodes have become one. Floating-point values stay bit-equal, except that a reduction may combine its terms in
another order (a sum's order is nobody's promise), that it rounds a half only at its end, and that the sign of a zero sum or the
payload of a NaN is not kept.

The rules come in six families, the files of the room `rules`: narrow floats, arithmetic, movement (views), reductions, scans and
sums over windows. Last, `split-large-reduction` gives a big reduction with few results work for every core and every lane,
`split-long-scan` a long scan of few rows, `split-scatter` a scatter of many values to few places.
"""

from __future__ import annotations

from dataclasses import replace

from tinyengine import hooks, rules, spec
from tinyengine import machine as machines
from tinyengine.choices import DEFAULT, Choices
from tinyengine.hooks import Decision, RuleApplied
from tinyengine.machine import Machine
from tinyengine.node import Graph, Node
from tinyengine.ops import SCATTER
from tinyengine.stages.rules import arithmetic, movement, narrow, reduce, scan, scatter, windows
from tinyengine.stages.specs import graph as graph_spec

STAGE = "simplify"
SPEC = graph_spec.SPEC
RULES: tuple[rules.Rule, ...] = (
    *narrow.RULES, *arithmetic.RULES, *movement.RULES, *reduce.RULES,
    *scan.RULES, *windows.RULES,
)  # fmt: skip


def run(graph: Graph, choices: Choices = DEFAULT, machine: Machine | None = None) -> tuple[Graph, tuple[Decision, ...]]:
    """The simplified graph, and a Decision for every reduction, scan and scatter of few rows: split for the cores, and why.

    `machine` (default: this one) matters only to the splitting. Raises SpecError, naming the rule, when a rule breaks the
    spec."""
    machine = machine or machines.current()
    try:
        out, decisions = _apply(graph, choices, machine, hooks.publish if hooks.watching else None)
        spec.check(STAGE, SPEC, out)
    except Exception:
        _diagnose(graph, choices, machine)
        raise
    return out, decisions


def explain(graph: Graph, choices: Choices = DEFAULT, machine: Machine | None = None) -> tuple[RuleApplied, ...]:
    """Every firing of `run`, in order: derived again by replaying the stage, which is deterministic; nothing is published."""
    events: list[RuleApplied] = []
    _apply(graph, choices, machine or machines.current(), events.append)
    return tuple(events)


def partly(graph: Graph, firings: int, machine: Machine | None = None, choices: Choices = DEFAULT) -> Graph:
    """The graph after the first so many firings of `run`."""
    return _apply(graph, choices, machine or machines.current(), lambda event: None, firings)[0]


def _apply(
    graph: Graph, choices: Choices, machine: Machine, observe: rules.Observe | None, most: int | None = None
) -> tuple[Graph, tuple[Decision, ...]]:
    before, fired = rules.rewrite(graph.widened(), RULES, STAGE, observe=observe, most=most)
    if fired == most:
        return before, ()
    found = [family.split_rule(before, machine) for family in (reduce, scan, scatter)]
    decisions, split = {k: d for _, ds in found for k, d in ds.items()}, tuple([r for r, _ in found if r is not None])
    out, made = before, tuple(decisions.values())
    if split:
        out, became, more = rules.rewrite_map(before, split, STAGE, observe=observe, first=fired, most=most)
        made = tuple(replace(d, subject=(_number(out, became[before.nodes[i]]),)) for i, d in decisions.items())
        fired += more
    if not choices.recompute or fired == most:
        return out, made
    from tinyengine.stages.fusion import recompute  # it asks `fuse` what is stored

    again, asked = recompute.run(out, choices, machine, observe, fired, most)
    return again, tuple(_renumbered(d, out, again) for d in (*made, *asked))


def _renumbered(d: Decision, old: Graph, new: Graph) -> Decision:
    """A decision about a node of `old`, by its number in `new`; about none where it is gone."""
    if not d.subject or not isinstance(d.subject[0], int):
        return d
    n = old.nodes[d.subject[0]]
    return replace(d, subject=(new.number[n],) if n in new.number else ())


def _number(graph: Graph, n: Node) -> int:
    """The number of the reduction, scan or scatter that stands for `n`: itself, or below what a split puts on top."""
    while not (n.is_reduce or n.is_scan or n.op in SCATTER):
        n = n.src[0]
    return graph.number[n]


def _diagnose(graph: Graph, choices: Choices, machine: Machine) -> None:
    """Replays the stage and raises SpecError at the first thing that breaks the spec: the input, or a rule's result, by name."""
    spec.check(STAGE, SPEC, graph)
    _apply(graph, choices, machine, lambda event: spec.check(STAGE, SPEC, Graph([event.after]), event.rule))
