"""Every node test case of the package onnx in the default domain, with the list of those that do not pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine import onnx_cases as cases
from tests.engine.onnx_failing import FAILING
from tinyengine import backends, manual_seed, onnx
from tinyengine.backends.graph_eval import evaluate
from tinyengine.onnx import registry
from tinyengine.stages import record


def by_numpy(t: Any) -> Any:
    return evaluate(record.run([t.node]))[0]


def verdict(case: Any) -> str:
    """What is wrong with what the model of the case gives, by the graph evaluator; empty when nothing is."""
    manual_seed(0)
    try:
        model = onnx.load(case.model)
        for inputs, expected in cases.data_sets(case):
            got = list(model.run(*inputs).values())
            if len(got) != len(expected):
                return f"{len(got)} results, expected {len(expected)}"
            wrong = [s for g, w in zip(got, expected, strict=True) if (s := cases.differs(g, w, case, by_numpy))]
            if wrong:
                return wrong[0]
    except Exception as e:
        return f"{type(e).__name__}: {e}"
    return ""


def test_every_case_but_those_on_the_list() -> None:
    listed = {name: why for why, names in FAILING.items() for name in names.split()}
    found = {c.name: verdict(c) for c in cases.counted()}
    total, passed = len(found), sum(not why for why in found.values())
    print(f"\n{passed} of {total} cases pass ({passed / total:.1%}); {len(cases.cases()) - total} are of other domains")
    new = [f"{name}: {why[:200]}" for name, why in found.items() if why and name not in listed]
    assert not new, f"{len(new)} cases fail that are not on the list:\n" + "\n".join(new)
    assert not (gone := [name for name in listed if name not in found]), f"there are no such cases: {gone}"
    assert not (better := [name for name in listed if not found[name]]), f"these pass now, take them off the list: {better}"
    assert passed >= 0.85 * total


def passing() -> list[Any]:
    listed = {name for names in FAILING.values() for name in names.split()}
    return [c for c in cases.counted() if c.name not in listed]


def covering() -> list[Any]:
    """Cases that pass, each with an operator that none before it has."""
    seen: set[str] = set()
    out = []
    for c in passing():
        operators = {n.op_type for n in cases.nodes(c.model.graph.node)}
        if operators - seen:
            out.append(c)
            seen |= operators
    return out


def compiled(chosen: list[Any], name: str) -> None:
    """Many models in one program, because compiling is what takes time: each result is what its case says."""
    try:
        backends.get(name)
    except backends.BackendError as e:
        pytest.skip(str(e))
    wrong = []
    with backends.use(name):
        for k in range(0, len(chosen), 64):
            results = []
            for c in chosen[k : k + 64]:
                manual_seed(0)
                model = onnx.load(c.model)
                for inputs, expected in cases.data_sets(c):
                    results += [(c, g, w) for g, w in zip(model.run(*inputs).values(), expected, strict=True)]
            first, *others = [t for _, g, _ in results for t in cases.tensors(g)]
            first.realize(*others)
            wrong += [f"{c.name}: {s}" for c, g, w in results if (s := cases.differs(g, w, c, _content))]
    assert not wrong, f"{len(wrong)} differ on {name}:\n" + "\n".join(wrong)


def _content(t: Any) -> Any:
    return (t if t.dtype.layout is None else t.float()).numpy()


@pytest.mark.parametrize("name", ["llvm", "reference", pytest.param("opencl", marks=pytest.mark.slow)])
def test_every_operator_compiled(name: str) -> None:
    compiled(covering(), name)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_every_case_compiled(part: int) -> None:
    chosen = passing()
    compiled(chosen[part * len(chosen) // 4 : (part + 1) * len(chosen) // 4], "llvm")


def test_models_that_lie_in_files() -> None:
    """What PyTorch's exporter wrote for operator set 6, and the rest that comes with onnx, compiled."""
    found = cases.files()
    assert len(found) > 130
    compiled(found, "llvm")


@pytest.mark.slow
@pytest.mark.parametrize("name", cases.NETWORKS)
def test_networks_that_come_with_onnx(name: str) -> None:
    proto, inputs, expected = cases.network(name)
    model = onnx.load(proto)
    np.testing.assert_allclose(model(inputs).numpy(), expected, rtol=1e-3, atol=1e-6)


def test_what_counts_is_decided_by_the_model() -> None:
    domains = {
        n.domain
        for c in cases.cases()
        if not cases.in_default_domain(c.model)
        for n in cases.nodes(c.model.graph.node)
        if n.domain not in ("", "ai.onnx")
    }
    assert domains <= {"ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training"}, domains


def test_every_operator_is_there_or_refused_with_a_reason() -> None:
    """And a row knows every attribute of what it stands for."""
    from onnx import defs

    schemas = [s for s in defs.get_all_schemas_with_history() if s.domain == ""]
    schemas = [s for s in schemas if s.since_version <= registry.NEWEST]
    names = {s.name for s in schemas}
    known = {*onnx.supported(), *registry.REFUSED}
    assert names <= known, f"neither there nor refused: {sorted(names - known)}"
    rows = [(s, registry.find(s.name, s.since_version)) for s in schemas if s.name in registry.OPERATORS]
    assert not [(s.name, s.since_version) for s, row in rows if row is None]
    hint = {"consumed_inputs"}  # of operator set 1, and looked over
    lacking = [(s.name, s.since_version, set(s.attributes) - row.attributes - hint) for s, row in rows if row]
    assert not [found for found in lacking if found[2]]
    for name in registry.BY_FUNCTION:
        s: Any = defs.get_schema(name)
        assert s.has_function or s.has_context_dependent_function, name


def test_the_page_says_what_does_not_pass() -> None:
    """docs/onnx.md: how many cases there are, how many pass, and why others do not."""
    page = (Path(__file__).parents[2] / "docs" / "onnx.md").read_text()
    assert f"Of {len(cases.counted())} cases {len(passing())} pass" in page
    for why, names in FAILING.items():
        assert f"| {len(names.split())} | {why} |" in page
    for name, why in registry.REFUSED.items():
        assert f"| {name} | {why} |" in page
    assert f"Operator sets {registry.OLDEST} to {registry.NEWEST} of the default domain" in page
