"""The one selection model: what is related, both ways."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tinyviz import wire
from tinyviz.links import related
from tinyviz.steps import count
from tinyviz.wire import SELECTABLE, Selection

CASES = Path(__file__).parent / "links.json"


def everything(r: wire.Recording) -> dict[str, list[str]]:
    """Every selectable thing of a recording."""
    out: dict[str, list[str]] = {kind: [] for kind in SELECTABLE}
    out["line"] = [str(i) for i in range(len(r.lines))]
    out["rule"] = [str(i) for i in range(len(r.rules))]
    for a, p in enumerate(r.programs):
        out["node"] += [f"{a}.{i}" for i in range(len(p.nodes))]
        out["firing"] += [f"{a}.{s}.{k}" for s, stage in enumerate(p.stages) for k in range(count(stage))]
        out["decision"] += [f"{a}.{i}" for i in range(len(p.decisions))]
        out["module"] += [f"{a}.{i}.{d}" for i, m in enumerate(p.nodes.module) if m for d in range(1, m.count(".") + 2)]
        out["slot"] += [f"{a}.{i}" for i in range(len(p.slots))]
        out["call"] += [f"{a}.{i}" for i in range(len(p.calls))]
        for i, k in enumerate(p.kernels):
            out["kernel"].append(f"{a}.{i}")
            for kind, code in (("loop", k.scheduled), ("source", k.source), ("assembly", k.assembly)):
                out[kind] += [f"{a}.{i}.{j}" for j in range(len(code.text))]
    return out


def test_everything_can_be_selected_and_leads_only_to_what_there_is(sample: wire.Recording) -> None:
    there = everything(sample)
    known = {kind: set(ids) for kind, ids in there.items()}
    assert all(known.values()), "the sample has something of every kind"
    for kind, ids in there.items():
        for id in ids[:: max(1, len(ids) // 25)]:
            found = related(sample, Selection(kind, id))
            assert id in found[kind]
            for other, others in found.items():
                assert set(others) <= known[other] and len(set(others)) == len(others)


def test_a_line_leads_to_its_instructions_and_back(sample: wire.Recording) -> None:
    line = next(str(i) for i, text in enumerate(sample.lines.text) if "fc1" in text)
    found = related(sample, Selection("line", line))
    assert {"node", "kernel", "loop", "source", "assembly", "call", "decision", "slot"} <= set(found)
    back = [line in related(sample, Selection("assembly", i)).get("line", []) for i in found["assembly"]]
    assert back and all(back)
    assert all(line in related(sample, Selection("kernel", k))["line"] for k in found["kernel"])


def test_a_forward_node_leads_to_its_gradient_and_back(sample: wire.Recording) -> None:
    p = sample.programs[0]
    gradient = next(n for n in p.recorded if p.nodes.forward[n] >= 0)
    forward = p.nodes.forward[gradient]
    assert f"0.{gradient}" in related(sample, Selection("node", f"0.{forward}"))["node"]
    assert f"0.{forward}" in related(sample, Selection("node", f"0.{gradient}"))["node"]


def test_an_instruction_stands_for_its_own_loop_line_only(sample: wire.Recording) -> None:
    k = sample.programs[0].kernels[0]
    j, link = next((j, x) for j, x in enumerate(k.assembly.link) if x >= 0)
    found = related(sample, Selection("assembly", f"0.0.{j}"))
    assert found["loop"] == [f"0.0.{link}"] and found["kernel"] == ["0.0"]
    assert found["source"] == [f"0.0.{i}" for i, x in enumerate(k.source.link) if x == link]


def test_a_rule_leads_to_its_firings(sample: wire.Recording) -> None:
    p = sample.programs[0]
    at, stage = next((i, s) for i, s in enumerate(p.stages) if len(s.frames))
    rule = stage.frames.rule[0]
    found = related(sample, Selection("rule", str(rule)))["firing"]
    assert {f"0.{at}.{k}" for k, x in enumerate(stage.frames.rule) if x == rule} <= set(found)


@pytest.mark.parametrize(
    ("kind", "id"),
    [("line", "999"), ("node", "0.-1"), ("node", "7.0"), ("kernel", "x"), ("loop", "0.0"), ("rule", ""), ("line", "-1")],
)
def test_what_is_not_there_is_named(kind: str, id: str, sample: wire.Recording) -> None:
    with pytest.raises(ValueError, match=f"this recording has no {kind} '{id}'"):
        related(sample, Selection(kind, id))


def test_an_unknown_kind_is_named(sample: wire.Recording) -> None:
    with pytest.raises(ValueError, match="nothing of kind 'cat' can be selected; kinds: line, rule"):
        related(sample, Selection("cat", "1"))


def test_the_cases_that_typescript_is_tested_with_are_these(sample: wire.Recording, request: pytest.FixtureRequest) -> None:
    """links.json holds selections of the sample with what is related; extension/tests may compare its own query with them."""
    cases = []
    for kind, ids in everything(sample).items():
        for id in (ids[0], ids[len(ids) // 2]):
            cases.append({"kind": kind, "id": id, "related": related(sample, Selection(kind, id))})
    if request.config.getoption("--update-texts", default=False):
        CASES.write_text("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]\n", encoding="utf-8")
    assert json.loads(CASES.read_text(encoding="utf-8")) == cases
