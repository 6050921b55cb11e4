"""Every stage of a dozen small programs as text, compared with golden files; and the programs compute what their graphs say."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.conformance import snapshot
from tests.conformance.programs import PROGRAMS
from tinyengine.backends.graph_eval import Evaluator

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_stage_reads_as_reviewed(name: str, update: bool) -> None:
    text = snapshot.text(name, snapshot.lowered(name))
    assert not re.search(r"0x[0-9a-f]{6,} |/[\w-]+/[\w-]+/|object at", text), "an address or a path of this machine"
    path = GOLDEN / f"{name}.txt"
    if update:
        path.write_text(text, encoding="utf-8")
        return
    command = "pytest tests/conformance --update-golden"
    assert path.exists(), f"{path.name} is missing: {command}"
    assert text == path.read_text(encoding="utf-8"), f"a stage changed: read the difference, then {command}"


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_second_lowering_gives_the_same_text(name: str) -> None:
    assert snapshot.text(name, snapshot.lowered(name)) == snapshot.text(name, snapshot.lowered(name))


@pytest.mark.parametrize("backend", ["reference", "llvm"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_program_computes_what_its_graph_says(name: str, backend: str) -> None:
    """Against the graph as recorded, evaluated op by op in float64."""
    c = snapshot.lowered(name)
    want = Evaluator(c.graph, wide=True).run()
    for w, got in zip(want, snapshot.values(c, backend), strict=True):
        np.testing.assert_allclose(got, w, rtol=2e-5, atol=2e-5)


def test_no_golden_file_without_a_program() -> None:
    assert {p.stem for p in GOLDEN.glob("*.txt")} == set(PROGRAMS)
