"""Pins: one line of Python that names an edge or a kernel by its form, and then holds."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import tinyengine as te
from tests.engine import forms
from tinyengine import pinned, pipeline, realize
from tinyengine.choices import DEFAULT
from tinyengine.machine import FIXTURE
from tinyengine.node import Graph
from tinyengine.stages import schedule
from tinyengine.stages.keys import edge_key, edge_keys, kernel_key
from tinyengine.stages.primitives.nest import ScheduleError
from tinyengine.tensor import Tensor

rng = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def no_pins() -> Iterator[None]:
    before = realize.chosen()
    realize.pin(DEFAULT)
    pinned._matched.clear()
    yield
    realize.pin(before)


def softmax(rows: int = 6, name: str = "x") -> Tensor:
    x = Tensor(rng.standard_normal((rows, 33)).astype(np.float32))
    x.node.arg.name = name
    return x.softmax(1)


def lowered(*tensors: Tensor) -> pipeline.Lowered:
    return pipeline.lower(Graph([t.node for t in tensors]), realize.chosen(), FIXTURE, "llvm")


def edge(low: pipeline.Lowered, producer: str, consumer: str) -> str:
    readers = low.fusion.readers
    return next(edge_key(n, r, at) for n in readers for r, at in readers[n] if (n.op, r.op) == (producer, consumer))


def test_an_edge_is_known_by_its_form() -> None:
    a, b, c = lowered(softmax()), lowered(softmax(name="other")), lowered(softmax(7))
    name = edge(a, "exp", "sum")
    assert name.startswith("exp->sum.0 ") and len(name.split()[-1]) == 10
    assert edge(b, "exp", "sum") == name, "not by the names of buffers"
    assert edge(c, "exp", "sum") != name, "shapes count"
    every = [k for n, r in a.fusion.readers.items() if not n.is_movement for k in edge_keys(n, r)]
    assert len(set(every)) == len(every)


def test_both_operands_of_one_consumer_have_names() -> None:
    x = Tensor(rng.standard_normal((4, 5)).astype(np.float32))
    y = (x * 2).exp()
    low = lowered(y - y.amax(1, keepdim=True) + y)
    found = [k for n, r in low.fusion.readers.items() if n.op == "exp" for k in edge_keys(n, r)]
    assert len(set(found)) == len(found) >= 2


def test_a_pinned_verdict_holds_for_every_later_lowering() -> None:
    low = lowered(softmax())
    name = edge(low, "exp", "sum")
    te.pin(name, "whole")
    assert te.pins() == {name: "whole"}
    low = lowered(softmax())
    assert len(low.fusion.groups) == 2
    (d,) = [d for d in low.decisions if d.kind == "pin"]
    assert (d.subject, d.verdict) == ((name,), "whole") and d.numbers == {"edges": 1}
    te.unpin(name)
    assert te.pins() == {} and len(lowered(softmax()).fusion.groups) == 1


def test_the_last_word_counts() -> None:
    te.pin("my favourite edge " + edge(lowered(softmax()), "exp", "sum").split()[-1], "whole")
    assert len(lowered(softmax()).fusion.groups) == 2


def test_it_works_in_a_fresh_process(tmp_path: Path) -> None:
    line = pinned.line(edge(lowered(softmax()), "exp", "sum"), "whole")
    assert line.startswith('tv.pin("exp->sum.0 ') and line.endswith('", "whole")')
    code = (
        "import numpy as np, tinyengine as tv\n"
        f"{line}\n"
        "from tinyengine import hooks\n"
        "seen = []\n"
        "end = hooks.subscribe(seen.append, hooks.Launch)\n"
        "tv.Tensor(np.ones((6, 33), np.float32)).softmax(1).numpy()\n"
        "print(len(seen[0].program.plan.calls))\n"
    )
    env = os.environ | {"TINYENGINE_CACHE": str(tmp_path), "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "2"


def test_a_kernel_is_pinned_by_its_form_with_general_names() -> None:
    k = forms.matmul(64, 200, 80, True)
    own = schedule.run(k, DEFAULT, FIXTURE)[0]
    te.pin(f"matmul {kernel_key(k)}", "tile(j, 16); pack(b1, at=jo); vectorize(ji, 8)")
    out, (d,) = schedule.run(k, realize.chosen(), FIXTURE)
    assert out.schedule == ("tile(j, 16)", f"pack({k.params[1].name}, at=jo)", "vectorize(ji, 8)") != own.schedule
    assert "by name" in d.reason
    forms.assert_same(k, out)
    other = forms.matmul(65, 200, 80, True)
    assert schedule.run(other, realize.chosen(), FIXTURE)[0] == schedule.run(other, DEFAULT, FIXTURE)[0]


def test_a_pin_that_matches_nothing_warns_and_names_itself() -> None:
    te.pin("exp->sum.0 0123456789", "whole")
    with pytest.warns(pinned.PinWarning, match=r"the pin 'exp->sum.0 0123456789' matches nothing in a program of 1 kernel"):
        softmax(9).numpy()
    low = lowered(softmax())
    assert len(low.fusion.groups) == 1
    d = next(d for d in low.decisions if d.kind == "pin")
    assert d.verdict == "matches nothing" and d.numbers == {"edges": 0}
    te.unpin()
    te.pin("softmax_7x7 0123456789", "parallel(i)")
    step = te.jit(lambda x: x.exp().sum(1))
    with pytest.warns(pinned.PinWarning, match="'softmax_7x7 0123456789' matches nothing"):
        step(Tensor(np.ones((11, 3), np.float32)))


def test_it_warns_once_per_lowering_and_not_in_programs_it_is_not_meant_for() -> None:
    te.pin("exp->sum.0 0123456789", "whole")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        softmax(10).numpy()
        softmax(10).numpy()  # from the cache: not lowered again
        assert len(seen) == 1
        Tensor(np.ones(13, np.float32)).relu().numpy()  # no exp and no sum in it
        assert len(seen) == 1
    te.unpin()
    te.pin(edge(lowered(softmax()), "exp", "sum"), "whole")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        softmax().numpy()
        softmax(12).numpy()  # another softmax: the pin has found its own
    assert not seen


def test_what_cannot_be_pinned_is_named() -> None:
    with pytest.raises(TypeError, match="pin takes the name of an edge or kernel and a verdict or schedule"):
        te.pin("whole")
    with pytest.raises(ValueError, match="the name is empty"):
        te.pin("  ", "whole")
    with pytest.raises(ScheduleError, match="'hole' is not a schedule primitive"):
        te.pin("exp->sum.0 0123456789", "hole")
    with pytest.raises(KeyError, match="nothing is pinned as 'x'; pinned: nothing"):
        te.unpin("x")
