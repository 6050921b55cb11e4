"""The same programs on every backend with values: ops on awkward numbers, every kind of access and statement, whole graphs.

Many cases go into one program, because compiling is what takes time on some drivers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from tinyengine import backends, dtypes
from tinyengine.backends import Backend, BackendError
from tinyengine.backends.graph_eval import evaluate
from tinyengine.dtypes import DType
from tinyengine.loopnest import (
    Accumulate,
    Alloc,
    Buf,
    Check,
    Expr,
    Kernel,
    Let,
    Loop,
    Prefetch,
    Stmt,
    Store,
    apply,
    const,
    index,
    lanes_reduce,
    load,
    name,
    ramp,
    splat,
    var,
)  # fmt: skip
from tinyengine.machine import FIXTURE
from tinyengine.node import Graph, Node, toposort
from tinyengine.ops import OPS
from tinyengine.origin import Origin
from tinyengine.pipeline import lower
from tinyengine.program import Call, Program, Slot
from tinyengine.runtime.buffer import Buffer
from tinyengine.stages import loops
from tinyengine.stages.primitives import apply as schedule_primitives

from .graphs import buf, conv2d, ew, expand, fused, layernorm, matmul, num, op, permute, red, reshape, softmax

Array = np.ndarray[Any, Any]
F32, I32, I64 = dtypes.float32, dtypes.int32, dtypes.int64
rng = np.random.default_rng(7)


@pytest.fixture(params=["reference", "llvm", "opencl"])
def backend(request: pytest.FixtureRequest) -> Backend:
    try:
        return backends.get(request.param)
    except BackendError as e:
        pytest.skip(str(e))


def run_kernel(backend: Backend, kernel: Kernel, /, **given: Array) -> dict[str, Array]:
    """The values of the outputs after one run; outputs that are not given start as ones."""
    slots, memory = [], []
    for p in kernel.params:
        role = "input" if p.name not in kernel.outputs else "state" if p.name in given else "output"
        slots.append(Slot(p.name, p.dtype, p.shape, role))
        memory.append(Buffer.of(given.get(p.name, np.ones(p.size)), p.dtype, p.name))
    program = Program("test", tuple(slots), (Call(kernel, tuple(range(len(slots)))),), 0)
    backend.compile(program).run(memory)
    return {
        p.name: b.values.reshape(p.shape).copy() for p, b in zip(kernel.params, memory, strict=True) if p.name in kernel.outputs
    }


# ---- every elementwise op

COUNT = 64


def numbers(d: DType) -> Array:
    """Awkward ones first."""
    if d is dtypes.bool_:
        return np.arange(COUNT) % 3 == 0
    if d.is_float:
        f = np.finfo(d.values)
        special = [
            np.nan,
            np.inf,
            -np.inf,
            0.0,
            -0.0,
            f.tiny,
            -f.tiny,
            f.smallest_subnormal,
            f.max,
            f.min,
            1.0,
            -1.0,
            0.5,
            2.5,
            -2.5,
            1e-3,
        ]
        return np.concatenate([special, rng.standard_normal(COUNT - len(special)) * 3]).astype(d.values)
    i = np.iinfo(d.numpy)
    special = [0, 1, 2, 3, 7, i.max, i.max - 1, i.min, i.min + 1] + ([-1, -2, -7] if i.min else [])
    return np.concatenate([np.array(special, d.numpy), rng.integers(i.min, i.max, COUNT - len(special), d.numpy, endpoint=True)])


FLOAT = [
    "add",
    "sub",
    "mul",
    "div",
    "maximum",
    "minimum",
    "neg",
    "sqrt",
    "reciprocal",
    "trunc",
    "round",
    "lt",
    "eq",
    "where",
    "fma",
    "exp",
    "exp2",
    "log",
]
FLOAT += ["sin", "tanh", "erf", "floordiv", "mod"]
INT = ["add", "sub", "mul", "floordiv", "mod", "maximum", "minimum", "neg", "lt", "eq", "where", "and", "or", "xor", "shl", "shr"]
BOOL = ["and", "or", "xor", "add", "mul", "maximum", "minimum", "lt", "eq", "where"]
ULPS = {"exp": 2.0, "exp2": 2.0, "log": 2.0, "sin": 4.0, "tanh": 4.0, "erf": 4.0, "fma": 2.0, "floordiv": 0.0, "mod": 0.0}


def operands(opname: str, d: DType) -> tuple[list[DType], list[Array]]:
    a = numbers(d)
    b = np.roll(a, 5)
    arity = OPS[opname].arity
    if opname == "where":
        return [dtypes.bool_, d, d], [numbers(dtypes.bool_), a, b]
    if opname in ("shl", "shr"):
        b = (np.arange(COUNT) % (8 * d.itemsize + 2)).astype(d.numpy)
    # what is hard about huge arguments is tested elsewhere
    if opname in ("sin", "exp", "exp2", "tanh", "erf", "floordiv", "mod", "fma"):
        with np.errstate(all="ignore"):
            a, b = (np.where(np.abs(x.astype(np.float64)) > 100, x.dtype.type(3), x) if d.is_float else x for x in (a, b))
    if opname in ("floordiv", "mod") and d.is_float:
        b = np.where(np.abs(b) < 0.1, d.numpy.type(0.75), b)
    return [d] * arity, [a, b, np.roll(a, 11)][:arity]


def everywhere(build: Callable[[Callable[[int], Expr], int], Expr], inputs: Sequence[Buf], out: Buf) -> list[Stmt]:
    """out[i] = build(...) for all i: by scalars, by 16 lanes, by odd numbers of lanes, and masked."""
    stmts: list[Stmt] = []
    i = var("i", 0, 15)
    stmts.append(Loop(i, 0, 16, 1, (Store(out, (i,), build(lambda k: load(inputs[k], (i,)), 1)),)))
    for at, lanes in ((16, 16), (32, 3), (35, 5), (40, 8), (48, 2), (50, 4)):
        place = ramp(index(at), lanes)
        stmts.append(Store(out, (place,), build(lambda k, p=place: load(inputs[k], (p,)), lanes)))
    place = ramp(index(54), 16)  # beyond the end: masked
    inside = apply("lt", (place, index(COUNT)))
    stmts.append(Store(out, (place,), build(lambda k: load(inputs[k], (place,), inside), 16), inside))
    return stmts


def check_ops(backend: Backend, d: DType, names: Sequence[str]) -> None:
    params: dict[str, Buf] = {}
    given: dict[str, Array] = {}
    body: list[Stmt] = []
    expected: dict[str, tuple[Array, float]] = {}
    for opname in names:
        kinds, values = operands(opname, d)
        bufs = [Buf(f"{opname}_{k}", kind, (COUNT,)) for k, kind in enumerate(kinds)]
        result = dtypes.bool_ if opname in ("lt", "eq") else d
        out = Buf(f"{opname}_out", result, (COUNT,))
        body += everywhere(lambda x, lanes, o=opname, n=OPS[opname].arity: apply(o, tuple(x(k) for k in range(n))), bufs, out)
        params |= {b.name: b for b in (*bufs, out)}
        given |= {b.name: v for b, v in zip(bufs, values, strict=True)}
        f = OPS[opname].numpy
        assert f is not None
        wide = [v.astype(np.float64) if opname in ULPS and v.dtype.kind == "f" else v for v in values]
        with np.errstate(all="ignore"):
            expected[out.name] = (np.asarray(f(*wide)).astype(result.numpy), ULPS.get(opname, 0.0) if d.is_float else 0.0)
    outputs = tuple(expected)
    got = run_kernel(backend, Kernel("ops", tuple(params.values()), tuple(body), outputs), **given)
    for label, (want, ulps) in expected.items():
        if ulps and d.is_float:
            # a product may be rounded or not before it is added: half an ulp of a number below 128
            floor = 64 * float(np.finfo(d.numpy).eps) if label == "fma_out" else float(np.finfo(d.numpy).smallest_subnormal)
            rtol = ulps * float(np.finfo(d.numpy).eps)
            np.testing.assert_allclose(got[label], want, rtol=rtol, atol=floor, err_msg=f"{d} {label}")
        else:
            np.testing.assert_array_equal(got[label], want, err_msg=f"{d} {label}")


@pytest.mark.parametrize("d", [dtypes.float32, dtypes.float64, dtypes.float16], ids=str)
def test_ops_on_floats(backend: Backend, d: DType) -> None:
    check_ops(backend, d, FLOAT)


@pytest.mark.parametrize("d", [d for d in dtypes.ALL if d.is_int], ids=str)
def test_ops_on_integers(backend: Backend, d: DType) -> None:
    check_ops(backend, d, INT)


def test_ops_on_bools(backend: Backend) -> None:
    check_ops(backend, dtypes.bool_, BOOL)


def test_threefry(backend: Backend) -> None:
    check_ops(backend, dtypes.uint32, ["threefry"])


def test_casts_between_all_dtypes(backend: Backend) -> None:
    params, given, body, expected = {}, {}, [], {}
    for a in dtypes.ALL:
        x = Buf(f"x_{a}", a, (COUNT,))
        params[x.name], given[x.name] = x, a.convert(numbers(a))
        for b in dtypes.ALL:
            values = given[x.name]
            out = Buf(f"{a}_to_{b}", b, (COUNT,))
            params[out.name] = out
            body += everywhere(lambda get, lanes, b=b: apply("cast", (get(0),), b), [x], out)
            with np.errstate(all="ignore"):
                if a.is_float and b.is_int:  # the nearest; 0 for NaN
                    low, high = int(b.min), int(b.max)
                    exact = values.astype(np.float64)
                    wanted = [0 if np.isnan(v) else low if v <= low else high if v >= high else int(v) for v in exact]
                    expected[out.name] = np.array(wanted, b.numpy)
                elif b is dtypes.float16 and a.is_int:
                    expected[out.name] = values.astype(np.float32).astype(np.float16)
                else:
                    expected[out.name] = b.convert(values)
    got = run_kernel(backend, Kernel("casts", tuple(params.values()), tuple(body), tuple(expected)), **given)
    for label, want in expected.items():
        np.testing.assert_array_equal(got[label], want, err_msg=label)


def test_bitcasts(backend: Backend) -> None:
    pairs = [
        ("float32", "int32"),
        ("uint32", "float32"),
        ("float16", "uint16"),
        ("int16", "float16"),
        ("float64", "int64"),
        ("uint8", "int8"),
        ("int8", "bool"),
        ("bool", "uint8"),
    ]
    params, given, body, expected = {}, {}, [], {}
    for a, b in ((dtypes.by_name(a), dtypes.by_name(b)) for a, b in pairs):
        values = numbers(a)
        if a is dtypes.int16:
            values = np.where((values.view(np.uint16) & 0x7C00) == 0x7C00, np.int16(1), values)  # a NaN may change its payload
        x, out = Buf(f"x_{a}", a, (COUNT,)), Buf(f"out_{a}_{b}", b, (COUNT,))
        params |= {x.name: x, out.name: out}
        given[x.name], expected[out.name] = values, values != 0 if b is dtypes.bool_ else values.view(b.numpy)
        body += everywhere(lambda get, lanes, b=b: Expr("bitcast", b, lanes, (get(0),)), [x], out)
    got = run_kernel(backend, Kernel("bitcasts", tuple(params.values()), tuple(body), tuple(expected)), **given)
    for label, want in expected.items():
        same = got[label] == want if want.dtype.kind != "f" else (got[label] == want) | (np.isnan(got[label]) & np.isnan(want))
        nan = np.isnan(given["x_" + label.split("_")[1]]) if label.split("_")[1].startswith("float") else np.zeros(COUNT, bool)
        assert (same | nan).all(), label


# ---- accesses and statements

SIZE = 96


def x_buf(d: DType = F32, size: int = SIZE) -> Buf:
    return Buf("x", d, (size,))


def out_buf(d: DType = F32, size: int = SIZE) -> Buf:
    return Buf("out", d, (size,))


def test_accesses_of_all_kinds(backend: Backend) -> None:
    """Strided, backwards, broadcast, gathered, 32 lanes, all under masks too."""
    for d in (F32, dtypes.bool_, dtypes.float16, dtypes.int64):
        x, at = x_buf(d), Buf("at", I32, (SIZE,))
        values = numbers(F32)[: SIZE // 2].astype(np.float32)
        data = np.nan_to_num(np.concatenate([values, -values]), posinf=9, neginf=-9).clip(-1000, 1000).astype(d.numpy)
        places = rng.integers(0, SIZE, SIZE).astype(np.int32)
        i = index
        lanes = 16
        masks = {"none": None, "some": [k % 3 != 1 for k in range(32)], "first": [k < 11 for k in range(32)]}
        params, body, expected = [x, at, Buf("bits", dtypes.bool_, (32,))], [], {}
        bits = np.array(masks["some"])
        for label, mask in masks.items():
            for kind, n in (
                ("forward", 16),
                ("wide", 32),
                ("stride", 16),
                ("backwards", 16),
                ("same", 16),
                ("gather", 16),
                ("odd", 13),
            ):
                out = Buf(f"{kind}_{label}", d, (32,))
                lanes = n
                where: Expr
                if kind == "stride":
                    where, want = ramp(i(2), lanes, 3), [2 + 3 * k for k in range(n)]
                elif kind == "backwards":
                    where, want = ramp(i(40), lanes, -1), [40 - k for k in range(n)]
                elif kind == "same":
                    where, want = splat(i(5), lanes), [5] * n
                elif kind == "gather":
                    where, want = apply("cast", (load(at, (ramp(i(8), lanes),)),), I64), list(places[8 : 8 + n])
                else:
                    where, want = ramp(i(7), lanes), [7 + k for k in range(n)]
                m: Expr | None = None
                if label == "some":
                    m = load(params[2], (ramp(i(0), lanes),))
                elif label == "first":
                    m = apply("lt", (ramp(i(0), lanes), i(11)))
                body.append(Store(out, (ramp(i(0), lanes),), load(x, (where,), m)))
                params.append(out)
                result = np.ones(32, d.numpy)
                result[:n] = [data[w] if mask is None or mask[k] else 0 for k, w in enumerate(want)]
                expected[out.name] = result
        got = run_kernel(backend, Kernel("accesses", tuple(params), tuple(body), tuple(expected)), x=data, at=places, bits=bits)
        for label, want in expected.items():
            np.testing.assert_array_equal(got[label], want, err_msg=f"{d} {label}")


def test_a_masked_load_does_not_touch_what_is_outside(backend: Backend) -> None:
    """A scalar, a broadcast and a vector far outside the buffer, under masks that are off."""
    x, off, out = x_buf(size=4), Buf("off", dtypes.bool_, (16,)), out_buf(size=64)
    far, lanes = index(1 << 40), ramp(index(0), 16)
    one, many = load(off, (index(0),)), load(off, (lanes,))
    body = (
        Store(out, (index(0),), load(x, (far,), one)),
        Store(out, (ramp(index(16), 16),), load(x, (far,), many)),
        Store(out, (ramp(index(32), 16),), load(x, (ramp(far, 16),), many)),
        Store(out, (ramp(index(48), 16),), load(x, (ramp(far, 16, -2),), many)),
        Store(out, (ramp(far, 16),), const(1.0, F32, 16), many),
    )
    if backend.name == "reference":
        pytest.skip("the interpreter works out every address before it looks at the mask; its own tests say what it refuses")
    got = run_kernel(backend, Kernel("far", (x, off, out), body, ("out",)), x=np.ones(4), off=np.zeros(16, bool))["out"]
    assert got[0] == 0 and (got[1:16] == 1).all() and (got[16:] == 0).all()


def test_stores_of_all_kinds(backend: Backend) -> None:
    """Masked, strided, scattered with equal addresses (the last lane wins), overlapping with what is read."""
    x, at, bits = x_buf(), Buf("at", I32, (16,)), Buf("bits", dtypes.bool_, (16,))
    data = np.arange(SIZE, dtype=np.float32)
    places = np.array([3, 3, 5, 9, 9, 9, 0, 1, 2, 3, 60, 61, 62, 4, 4, 7], np.int32)
    mask = np.arange(16) % 4 != 2
    lane = ramp(index(0), 16)
    value, m = load(x, (ramp(index(20), 16),)), load(bits, (lane,))
    where = apply("cast", (load(at, (lane,)),), I64)
    outs = [Buf(n, F32, (SIZE,)) for n in ("masked", "first", "strided", "scattered", "scattered_masked", "wide", "scalar_mask")]
    masked, first, strided, scattered, scattered_masked, wide, scalar_mask = outs
    body = (
        Store(masked, (ramp(index(3), 16),), value, m),
        Store(first, (ramp(index(3), 16),), value, apply("lt", (lane, index(11)))),
        Store(strided, (ramp(index(2), 16, 5),), value),
        Store(scattered, (where,), value),
        Store(scattered_masked, (where,), value, m),
        Store(wide, (ramp(index(1), 32),), load(wide, (ramp(index(0), 32),))),
        Store(scalar_mask, (ramp(index(0), 16),), value, load(bits, (index(2),))),
        Store(scalar_mask, (ramp(index(16), 16),), value, load(bits, (index(3),))),
    )
    want = {b.name: np.ones(SIZE, np.float32) for b in outs}
    v = data[20:36]
    want["masked"][3:19][mask] = v[mask]
    want["first"][3:14] = v[:11]
    want["strided"][2:82:5] = v
    for k in range(16):
        want["scattered"][places[k]] = v[k]
        if mask[k]:
            want["scattered_masked"][places[k]] = v[k]
    want["wide"][:] = data
    want["wide"][1:33] = data[:32]
    want["scalar_mask"][16:32] = v
    kernel = Kernel("stores", (x, at, bits, *outs), body, tuple(b.name for b in outs))
    got = run_kernel(backend, kernel, x=data, at=places, bits=mask, wide=data)
    for label, w in want.items():
        np.testing.assert_array_equal(got[label], w, err_msg=label)


@pytest.mark.parametrize("opname", ["add", "maximum", "mul"])
@pytest.mark.parametrize("d", [F32, I32, dtypes.float16, dtypes.int64], ids=str)
def test_accumulations_of_all_kinds(backend: Backend, opname: str, d: DType) -> None:
    x, at, bits = x_buf(d), Buf("at", I32, (32,)), Buf("bits", dtypes.bool_, (32,))
    data = (np.arange(SIZE) % 5 - 2).astype(d.numpy)
    if opname == "mul":
        data = np.where(data == 0, 1, data).astype(d.numpy) % 3 + 1
    places, mask = (np.arange(32) * 7 % 11).astype(np.int32), np.arange(32) % 4 != 2
    i, lane = var("i", 0, 6), ramp(index(0), 16)
    f: Any = {"add": np.add, "maximum": np.maximum, "mul": np.multiply}[opname]
    outs = {
        n: Buf(n, d, (SIZE,))
        for n in ("scalar", "vector", "wide", "masked", "lanes", "lanes_masked", "scattered", "odd", "first")
    }
    where = apply("cast", (load(at, (ramp(index(0), 32),)),), I64)
    m16 = load(bits, (lane,))
    body = (
        Loop(i, 0, 7, 1, (Accumulate(outs["scalar"], (index(1),), opname, load(x, (i,))),), reduce=True),
        Accumulate(outs["vector"], (ramp(index(4), 16),), opname, load(x, (lane,))),
        Accumulate(outs["wide"], (ramp(index(4), 32),), opname, load(x, (ramp(index(2), 32),))),
        Accumulate(outs["masked"], (ramp(index(4), 16),), opname, load(x, (lane,)), m16),
        Accumulate(outs["first"], (ramp(index(4), 16),), opname, load(x, (lane,)), apply("lt", (lane, index(5)))),
        Accumulate(outs["lanes"], (index(2),), opname, load(x, (ramp(index(0), 8),))),
        Accumulate(outs["lanes_masked"], (index(2),), opname, load(x, (lane,)), m16),
        Accumulate(outs["scattered"], (where,), opname, load(x, (ramp(index(0), 32),)), load(bits, (ramp(index(0), 32),))),
        Accumulate(outs["odd"], (ramp(index(0), 7),), opname, load(x, (ramp(index(0), 7),))),
    )
    want = {n: np.ones(SIZE, d.numpy) for n in outs}
    for k in range(7):
        want["scalar"][1] = f(want["scalar"][1], data[k])
    want["vector"][4:20] = f(want["vector"][4:20], data[:16])
    want["wide"][4:36] = f(want["wide"][4:36], data[2:34])
    want["masked"][4:20] = np.where(mask[:16], f(want["masked"][4:20], data[:16]), 1)
    want["first"][4:9] = f(want["first"][4:9], data[:5])
    for k in range(16):
        if k < 8:
            want["lanes"][2] = f(want["lanes"][2], data[k])
        if mask[k]:
            want["lanes_masked"][2] = f(want["lanes_masked"][2], data[k])
    for k in range(32):
        if mask[k]:
            want["scattered"][places[k]] = f(want["scattered"][places[k]], data[k])
    want["odd"][:7] = f(want["odd"][:7], data[:7])
    kernel = Kernel("accumulations", (x, at, bits, *outs.values()), body, tuple(outs))
    got = run_kernel(backend, kernel, x=data, at=places, bits=mask)
    for label, w in want.items():
        np.testing.assert_array_equal(got[label], w, err_msg=label)


@pytest.mark.parametrize("lanes", [2, 3, 8, 13, 16, 40])
def test_lanes_reduce(backend: Backend, lanes: int) -> None:
    cases = [(d, o) for d in (F32, I32, I64, dtypes.float16) for o in ("add", "maximum", "mul")] + [
        (dtypes.bool_, "add"),
        (dtypes.bool_, "mul"),
    ]
    params, given, body, want = {}, {}, [], {}
    for d, o in cases:
        x, out = Buf(f"x_{d}", d, (SIZE,)), Buf(f"{o}_{d}", d, (2,))
        data = (np.arange(SIZE) % 3).astype(d.numpy) if o != "mul" else (1 + (np.arange(SIZE) % 17 == 0)).astype(d.numpy)
        x = Buf(f"x_{o}_{d}", d, (SIZE,))
        params |= {x.name: x, out.name: out}
        given[x.name] = data
        f: Any = {"add": np.add, "maximum": np.maximum, "mul": np.multiply}[o]
        want[out.name] = np.array([f.reduce(data[k : k + lanes], dtype=d.numpy) for k in (1, 20)], d.numpy)
        body += [Store(out, (index(n),), lanes_reduce(o, load(x, (ramp(index(k), lanes),)))) for n, k in enumerate((1, 20))]
    got = run_kernel(backend, Kernel("reduce", tuple(params.values()), tuple(body), tuple(want)), **given)
    for label, w in want.items():
        np.testing.assert_array_equal(got[label], w, err_msg=label)


def test_registers_locals_and_unrolled_loops(backend: Backend) -> None:
    """A register tile; a register indexed by a loop; a large and a small local buffer; names that mean one thing per block."""
    n, k = 32, 48
    a, b, out, sums = Buf("a", F32, (4, k)), Buf("b", F32, (k, n)), Buf("c", F32, (4, n)), Buf("sums", F32, (8,))
    acc, panel = Buf("acc", F32, (4, n), "register"), Buf("panel", F32, (k, n), "local")
    big, moving = Buf("big", F32, (6000,), "local"), Buf("moving", F32, (8,), "register")
    r, i, j, p, q = var("r", 0, k - 1), var("i", 0, 3), var("j", 0, n - 16), var("p", 0, 7), var("q", 0, 5999)
    jv = ramp(j, 16)
    v, w = Let("v", load(a, (i, r))), Let("w", load(panel, (r, jv)))
    product = Let("vw", apply("mul", (name("v", F32), name("w", F32, 16))))
    tile = Loop(
        i, 0, 4, 1, (v, Loop(j, 0, n, 16, (w, product, Accumulate(acc, (i, jv), "add", name("vw", F32, 16))), "unroll")), "unroll"
    )
    body: tuple[Stmt, ...] = (
        Alloc(panel),
        Loop(r, 0, k, 1, (Loop(j, 0, n, 16, (Prefetch(b, (r, jv)), Store(panel, (r, jv), load(b, (r, jv))))),)),
        Alloc(acc, 0.0),
        Loop(r, 0, k, 1, (tile,), reduce=True),
        Loop(
            i,
            0,
            4,
            1,
            (Loop(j, 0, n, 16, (Let("v", load(acc, (i, jv))), Store(out, (i, jv), name("v", F32, 16))), "unroll"),),
            "unroll",
        ),
        Alloc(big, 2.0),
        Loop(q, 0, 6000, 1, (Accumulate(big, (q,), "add", apply("cast", (q,), F32)),)),
        Alloc(moving, 1.0),
        Loop(p, 0, 8, 1, (Accumulate(moving, (p,), "add", load(big, (apply("mul", (p, index(700))),))),)),
        Loop(p, 0, 8, 1, (Store(sums, (p,), load(moving, (p,))),)),
    )
    x, y = rng.standard_normal((4, k)).astype(np.float32), rng.standard_normal((k, n)).astype(np.float32)
    got = run_kernel(backend, Kernel("tile", (a, b, out, sums), body, ("c", "sums")), a=x, b=y)
    np.testing.assert_allclose(got["c"], x @ y, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(got["sums"], 3 + 700 * np.arange(8))


@pytest.mark.parametrize("size", [4, 6000])
def test_parallel_iterations_have_their_own_memory(backend: Backend, size: int) -> None:
    """A parallel loop between two serial statements; with a little and with a lot of local memory per iteration."""
    x, out = Buf("x", I32, (100,)), Buf("out", I32, (100,))
    own = Buf("own", I32, (size,), "local")
    i, j, s = var("i", 3, 96), var("j", 0, size - 1), var("s", 0, 2)
    ones = Loop(j, 0, size, 1, (Store(own, (j,), apply("add", (load(x, (i,)), apply("cast", (j,), I32)))),))
    main = Loop(i, 3, 97, 1, (Alloc(own), ones, Store(out, (i,), load(own, (index(size - 1),)))), "parallel")
    first = Loop(s, 0, 3, 1, (Store(out, (s,), const(7, I32)),))
    last = Loop(s, 0, 3, 1, (Store(out, (apply("add", (s, index(97))),), load(out, (apply("add", (s, index(90))),))),))
    data = np.arange(100, dtype=np.int32) * 3
    got = run_kernel(backend, Kernel("own", (x, out), (first, main, last), ("out",)), x=data)["out"]
    want = data + size - 1
    want[:3], want[97:] = 7, want[90:93]
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("pieces", [((3, 97, 5),), ((3, 83, 5), (83, 97, 14)), ((3, 4, 1), (4, 90, 2), (90, 97, 3))])
def test_parts_of_a_parallel_loop_share_one_launch(backend: Backend, pieces: tuple[tuple[int, int, int], ...]) -> None:
    """A main part and tails: every iteration runs once, with memory of its own and the values that stand before the loops."""
    x, out = Buf("x", I32, (100,)), Buf("out", I32, (100,))
    body: list[Stmt] = [Let("first", load(x, (index(0),)))]
    for n, (start, stop, step) in enumerate(pieces):
        own, trips = Buf(f"own{n}", I32, (step,), "local"), -(-(stop - start) // step)
        i, j = var("i", start, start + (trips - 1) * step), var(f"j{n}", 0, step - 1)
        at, last = apply("add", (i, j)), var(f"k{n}", 0, step - 1)
        fill = Loop(j, 0, step, 1, (Store(own, (j,), apply("add", (load(x, (at,)), name("first", I32)))),))
        place, inside = apply("add", (i, last)), apply("lt", (apply("add", (i, last)), index(stop)))
        keep = Loop(last, 0, step, 1, (Store(out, (place,), load(own, (last,)), inside),))
        body.append(Loop(i, start, stop, step, (Alloc(own), fill, keep), "parallel"))
    data = np.arange(5, 105, dtype=np.int32) * 3
    got = run_kernel(backend, Kernel("parts", (x, out), tuple(body), ("out",)), x=data)["out"]
    np.testing.assert_array_equal(got[3:97], (data + data[0])[3:97])


# ---- programs


def doubling(k: int) -> Kernel:
    """out = 2 x, and a Check that x stays below `k`."""
    x, out, i = Buf("x", I32, (40,)), Buf("out", I32, (40,)), var("i", 0, 39)
    check = Check(apply("lt", (load(x, (i,)), const(k, I32))), f"x must stay below {k}")
    return Kernel(
        f"double_{k}",
        (x, out),
        (Loop(i, 0, 40, 1, (check, Store(out, (i,), apply("add", (load(x, (i,)),) * 2))), "parallel"),),
        ("out",),
    )


def chain() -> Program:
    """state += 16 x, by way of temporaries of which two share memory; checks on the way."""
    x, s, i = Buf("x", I32, (40,)), Buf("s", I32, (40,)), var("i", 0, 39)
    add = Kernel("add", (x, s), (Loop(i, 0, 40, 1, (Accumulate(s, (i,), "add", load(x, (i,))),)),), ("s",))
    slots = (
        Slot("x", I32, (40,), "input"), Slot("s", I32, (40,), "state"), Slot("t0", I32, (40,), "temporary", 0),
        Slot("t1", I32, (40,), "temporary", 192), Slot("t2", I32, (40,), "temporary", 0),
    )  # fmt: skip
    small, large = doubling(50), doubling(1000)
    calls = (Call(small, (0, 2)), Call(small, (2, 3)), Call(large, (3, 4)), Call(large, (4, 3)), Call(add, (3, 1)))
    return Program("chain", slots, calls, 384)


def test_a_program_of_several_kernels_runs_again_and_again(backend: Backend) -> None:
    program = chain()
    e = backend.compile(program)
    x, s = Buffer.of(np.arange(40) % 20, I32), Buffer.of(np.arange(40), I32)
    for n in range(3):
        times = e.run([x, s], clocks=n == 1)
        assert (times is not None) == (n == 1)
        if times is not None:
            assert len(times.starts) == len(times.seconds) == len(program.calls)
            assert list(times.starts) == sorted(times.starts)
            assert all(t >= 0 for t in (*times.starts, *times.seconds))
    np.testing.assert_array_equal(s.array, np.arange(40) + 3 * 16 * (np.arange(40) % 20))
    other = Buffer.of(np.zeros(40), I32)  # other memory, same program
    e.run([x, other])
    np.testing.assert_array_equal(other.array, 16 * (np.arange(40) % 20))
    assert all(e.source(i) for i in range(5))
    with pytest.raises(ValueError, match=r"2|buffers"):
        e.run([x])


@pytest.mark.parametrize(("value", "message"), [(50, "below 50"), (30, "below 50"), (24, None)])
def test_a_failed_check_raises_and_nothing_is_written_in_place(backend: Backend, value: int, message: str | None) -> None:
    e = backend.compile(chain())
    x, s = Buffer.of(np.full(40, value), I32), Buffer.of(np.zeros(40), I32)
    if message is None:
        e.run([x, s])
        return
    for _ in range(2):  # a failure does not stick
        with pytest.raises(IndexError, match=message):
            e.run([x, s])
        assert (s.array == 0).all()
    e.run([Buffer.of(np.ones(40), I32), s])
    assert (s.array == 16).all()


def test_empty_memory_and_no_kernels(backend: Backend) -> None:
    x, out, i = Buf("x", F32, (0,)), Buf("out", F32, (0,)), var("i", 0, 0)
    k = Kernel("nothing", (x, out), (Loop(i, 0, 0, 1, (Store(out, (i,), load(x, (i,))),)),), ("out",))
    assert run_kernel(backend, k)["out"].size == 0
    slots = (Slot("x", F32, (3,), "input"),)
    backend.compile(Program("none", slots, (), 0)).run([Buffer(3, F32)])


# ---- schedules

SCHEDULES = {
    "matmul": [
        "", "parallel(i)", "vectorize(j, 16)", "vectorize(j, 4)", "vectorize(r, 8)", "accumulate(r, 3)",
        "vectorize(r, 16); accumulate(r, 2)",
        "tile(j, 32); vectorize(ji, 16); parallel(i)", "tile(i, 4); reorder(r, ii, j); vectorize(j, 16)",
        "pack(w, at=i)", "tile(j, 16); reorder(jo, i, ji); pack(w, at=jo); vectorize(ji, 16); parallel(jo)",
        "reorder(j, i); tile(j, 32); reorder(i, ji); tile(i, 2); pack(w, at=jo); reorder(r, ii, ji); vectorize(ji, 16)",
        "unroll(r, 4); parallel(i)", "vectorize(j, 32)",
    ],
    "normalise": [
        "", "parallel(i)", "vectorize(r, 16); vectorize(c, 8); vectorize(j, 16); parallel(i)", "vectorize(j, 2)", "unroll(c, 3)",
    ],
    "elementwise": [
        "", "merge(i, j); vectorize(ij, 16)", "vectorize(j, 8); parallel(i)", "merge(i, j); tile(ij, 64); parallel(ijo)",
    ],
}  # fmt: skip


def scheduled_cases() -> Program:
    """Every schedule that is legal for its kernel, each a call that writes an output of its own; outputs follow the inputs."""
    graphs = {
        "matmul": matmul(buf("x", 13, 37), buf("w", 37, 45)),
        "normalise": softmax(buf("x", 9, 50)),
        "elementwise": ew("exp", ew("mul", buf("x", 10, 33), buf("w", 10, 33))),
    }
    slots: list[Slot] = []
    calls: list[Call] = []
    for label, root in graphs.items():
        (nest,) = loops.run(fused(root))
        ins = [p for p in nest.kernel.params if p.name not in nest.kernel.outputs]
        first = len(slots)
        slots += [Slot(f"{label}_{p.name}", p.dtype, p.shape, "input") for p in ins]
        places = {p.name: first + n for n, p in enumerate(ins)}
        for text in SCHEDULES[label]:
            k = schedule_primitives.apply(nest.kernel, text.split("; ") if text else [])
            for p in k.params:
                if p.name in k.outputs:
                    places[p.name] = len(slots)
                    slots.append(Slot(f"{label}_{len(calls)}", p.dtype, p.shape, "output"))
            calls.append(Call(k, tuple(places[p.name] for p in k.params)))
    return Program("schedules", tuple(slots), tuple(calls), 0)


def test_schedules_change_nothing(backend: Backend) -> None:
    program = scheduled_cases()
    memory = [
        Buffer.of(normal(*s.shape) if s.role == "input" else np.full(s.shape, np.nan), s.dtype, s.name) for s in program.slots
    ]
    backend.compile(program).run(memory)
    values = {s.name: b.array.reshape(s.shape) for s, b in zip(program.slots, memory, strict=True)}
    e = np.exp(values["normalise_x"] - values["normalise_x"].max(1, keepdims=True))
    want = {
        "matmul": values["matmul_x"] @ values["matmul_w"],
        "normalise": e / e.sum(1, keepdims=True),
        "elementwise": np.exp(values["elementwise_x"] * values["elementwise_w"]),
    }
    for call in program.calls:
        out = next(
            program.slots[s].name for p, s in zip(call.kernel.params, call.slots, strict=True) if p.name in call.kernel.outputs
        )
        label = out.split("_")[0]
        got = values[out].reshape(want[label].shape)
        np.testing.assert_allclose(got, want[label], rtol=2e-5, atol=2e-5, err_msg=f"{label}: {call.kernel.schedule}")


# ---- whole graphs, through all stages


HERE = (Origin((), "", "forward"),)


def graph_of(roots: tuple[Node, ...]) -> Graph:
    """The graph of these nodes, each with an origin, as the front end records them."""
    new: dict[Node, Node] = {}
    for n in toposort(roots):
        new[n] = n._replace(src=tuple(new[s] for s in n.src), origin=HERE)
    return Graph(tuple(new[r] for r in roots))


def given(label: str, values: Array) -> Node:
    """A buffer with content."""
    d = dtypes.as_dtype(values.dtype)
    return Node("buffer", d, values.shape, (), Buffer.of(values, d, label), ())


def normal(*shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


def mlp() -> tuple[Node, ...]:
    x, w, b = given("x", normal(9, 33)), given("w", normal(33, 21)), given("b", normal(21))
    h = ew("maximum", ew("add", matmul(x, w), expand(reshape(b, 1, 21), 9, 21)), num(0, 9, 21))
    return (h, red("sum", h, 0, 1))


def normalised() -> tuple[Node, ...]:
    x = given("x", normal(7, 50))
    return softmax(x), layernorm(x), permute(ew("tanh", x), 1, 0)


def convolution() -> tuple[Node, ...]:
    return (conv2d(given("x", normal(2, 3, 9, 9)), given("w", normal(5, 3, 3, 3)), 1),)


def indexed() -> tuple[Node, ...]:
    table, at = given("table", normal(11, 6)), given("at", rng.integers(0, 11, (20, 6)).astype(np.int32))
    rows = op("gather", (20, 6), table, at, arg=0)
    values = given("v", normal(20, 6))
    return rows, *(op(f"scatter_{how}", (11, 6), table, at, values, arg=0) for how in ("add", "max", "mul"))


def update() -> tuple[Node, ...]:
    w, g = given("w", normal(300)), given("g", normal(300))
    return (op("assign", (300,), w, ew("sub", w, ew("mul", g, num(0.1, 300)))),)


def random_bits() -> tuple[Node, ...]:
    counter = op("iota", (100,), arg=0, dtype=dtypes.uint32)
    return (op("threefry", (100,), counter, num(7, 100, dtype=dtypes.uint32)),)


@pytest.mark.parametrize("graph", [mlp, normalised, convolution, indexed, update, random_bits], ids=lambda f: f.__name__)
def test_graphs_agree_with_numpy(backend: Backend, graph: Callable[[], tuple[Node, ...]]) -> None:
    g = graph_of(graph())
    want = evaluate(g)
    got = lower(g, machine=FIXTURE, backend=backend.name).run()
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


def test_an_index_out_of_range_names_itself(backend: Backend) -> None:
    table, at = given("table", normal(5, 2)), given("at", np.array([[1, 2], [5, 0]], np.int32))
    g = graph_of((op("gather", (2, 2), table, at, arg=0),))
    with pytest.raises(IndexError, match="index out of range in gather: expected 0 <= index < 5"):
        lower(g, machine=FIXTURE, backend=backend.name).run()


def test_joined_gathers_check_what_they_use(backend: Backend) -> None:
    """Two gathers side by side by one index: each is checked where its half is read, also where the loop over both is inside."""
    table, low, at = given("table", normal(5, 4)), given("low", normal(3, 4)), given("at", np.array([[4], [0], [3]], np.int32))
    rows = op("gather", (3, 4), table, op("expand", (3, 4), at, dtype=I32), arg=0)
    left, right = (op("pad", (3, 8), x, arg=((0, 0, 0), w)) for x, w in ((rows, (0, 4, 0)), (ew("mul", rows, low), (4, 0, 0))))
    g = graph_of((ew("add", left, right),))
    np.testing.assert_allclose(lower(g, machine=FIXTURE, backend=backend.name).run()[0], evaluate(g)[0], rtol=1e-6)
    bad = given("bad", np.array([[4], [5], [3]], np.int32))
    rows = op("gather", (3, 4), table, op("expand", (3, 4), bad, dtype=I32), arg=0)
    g = graph_of((op("pad", (3, 8), rows, arg=((0, 0, 0), (4, 0, 0))),))
    with pytest.raises(IndexError, match="index out of range in gather: expected 0 <= index < 5"):
        lower(g, machine=FIXTURE, backend=backend.name).run()
