"""Dtypes against PyTorch: promotion, every bit pattern of the short floats, and what integers and floats do at their edges, the
same on every backend."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.peer import torch
from tinyengine import Tensor, backends, dtypes, state
from tinyengine.backends.graph_eval import evaluate
from tinyengine.choices import DEFAULT
from tinyengine.dtypes import DType
from tinyengine.machine import FIXTURE
from tinyengine.node import Graph
from tinyengine.pipeline import lower

Array = np.ndarray[Any, Any]
THEIRS = {d: getattr(torch, d.name) for d in dtypes.ALL if d.name[:3] != "fp8"} | {
    dtypes.fp8e4m3: torch.float8_e4m3fn, dtypes.fp8e5m2: torch.float8_e5m2,
}  # fmt: skip
NARROW = (dtypes.float16, dtypes.bfloat16, dtypes.fp8e4m3, dtypes.fp8e5m2)
EVERYWHERE = ("evaluator", "reference", "llvm", "opencl")


def values_of(tensors: list[Tensor], backend: str) -> list[Array]:
    """The values of all of them, by one program."""
    graph = Graph([t.node for t in tensors])
    if backend == "evaluator":
        return evaluate(graph)
    try:
        backends.get(backend)
    except backends.BackendError as e:
        pytest.skip(str(e))
    return lower(graph, DEFAULT, FIXTURE, backend).run()  # type: ignore[return-value]


def same(ours: Array, theirs: Array, what: str) -> None:
    """Equal, NaN where NaN, and the sign of zeros."""
    np.testing.assert_array_equal(ours, theirs, err_msg=what)
    if theirs.dtype.kind == "f":
        number = theirs == theirs
        np.testing.assert_array_equal(np.signbit(ours)[number], np.signbit(theirs)[number], err_msg=what)


# ---- promotion


def test_promotion_of_every_pair() -> None:
    for a, b in itertools.product(dtypes.ALL, repeat=2):
        try:
            theirs = torch.promote_types(THEIRS[a], THEIRS[b])
        except RuntimeError:  # no rule for 8-bit floats, nor for uint16 to uint64 beside other integers (here there are some)
            if "fp8" in a.name + b.name:
                with pytest.raises(TypeError, match="cast one of them"):
                    dtypes.promote(a, b)
            continue
        assert THEIRS[dtypes.promote(a, b)] is theirs, (a, b)


def test_promotion_with_numbers() -> None:
    for d in dtypes.ALL:
        for number in (True, 2, 2.5):
            theirs = torch.result_type(torch.ones(2).to(THEIRS[d]), number)
            ours = dtypes.promote_scalar(d, number)
            assert THEIRS[ours] is (torch.int32 if theirs is torch.int64 and d is not dtypes.int64 else theirs), (d, number)
            if d.name[:3] != "fp8" and d is not dtypes.bool_:
                assert (Tensor([1, 2], dtype=d) * number).dtype is ours


# ---- conversion


def patterns(d: DType) -> Array:
    """Every bit pattern, as memory holds it."""
    return np.arange(1 << 8 * d.itemsize).astype(f"uint{8 * d.itemsize}").view(d.numpy)


def samples() -> Array:
    """float32: ties and their neighbours of every short float, limits, subnormals, random bits and numbers of all sizes."""
    rng = np.random.default_rng(3)
    out = [np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3.4028235e38, 65504, 65519.996, 65520, 448, 464, 57344])]
    for d in NARROW:
        x = np.unique(d.decode(patterns(d)).astype(np.float32))
        x = x[np.isfinite(x)]
        ties = ((x[1:].astype(np.float64) + x[:-1]) / 2).astype(np.float32)
        ties = ties if len(ties) < 5000 else ties[:: len(ties) // 5000]
        out += [ties, np.nextafter(ties, np.float32(np.inf)), np.nextafter(ties, np.float32(-np.inf))]
    out.append(rng.integers(0, 1 << 32, 20_000, np.uint64).astype(np.uint32).view(np.float32))
    out.append(np.ldexp(rng.standard_normal(20_000), rng.integers(-30, 20, 20_000)))
    return np.concatenate([x.astype(np.float32) for x in out])


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_short_floats_convert_exactly(backend: str) -> None:
    x = samples()
    ours: list[Tensor] = []
    theirs: list[Array] = []
    for d in NARROW:
        memory = patterns(d)
        bits = f"uint{8 * d.itemsize}"
        all_of_them = Tensor(memory.view(bits)).bitcast(d)
        wide = torch.from_numpy(memory.view(f"int{8 * d.itemsize}")).view(THEIRS[d]).float()
        ours.append(all_of_them.float())
        theirs.append(wide.numpy())
        largest = d.layout.largest if d.layout is not None else None
        limited = x if largest is None else np.clip(x, -largest, largest)  # they saturate, PyTorch's do not
        ours.append(Tensor(x).cast(d).float())
        theirs.append(torch.from_numpy(limited).to(THEIRS[d]).float().numpy())
        back = all_of_them.float().cast(d)  # nothing is lost but the payload of NaN, and infinities that saturate
        kept = np.isfinite(wide.numpy()) | (d.itemsize > 1) & np.isinf(wide.numpy())
        ours.append(Tensor(kept).where(back.bitcast(bits), 0))
        theirs.append(np.where(kept, memory.view(bits), np.zeros((), bits)))
    for a, b in zip(values_of(ours, backend), theirs, strict=True):
        same(a, b, backend)


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_short_floats_compute_like_pytorch(backend: str) -> None:
    """One op rounds once. 8-bit floats have no arithmetic in PyTorch: there it is float32 and a cast."""
    rng = np.random.default_rng(4)
    cases: dict[str, Callable[..., Any]] = {
        "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": lambda a, b: a / b,
        "sqrt": lambda a, b: a.sqrt(), "neg": lambda a, b: -a, "maximum": lambda a, b: a.maximum(b), "lt": lambda a, b: a < b,
        "times": lambda a, b: a * 0.1, "minus": lambda a, b: a - 3.5,
        "over": lambda a, b: a / 3, "trunc": lambda a, b: a.trunc(), "abs": lambda a, b: a.abs(),
    }  # fmt: skip
    ours, theirs, labels = [], [], []
    for d in NARROW:
        x, y = (np.ldexp(rng.standard_normal(3000), rng.integers(-5, 5, 3000)).astype(np.float32) for _ in "xy")
        x[:8], y[:8] = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, np.inf, 0.0], [1.0, 2.0, -0.0, -0.0, 0.0, np.nan, -np.inf, 0.0]
        a, b = Tensor(x).cast(d), Tensor(y).cast(d)
        largest = d.layout.largest if d.layout is not None and d.layout.largest else np.inf
        s, t = (torch.from_numpy(np.clip(z, -largest, largest)).to(THEIRS[d]) for z in (x, y))
        for name, f in cases.items():
            out = f(s, t) if d.itemsize > 1 else f(s.float(), t.float())
            if out.dtype is not torch.bool:
                out = out.to(THEIRS[d]).float() if d.itemsize > 1 else out.clamp(-largest, largest).to(THEIRS[d]).float()
            result = f(a, b)
            ours.append(result if result.dtype is dtypes.bool_ else result.float())
            theirs.append(out.numpy())
            labels.append(f"{d} {name}")
    for got, want, label in zip(values_of(ours, backend), theirs, labels, strict=True):
        np.testing.assert_array_equal(got, want, err_msg=label)


COMPOSED: dict[str, Callable[..., Any]] = {
    "softmax": lambda x: x.softmax(-1), "log_softmax": lambda x: x.log_softmax(-1), "sum": lambda x: x.sum(-1),
    "mean": lambda x: x.mean(0), "var": lambda x: x.var(-1), "exp": lambda x: x.exp(), "tanh": lambda x: x.tanh(),
    "sigmoid": lambda x: x.sigmoid(), "matmul": lambda x: x @ x.T, "cumsum": lambda x: x.cumsum(-1), "max": lambda x: x.amax(-1),
}  # fmt: skip


@pytest.mark.parametrize("d", [dtypes.float16, dtypes.bfloat16], ids=str)
@pytest.mark.parametrize("backend", EVERYWHERE)
def test_functions_of_halves_are_float32_inside(backend: str, d: DType) -> None:
    """Within one rounding of the result of PyTorch, which computes them in float32 too; gradients likewise."""
    x = np.random.default_rng(5).standard_normal((24, 600)).astype(np.float32)
    h = Tensor(x).cast(d)
    t = torch.from_numpy(x).to(THEIRS[d])
    got = values_of([f(h).float() for f in COMPOSED.values()], backend)
    eps = 2.0 ** (1 - d.digits)
    for label, a in zip(COMPOSED, got, strict=True):
        b = COMPOSED[label](t)
        assert a.shape == tuple(b.shape), label
        np.testing.assert_allclose(a, b.float().numpy(), rtol=1.01 * eps, atol=600 * 1e-6, err_msg=label)


def test_training_in_bfloat16_stays_in_bfloat16() -> None:
    x = np.random.default_rng(6).standard_normal((8, 16)).astype(np.float32)
    w = Tensor(x, dtype="bfloat16", requires_grad=True)
    t = torch.from_numpy(x).bfloat16().requires_grad_()
    (w @ w.T).softmax(-1).square().sum().backward()
    (t @ t.T).softmax(-1).square().sum().backward()
    assert w.grad is not None and w.grad.dtype is dtypes.bfloat16
    np.testing.assert_allclose(w.grad.float().numpy(), t.grad.float().numpy(), atol=0.03)


# ---- what users do with them


def test_print_lists_numpy_and_files(tmp_path: Path) -> None:
    x = Tensor([1.0, 2.5, -3.0], dtype="bfloat16")
    assert repr(x) == "Tensor([ 1. ,  2.5, -3. ], dtype=bfloat16)" and x.tolist() == [1.0, 2.5, -3.0]
    assert x.nbytes == 6 and x.element_size() == 2 and x[1].item() == 2.5
    with pytest.raises(TypeError, match=r"x\.float\(\)\.numpy\(\)"):
        x.numpy()
    assert np.array_equal(x.float().numpy(), [1, 2.5, -3])
    named = {d.name: Tensor([1.0, -0.0, 1000.0, 1e-3], dtype=d) for d in NARROW}
    state.safe_save(named, tmp_path / "x.safetensors")
    for name, t in state.safe_load(tmp_path / "x.safetensors").items():
        assert t.dtype.name == name and t.tolist() == named[name].tolist()
    assert named["fp8e4m3"].tolist()[2] == 448.0
    safetensors = pytest.importorskip("safetensors.torch")
    for name, t in safetensors.load_file(tmp_path / "x.safetensors").items():
        assert t.dtype is THEIRS[dtypes.by_name(name)] and t.float().tolist() == named[name].tolist()


# ---- integers, casts, comparisons at their edges

INTS = [dtypes.int8, dtypes.int16, dtypes.int32, dtypes.int64, dtypes.uint8]


def edges(d: DType) -> Array:
    """Pairs of awkward integers."""
    candidates = (d.min, d.min + 1, -7, -3, -1, 0, 1, 2, 5, 8 * d.itemsize, 100, d.max - 1, d.max)
    some = sorted({v for v in candidates if d.min <= v <= d.max})
    return np.array(list(itertools.product(some, some)), d.numpy).T


ARITHMETIC: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "neg": lambda a, b: -a,
    "and": lambda a, b: a & b, "or": lambda a, b: a | b, "xor": lambda a, b: a ^ b, "not": lambda a, b: ~a,
    "lt": lambda a, b: a < b, "ge": lambda a, b: a >= b, "eq": lambda a, b: a == b, "maximum": lambda a, b: a.maximum(b),
    "float": lambda a, b: a / b, "abs": lambda a, b: a.abs(),
}  # fmt: skip
DIVISION: dict[str, Callable[..., Any]] = {
    "floor": lambda a, b: a // b, "trunc": lambda a, b: a.div(b, rounding_mode="trunc"), "mod": lambda a, b: a % b,
    "fmod": lambda a, b: a.fmod(b),
}  # fmt: skip


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_integers_at_their_edges(backend: str) -> None:
    ours, theirs, labels = [], [], []

    def add(label: str, mine: Tensor, other: Any) -> None:
        ours.append(mine)
        theirs.append(other.numpy())
        labels.append(label)

    for d in INTS:
        a, b = edges(d)
        for name, f in ARITHMETIC.items():
            add(f"{name} of {d}", f(Tensor(a), Tensor(b)), f(torch.from_numpy(a), torch.from_numpy(b)))
        whole = (b != 0) & ~((a == d.min) & (b == -1) if d.min else b == 0)  # PyTorch raises or traps
        for name, f in DIVISION.items():
            s, t = torch.from_numpy(a[whole]), torch.from_numpy(b[whole])
            add(f"{name} of {d}", f(Tensor(a[whole]), Tensor(b[whole])), f(s, t))
        for name, f in DIVISION.items():  # ours are defined: 0, and the wrapped quotient
            zero = a[b == 0]
            expected = torch.from_numpy(zero if name == "fmod" else np.zeros_like(zero))
            add(f"{name} of {d} by 0", f(Tensor(zero), Tensor(np.zeros_like(zero))), expected)
        if d.min:
            low = np.full(3, d.min, d.numpy)
            add(f"lowest {d} // -1", Tensor(low) // Tensor(np.full(3, -1, d.numpy)), torch.from_numpy(low))
        count = np.tile(np.arange(8 * d.itemsize + 3), 4).astype(d.numpy)  # by the width and more too
        x = np.resize(a, count.shape)
        add(f"{d} <<", Tensor(x) << Tensor(count), torch.from_numpy(x) << torch.from_numpy(count))
        add(f"{d} >>", Tensor(x) >> Tensor(count), torch.from_numpy(x) >> torch.from_numpy(count))
        for e in INTS:
            add(f"{d} to {e}", Tensor(a).cast(e), torch.from_numpy(a).to(THEIRS[e]))
    for got, want, label in zip(values_of(ours, backend), theirs, labels, strict=True):
        np.testing.assert_array_equal(got, want, err_msg=label)
        assert got.dtype == want.dtype or label.startswith("float"), label


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_unsigned_integers_wrap(backend: str) -> None:
    """PyTorch has few functions of uint16 to uint64; NumPy has all."""
    ours, theirs = [], []
    for d in (dtypes.uint8, dtypes.uint16, dtypes.uint32, dtypes.uint64):
        a, b = edges(d)
        safe = np.where(b == 0, d.numpy.type(1), b)
        zero = d.numpy.type(0)
        with np.errstate(all="ignore"):
            theirs += [a + b, a - b, a * b, zero - a, a < b, a.max()]
            theirs += [np.where(b == 0, zero, f(a, safe)) for f in (np.floor_divide, np.mod)]
        x, y = Tensor(a), Tensor(b)
        ours += [x + y, x - y, x * y, -x, x < y, x.max(), x // y, x % y]
    for got, want in zip(values_of(ours, backend), theirs, strict=True):
        np.testing.assert_array_equal(got, want)
        assert got.dtype == want.dtype


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_floats_at_their_edges(backend: str) -> None:
    """NaN, infinities, signed zeros; remainders with all signs; casts to integers, out of range the nearest, NaN 0."""
    special = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 2.5, -2.5, 0.1, 7.0, -7.0, 3.0, -3.0, 1e8, 1e-3]
    ours, theirs, labels = [], [], []
    for kind in (np.float32, np.float64):
        a, b = np.array(list(itertools.product(special, special))).astype(kind).T
        x, y, s, t = Tensor(a), Tensor(b), torch.from_numpy(a.copy()), torch.from_numpy(b.copy())
        both: dict[str, Callable[..., Any]] = {
            "maximum": lambda a, b: a.maximum(b), "minimum": lambda a, b: a.minimum(b), "lt": lambda a, b: a < b,
            "le": lambda a, b: a <= b, "ge": lambda a, b: a >= b, "eq": lambda a, b: a == b, "ne": lambda a, b: a != b,
            "add": lambda a, b: a + b, "mul": lambda a, b: a * b, "div": lambda a, b: a / b, **DIVISION,
        }  # fmt: skip
        for name, f in both.items():
            ours.append(f(x, y))
            theirs.append(f(s, t).numpy())
            labels.append(f"{name} of {x.dtype}")
        wild = np.array([*special, 300.0, -300.0, 2.0**31, -(2.0**31) - 300, 2.0**63, -(2.0**64), 1e30]).astype(kind)
        for d in dtypes.ALL:
            if d.is_int:
                ours.append(Tensor(wild).cast(d))
                exact = [0 if v != v else d.max if v >= d.max else d.min if v <= d.min else int(v) for v in wild.tolist()]
                theirs.append(np.array(exact, d.numpy))
                labels.append(f"{x.dtype} to {d}")
        ours += [Tensor(wild).bool(), Tensor(wild).cast("bool")]
        theirs += [wild != 0, wild != 0]
        labels += ["to bool"] * 2
    for got, want, label in zip(values_of(ours, backend), theirs, labels, strict=True):
        np.testing.assert_array_equal(got, want, err_msg=label)
        if label.startswith(("add", "mul", "div", "trunc")):
            same(got, want, label)


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_bools_and_bits(backend: str) -> None:
    a, b = (np.array(v) for v in zip(*itertools.product([False, True], repeat=2), strict=True))
    x, y, s, t = Tensor(a), Tensor(b), torch.from_numpy(a), torch.from_numpy(b)
    cases: list[Callable[..., Any]] = [
        lambda a, b: a + b, lambda a, b: a * b, lambda a, b: a & b, lambda a, b: a | b, lambda a, b: a ^ b, lambda a, b: ~a,
        lambda a, b: a < b, lambda a, b: a == b, lambda a, b: a / b, lambda a, b: a + 1, lambda a, b: a * 2.5,
    ]  # fmt: skip
    bits = np.arange(-50, 50, dtype=np.float32)
    ours = [f(x, y) for f in cases] + [Tensor(bits).bitcast("int32"), Tensor(bits).bitcast("uint16").bitcast("bfloat16").float()]
    theirs = [f(s, t).numpy() for f in cases]
    theirs += [bits.view(np.int32), torch.from_numpy(bits).view(torch.bfloat16).float().numpy()]
    for i, (got, want) in enumerate(zip(values_of(ours, backend), theirs, strict=True)):
        np.testing.assert_array_equal(got, want, err_msg=str(i))
        assert got.dtype == (np.int32 if want.dtype == np.int64 else want.dtype), i


# ---- halves move half the bytes; products of bfloat16 by the machine's dot product


CHAINS: dict[str, Callable[[Tensor], Tensor]] = {
    "chain": lambda x: (x * 1.5 + 0.25).gelu() * 0.5 + 1.0, "softmax": lambda x: x.softmax(-1),
    "layernorm": lambda x: x.layernorm(), "residual": lambda x: x + (x * 2).relu(),
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_halves_move_half_the_bytes_in_as_many_kernels(name: str) -> None:
    x = Tensor(np.ones((64, 256), np.float32))
    whole = lower(Graph([CHAINS[name](x).node]), DEFAULT, FIXTURE, "null")
    for d in (dtypes.float16, dtypes.bfloat16):
        h = Tensor(np.ones((64, 256), np.float32), dtype=d)
        half = lower(Graph([CHAINS[name](h).node]), DEFAULT, FIXTURE, "null")
        assert half.certificate.launches == whole.certificate.launches == 1
        assert half.certificate.bytes_read * 2 == whole.certificate.bytes_read == x.nbytes
        assert half.certificate.bytes_written * 2 == whole.certificate.bytes_written == x.nbytes
        text = half.scheduled[0].text()
        assert re.search(r" step (16|32|64):", text) and text.count(f" = {d}(") == 1, text  # vectors; rounded once, when stored


def test_a_half_that_is_stored_between_kernels_is_a_half() -> None:
    x, w, v = (Tensor(np.ones((64, 64), np.float32), dtype="bfloat16") for _ in "xwv")
    c = lower(Graph([((x @ w).relu().contiguous() @ v).node]), DEFAULT, FIXTURE, "null")
    assert len(c.plan.calls) == 2 and {s.dtype.name for s in c.plan.slots} == {"bfloat16"}


def test_a_cast_that_was_asked_for_rounds() -> None:
    x = Tensor([1.001, 2.003])
    assert (x.bfloat16().float() * 2).tolist() == [2.0, 4.0]
    assert ((x * 1).half().float()).tolist() == torch.tensor([1.001, 2.003]).half().float().tolist()


@pytest.mark.parametrize("form", ["nn", "nt", "tn", "batched"])
@pytest.mark.parametrize("backend", EVERYWHERE)
def test_products_of_bfloat16_add_up_in_float32(backend: str, form: str) -> None:
    rng = np.random.default_rng(8)
    m, n, k = 37, 70, 46
    a = rng.standard_normal({"tn": (k, m), "batched": (3, m, k)}.get(form, (m, k))).astype(np.float32)
    b = rng.standard_normal({"nt": (n, k), "batched": (3, k, n)}.get(form, (k, n))).astype(np.float32)
    functions: dict[str, Callable[..., Any]] = {
        "nt": lambda a, b: a @ b.T, "tn": lambda a, b: a.T @ b,
    }  # fmt: skip
    f = functions.get(form, lambda a, b: a @ b)
    x, y = Tensor(a, dtype="bfloat16"), Tensor(b, dtype="bfloat16")
    c = lower(Graph([f(x, y).node]), DEFAULT, FIXTURE, "null")
    assert "dot2(" in c.scheduled[0].text()
    assert any(d.kind == "dot" and d.verdict.startswith("dot(") for d in c.decisions)
    (got,) = values_of([f(x, y).float()], backend)
    exact = f(*(torch.from_numpy(v).bfloat16().double() for v in (a, b))).numpy()
    np.testing.assert_allclose(got, exact, rtol=2.0**-8 * 1.01, atol=2e-5)


def test_the_dot_product_is_refused_with_a_reason() -> None:
    def decision(m: int, k: int, machine: Any) -> Any:
        x, y = Tensor(np.ones((m, k), np.float32), dtype="bfloat16"), Tensor(np.ones((k, 64), np.float32), dtype="bfloat16")
        c = lower(Graph([(x @ y).node]), DEFAULT, machine, "null")
        assert "dot2" not in c.scheduled[0].text()
        return next(d for d in c.decisions if d.kind == "dot")

    assert "has no dot product of bfloat16" in decision(32, 64, dataclasses.replace(FIXTURE, dots="")).reason
    assert "do not come in pairs" in decision(32, 63, FIXTURE).reason
    assert "too few rows" in decision(4, 64, FIXTURE).reason


def test_the_dot_product_is_one_instruction_where_the_machine_has_it() -> None:
    from tinyengine.backends.llvm_jit import host

    if not host().dots:
        pytest.skip("no AVX512_BF16 here")
    x, y = (Tensor(np.ones((64, 64), np.float32), dtype="bfloat16") for _ in "xy")
    c = lower(Graph([(x @ y).node]), DEFAULT, FIXTURE, "llvm")
    assert "vdpbf16ps" in c.executable.assembly(0)


def test_the_upper_halves_of_vectors_are_packed_by_a_shuffle() -> None:
    """What a bfloat16 keeps of a float32: two vectors of 16 bits take one shuffle, and no lane is shifted and truncated."""
    if why := backends.get("llvm").available():
        pytest.skip(why)
    x = Tensor(np.ones(256, np.float32))
    (kernel,) = lower(Graph([(x * 3.0).cast("bfloat16").node]), machine=FIXTURE, backend="llvm").kernels
    assert "shufflevector" in kernel.source and "trunc <" not in kernel.source
