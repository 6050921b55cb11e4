"""The interpreter of loop nests: sequential meaning, checked accesses, traces; the backends built on it."""

from __future__ import annotations

import numpy as np
import pytest

from tests.engine import forms
from tests.engine.forms import F, arrays, loop, outputs, v
from tinyengine import loopnest as ir
from tinyengine.backends.null import NullBackend
from tinyengine.backends.reference import AccessError, Interpreter, ReferenceBackend, interpret, trace
from tinyengine.loopnest import Accumulate, Alloc, Buf, Kernel, Loop, Store, const, index, load
from tinyengine.program import Call, Program, Slot
from tinyengine.runtime.buffer import Buffer


def test_every_form_computes_what_numpy_does() -> None:
    k = forms.FORMS["matmul"]
    a = arrays(k)
    want = np.maximum(a["x"] @ a["w"] + a["b"], 0)
    np.testing.assert_allclose(outputs(k, a)["out"].reshape(want.shape), want, rtol=1e-5, atol=1e-5)
    k = forms.FORMS["softmax"]
    a = arrays(k)
    e = np.exp(a["x"] - a["x"].max(1, keepdims=True))
    np.testing.assert_allclose(outputs(k, a)["out"].reshape(e.shape), e / e.sum(1, keepdims=True), rtol=1e-5)
    k = forms.FORMS["scatter"]
    a = arrays(k)
    want = np.zeros(7, np.float32)
    np.add.at(want, a["ids"], a["x"])
    np.testing.assert_array_equal(outputs(k, a)["out"], want)
    k = forms.FORMS["gather"]
    a = arrays(k)
    np.testing.assert_array_equal(outputs(k, a)["out"].reshape(6, 18), a["table"][a["ids"]])
    k = forms.FORMS["update"]
    a = arrays(k)
    m = a["m"] * np.float32(0.9) + a["g"]
    got = outputs(k, a)
    np.testing.assert_array_equal(got["m"], m)
    np.testing.assert_array_equal(got["p"], a["p"] - m * np.float32(0.1))


def test_padded_convolution() -> None:
    k = forms.conv(2, 3, 4, 6)
    a = arrays(k)
    padded = np.pad(a["x"], ((0, 0), (0, 0), (1, 1), (1, 1)))
    want = np.zeros((2, 4, 6, 6), np.float32)
    for y in range(6):
        for z in range(6):
            want[:, :, y, z] = np.einsum("bcyz,ocyz->bo", padded[:, :, y : y + 3, z : z + 3], a["w"])
    np.testing.assert_allclose(outputs(k, a)["out"].reshape(want.shape), want, rtol=1e-4, atol=1e-5)


def test_sums_run_in_the_order_of_the_loop() -> None:
    k = forms.full_sum(20, 50)
    a = arrays(k)
    want = np.float32(0)
    for x in a["x"].reshape(-1):
        want += x
    assert outputs(k, a)["out"][0] == want


def test_dependent_iterations_run_one_after_the_other() -> None:
    k = forms.recurrence(30)
    a = arrays(k)
    want = [np.float32(1)]
    for x in a["x"]:
        want.append(want[-1] + x)
    np.testing.assert_array_equal(outputs(k, a)["out"], np.array(want))


@pytest.mark.parametrize("form", list(forms.FORMS))
def test_batching_changes_nothing(form: str) -> None:
    k = forms.FORMS[form]
    results = []
    for limit in (1, 7, 1 << 20):
        memory = {name: x.reshape(-1).copy() for name, x in arrays(k).items()}
        Interpreter(k, limit=limit).run([memory[p.name] for p in k.params])
        results.append(memory)
    for o in k.outputs:
        np.testing.assert_array_equal(results[0][o], results[2][o])
        np.testing.assert_array_equal(results[1][o], results[2][o])


def test_a_failed_check_raises_its_message() -> None:
    k = forms.FORMS["gather"]
    a = arrays(k)
    a["ids"][3] = 5
    with pytest.raises(IndexError, match="index out of range"):
        interpret(k, a)


def test_an_access_outside_a_buffer_names_the_line() -> None:
    x, out, i = Buf("x", F, (4,)), Buf("out", F, (5,)), v("i", 5)
    k = Kernel("outside", (x, out), (loop(i, Store(out, (i,), load(x, (i,)))),), ("out",))
    with pytest.raises(
        AccessError, match=r"kernel outside, line 2: out\[i\] = x\[i\]: index 0\.\.4 on axis 0 of x, which has extent 4"
    ):
        interpret(k, arrays(k))
    masked = Store(out, (i,), load(x, (i,), ir.apply("lt", (i, index(4)))))
    k = Kernel("inside", (x, out), (loop(i, masked),), ("out",))
    a = arrays(k)
    np.testing.assert_array_equal(outputs(k, a)["out"], [*a["x"], 0])


def test_reading_memory_that_was_not_written_raises() -> None:
    out, e = Buf("out", F, (2,)), Buf("e", F, (2,), "local")
    i = v("i", 2)
    k = Kernel(
        "early", (out,), (Alloc(e), Store(e, (index(0),), const(1, F)), loop(i, Store(out, (i,), load(e, (i,))))), ("out",)
    )
    with pytest.raises(AccessError, match="e is read before it is written"):
        interpret(k, arrays(k))
    k = Kernel(
        "sum",
        (out,),
        (Alloc(e), loop(i, Accumulate(e, (i,), "add", const(1, F))), Store(out, (index(0),), load(e, (index(0),)))),
        ("out",),
    )
    with pytest.raises(AccessError, match="accumulated into before it is written"):
        interpret(k, arrays(k))


def test_trace_gives_every_address_in_order() -> None:
    k = forms.matmul(2, 3, 4)
    touched = trace(k, arrays(k))
    x = next(t for t in touched if t.buffer == "x")
    w = next(t for t in touched if t.buffer == "w")
    out = next(t for t in touched if t.buffer == "out")
    assert x.elements.tolist() == [4 * i + r for i in range(2) for _ in range(3) for r in range(4)]
    assert w.elements.tolist() == [3 * r + j for _ in range(2) for j in range(3) for r in range(4)]
    assert out.elements.tolist() == list(range(6)) and out.write and not x.write
    assert {t.buffer for t in touched} == {"x", "w", "b", "out"}  # registers have no addresses


def test_trace_leaves_out_masked_lanes() -> None:
    k = forms.conv(1, 1, 1, 3)
    x = next(t for t in trace(k, arrays(k)) if t.buffer == "x")
    assert x.elements.size == 49  # 9 pixels x 9 taps, less those outside: (2 + 3 + 2) squared
    assert x.elements.min() == 0 and x.elements.max() == 8


def test_lanes() -> None:
    x, out = Buf("x", F, (8,)), Buf("out", F, (2,))
    i = ir.var("i", 0, 4)
    vec = load(x, (ir.ramp(i, 4),))
    total = Store(out, (index(0),), ir.lanes_reduce("add", vec))
    k = Kernel(
        "lanes", (x, out), (Loop(i, 0, 8, 4, (Store(out, (index(1),), ir.lanes_reduce("maximum", vec)), total)),), ("out",)
    )
    a = arrays(k)
    np.testing.assert_allclose(outputs(k, a)["out"], [a["x"][4:].sum(), a["x"][4:].max()], rtol=1e-6)


def _program() -> Program:
    x, t, out = Buf("x", F, (6,)), Buf("t", F, (6,)), Buf("out", F, (6,))
    i = v("i", 6)
    double = Kernel("double", (x, t), (loop(i, Store(t, (i,), ir.apply("add", (load(x, (i,)), load(x, (i,)))))),), ("t",))
    negate = Kernel("negate", (t, out), (loop(i, Store(out, (i,), ir.apply("neg", (load(t, (i,)),)))),), ("out",))
    slots = (Slot("x", F, (6,), "input"), Slot("out", F, (6,), "output"), Slot("t", F, (6,), "temporary", 64))
    return Program("p", slots, (Call(double, (0, 2)), Call(negate, (2, 1))), 128)


def test_reference_backend_runs_a_program() -> None:
    backend = ReferenceBackend()
    assert backend.available() == ""
    e = backend.compile(_program())
    x, out = Buffer.of(np.arange(6.0), F), Buffer(6, F)
    times = e.run([x, out], clocks=True)
    np.testing.assert_array_equal(out.array, -2 * np.arange(6.0))
    assert times is not None and len(times.seconds) == len(times.starts) == 2
    assert e.source(1).startswith("kernel negate") and e.assembly(1) == ""
    with pytest.raises(ValueError, match="takes 2 buffers, got 1"):
        e.run([x])


def test_null_backend_touches_nothing() -> None:
    e = NullBackend().compile(_program())
    x, out = Buffer.of(np.arange(6.0), F), Buffer.of(np.ones(6), F)
    times = e.run([x, out], clocks=True)
    np.testing.assert_array_equal(out.array, np.ones(6))
    assert times is not None and times.seconds == (0.0, 0.0)
    assert e.run([x, out]) is None and NullBackend().available() == ""
    with pytest.raises(ValueError, match="takes 2 buffers"):
        e.run([])
