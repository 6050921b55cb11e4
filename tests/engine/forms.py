"""Hand-written loop nests of every form that stage 5 makes, and ways to run and compare them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tinyengine import backends, dtypes
from tinyengine import loopnest as ir
from tinyengine.backends.reference import interpret
from tinyengine.dtypes import DType
from tinyengine.index import add, both, mul, within
from tinyengine.loopnest import Accumulate, Alloc, Buf, Check, Expr, Kernel, Let, Loop, Stmt, Store, const, index, load, name, var
from tinyengine.program import Call, Program, Slot
from tinyengine.runtime.buffer import Buffer

F, I = dtypes.float32, dtypes.int32
Array = np.ndarray[Any, Any]


def loop(v: Expr, *body: Stmt, reduce: bool = False) -> Loop:
    """A loop over all values of its variable."""
    return Loop(v, v.arg[1], v.arg[2] + 1, 1, tuple(body), "serial", reduce)


def v(label: str, extent: int) -> Expr:
    return var(label, 0, extent - 1)


def op(name_: str, *args: Expr) -> Expr:
    return ir.apply(name_, args)


def n(label: str, dtype: DType = F) -> Expr:
    return name(label, dtype)


def sum_of(acc: Buf, r: Expr, *body: Stmt, value: Expr, init: float = 0, how: str = "add") -> tuple[Stmt, Stmt]:
    return Alloc(acc, init), loop(r, *body, Accumulate(acc, (), how, value), reduce=True)


def matmul(m: int, width: int, depth: int, transposed: bool = False, dtype: DType = F) -> Kernel:
    """out = maximum(x @ w + b, 0); w is (width, depth) when transposed."""
    x, w = Buf("x", dtype, (m, depth)), Buf("w", dtype, (width, depth) if transposed else (depth, width))
    b, out, acc = Buf("b", dtype, (width,)), Buf("out", dtype, (m, width)), Buf("acc", dtype, (), "register")
    i, j, k = v("i", m), v("j", width), v("k", depth)
    body = (
        Let("v1", load(x, (i, k)), (1,)), Let("v2", load(w, (j, k) if transposed else (k, j)), (2,)),
        Let("v3", op("mul", n("v1", dtype), n("v2", dtype)), (3,)),
    )  # fmt: skip
    return Kernel("matmul", (x, w, b, out), (loop(i, loop(j,
        *sum_of(acc, k, *body, value=n("v3", dtype)),
        Let("v4", load(acc, ())), Let("vb", load(b, (j,))), Let("v5", op("add", n("v4", dtype), n("vb", dtype))),
        Let("v6", op("maximum", n("v5", dtype), const(0, dtype))), Store(out, (i, j), n("v6", dtype)),
    )),), ("out",))  # fmt: skip


def gram(m: int, depth: int) -> Kernel:
    """out = x @ x.T: both operands are one buffer."""
    x, out, acc = Buf("x", F, (m, depth)), Buf("out", F, (m, m)), Buf("acc", F, (), "register")
    i, j, k = v("i", m), v("j", m), v("k", depth)
    body = (
        Let("v1", load(x, (i, k)), (1,)), Let("v2", load(x, (j, k)), (2,)), Let("v3", op("mul", n("v1"), n("v2")), (3,)),
    )  # fmt: skip
    return Kernel("gram", (x, out), (loop(i, loop(j,
        *sum_of(acc, k, *body, value=n("v3")), Let("v4", load(acc, ())), Store(out, (i, j), n("v4")),
    )),), ("out",))  # fmt: skip


def bf16_matmul(m: int, width: int, depth: int, transposed: bool = False) -> Kernel:
    """out = x @ w for bfloat16 x and w, added up in float32; w is (width, depth) when transposed."""
    d = dtypes.bfloat16
    x, w = Buf("x", d, (m, depth)), Buf("w", d, (width, depth) if transposed else (depth, width))
    out, acc = Buf("out", F, (m, width)), Buf("acc", F, (), "register")
    i, j, k = v("i", m), v("j", width), v("k", depth)
    body = (
        Let("v1", load(x, (i, k)), (1,)), Let("v2", Expr("cast", F, 1, (n("v1", d),)), (2,)),
        Let("v3", load(w, (j, k) if transposed else (k, j)), (3,)), Let("v4", Expr("cast", F, 1, (n("v3", d),)), (4,)),
        Let("v5", op("mul", n("v2"), n("v4")), (5,)),
    )  # fmt: skip
    return Kernel("bf16_matmul", (x, w, out), (loop(i, loop(j,
        *sum_of(acc, k, *body, value=n("v5")), Let("v6", load(acc, ())), Store(out, (i, j), n("v6")),
    )),), ("out",))  # fmt: skip


def two_sums(m: int, width: int, depth: int) -> Kernel:
    """out = (x @ w) * (x^2 @ w): two accumulators of one loop, and arithmetic that reads both."""
    x, w, out = Buf("x", F, (m, depth)), Buf("w", F, (depth, width)), Buf("out", F, (m, width))
    acc, other = Buf("acc", F, (), "register"), Buf("other", F, (), "register")
    i, j, k = v("i", m), v("j", width), v("k", depth)
    return Kernel("two_sums", (x, w, out), (loop(i, loop(j,
        Alloc(acc, 0), Alloc(other, 0),
        loop(k, Let("v1", op("mul", load(x, (i, k)), load(w, (k, j)))), Accumulate(acc, (), "add", n("v1")),
             Accumulate(other, (), "add", op("mul", load(x, (i, k)), n("v1"))), reduce=True),
        Store(out, (i, j), op("mul", load(acc, ()), load(other, ()))),
    )),), ("out",))  # fmt: skip


def softmax(rows: int, width: int) -> Kernel:
    x, out, e = Buf("x", F, (rows, width)), Buf("out", F, (rows, width)), Buf("e", F, (width,), "local")
    m, s = Buf("m", F, (), "register"), Buf("s", F, (), "register")
    i, r, c, j = v("i", rows), v("r", width), v("c", width), v("j", width)
    return Kernel("softmax", (x, out), (loop(i,
        *sum_of(m, r, value=load(x, (i, r)), init=-np.inf, how="maximum"),
        Let("top", load(m, ())), Alloc(e), Alloc(s, 0),
        loop(c, Let("v1", op("exp", op("sub", load(x, (i, c)), n("top")))),
             Store(e, (c,), n("v1")), Accumulate(s, (), "add", n("v1"))),
        Let("total", load(s, ())),
        loop(j, Store(out, (i, j), op("div", load(e, (j,)), n("total")))),
    ),), ("out",))  # fmt: skip


def banded(rows: int, keys: int, width: int, below: int, above: int) -> Kernel:
    """out[i, j] = sum of x[i, r] * w[r, j] over the r from i - below to i + above: other terms are 0, and may be left out."""
    x, w = Buf("x", F, (rows, keys)), Buf("w", F, (keys, width))
    out, acc = Buf("out", F, (rows, width)), Buf("acc", F, (), "register")
    i, j, r = v("i", rows), v("j", width), v("k", keys)
    inside = op("and", op("lt", add(i, index(-below - 1)), r), op("lt", r, add(i, index(above + 1))))
    value = op("mul", op("where", inside, load(x, (i, r)), const(0.0, F)), load(w, (r, j)))
    alloc, summed = sum_of(acc, r, value=value)
    (term,) = summed.body
    summed = replace(summed, body=(replace(term, only=inside),))
    return Kernel("banded", (x, w, out), (loop(i, loop(j, alloc, summed, Store(out, (i, j), load(acc, ())))),), ("out",))


def attention(rows: int, keys: int, depth: int, width: int) -> Kernel:
    """out = softmax(q @ k.T) @ v with a row of scores, divided by its sum at the end."""
    q, k, vs = Buf("q", F, (rows, depth)), Buf("k", F, (keys, depth)), Buf("v", F, (keys, width))
    out, row = Buf("out", F, (rows, width)), Buf("row", F, (keys,), "local")
    acc, m, s, acc2 = (Buf(x, F, (), "register") for x in ("acc", "m", "s", "acc2"))
    i, c, d, r, c1, j, t = v("i", rows), v("c", keys), v("d", depth), v("r", keys), v("e", keys), v("j", width), v("t", keys)
    return Kernel("attention", (q, k, vs, out), (loop(i,
        Alloc(row),
        loop(c, *sum_of(acc, d, value=op("mul", load(q, (i, d)), load(k, (c, d)))), Store(row, (c,), load(acc, ()))),
        *sum_of(m, r, value=load(row, (r,)), init=-np.inf, how="maximum"), Let("top", load(m, ())),
        *sum_of(s, c1, Let("w", op("exp", op("sub", load(row, (c1,)), n("top")))), Store(row, (c1,), n("w")), value=n("w")),
        Let("total", load(s, ())),
        loop(j, *sum_of(acc2, t, value=op("mul", load(row, (t,)), load(vs, (t, j)))),
             Store(out, (i, j), op("div", load(acc2, ()), n("total")))),
    ),), ("out",))  # fmt: skip


def elementwise(rows: int, width: int, bias: bool = False, dtype: DType = F) -> Kernel:
    """out = x * y + x, or x * b + x with a row b."""
    x, out = Buf("x", dtype, (rows, width)), Buf("out", dtype, (rows, width))
    y = Buf("y", dtype, (width,) if bias else (rows, width))
    i, j = v("i", rows), v("j", width)
    return Kernel("elementwise", (x, y, out), (loop(i, loop(j,
        Let("v1", load(x, (i, j))), Let("v2", load(y, (j,) if bias else (i, j))),
        Store(out, (i, j), op("add", op("mul", n("v1", dtype), n("v2", dtype)), n("v1", dtype))),
    )),), ("out",))  # fmt: skip


def square(width: int) -> Kernel:
    """out = x * x: one operand."""
    x, out, i = Buf("x", F, (width,)), Buf("out", F, (width,)), v("i", width)
    body = loop(i, Let("v1", load(x, (i,))), Store(out, (i,), op("mul", n("v1"), n("v1"))))
    return Kernel("square", (x, out), (body,), ("out",))


def outer_sum(rows: int, width: int, dtype: DType = F) -> Kernel:
    """out[j] = sum over i of x[i, j]."""
    x, out, acc = Buf("x", dtype, (rows, width)), Buf("out", dtype, (width,)), Buf("acc", dtype, (), "register")
    j, r = v("j", width), v("r", rows)
    body = loop(j, *sum_of(acc, r, value=load(x, (r, j))), Let("v1", load(acc, ())), Store(out, (j,), n("v1", dtype)))
    return Kernel("outer_sum", (x, out), (body,), ("out",))


def full_sum(rows: int, width: int, dtype: DType = F) -> Kernel:
    x, out, acc = Buf("x", dtype, (rows, width)), Buf("out", dtype, (1,)), Buf("acc", dtype, (), "register")
    r, s = v("r", rows), v("s", width)
    return Kernel("full_sum", (x, out), (
        Alloc(acc, 0), loop(r, loop(s, Accumulate(acc, (), "add", load(x, (r, s))), reduce=True), reduce=True),
        Let("v1", load(acc, ())), Store(out, (index(0),), n("v1", dtype)),
    ), ("out",))  # fmt: skip


def conv(images: int, cin: int, cout: int, size: int, taps: int = 3, pad: int = 1, strided: int = 1) -> Kernel:
    """A padded convolution with masked loads and three reduce loops; `strided`: the step of its windows."""
    o = (size + 2 * pad - taps) // strided + 1
    x, w = Buf("x", F, (images, cin, size, size)), Buf("w", F, (cout, cin, taps, taps))
    out, acc = Buf("out", F, (images, cout, o, o)), Buf("acc", F, (), "register")
    b, c, y, z = v("b", images), v("c", cout), v("y", o), v("z", o)
    r, s, t = v("r", cin), v("s", taps), v("t", taps)
    row, col = add(mul(y, strided), s, index(-pad)), add(mul(z, strided), t, index(-pad))
    mask: Expr | None = None
    for e in (row, col):
        for condition in within(e, size):
            mask = both(mask, condition)
    value = op("mul", n("v1"), n("v2"))
    inner = (Let("v1", load(x, (b, r, row, col), mask)), Let("v2", load(w, (c, r, s, t))), Accumulate(acc, (), "add", value))
    sums = loop(r, loop(s, loop(t, *inner, reduce=True), reduce=True), reduce=True)
    body = loop(b, loop(c, loop(y, loop(z, Alloc(acc, 0), sums, Let("v3", load(acc, ())), Store(out, (b, c, y, z), n("v3"))))))
    return Kernel("conv", (x, w, out), (body,), ("out",))


def weight_gradient(images: int, cin: int, cout: int, size: int, taps: int, groups: int = 1) -> Kernel:
    """The gradient of a convolution's weights: sums over images and pixels of g[b, c, y, z] * x[b, r, y + s, z + t]; of each
    group for itself, with as many channels."""
    o = size - taps + 1
    g, x = Buf("g", F, (images, groups * cout, o, o)), Buf("x", F, (images, groups * cin, size, size))
    out = Buf("out", F, (groups * cout, cin, taps, taps))
    q = v("q", groups) if groups > 1 else index(0)
    acc = Buf("acc", F, (), "register")
    c, r, s, t = v("c", cout), v("r", cin), v("s", taps), v("t", taps)
    b, y, z = v("b", images), v("y", o), v("z", o)
    of_g, of_x = add(mul(q, cout), c), add(mul(q, cin), r)
    value = op("mul", load(g, (b, of_g, y, z)), load(x, (b, of_x, add(s, y), add(t, z))))
    sums = loop(b, loop(y, loop(z, Accumulate(acc, (), "add", value), reduce=True), reduce=True), reduce=True)
    body = loop(c, loop(r, loop(s, loop(t, Alloc(acc, 0), sums, Let("v1", load(acc, ())), Store(out, (of_g, r, s, t), n("v1"))))))
    return Kernel("weight_gradient", (g, x, out), (loop(q, body) if groups > 1 else body,), ("out",))


def update(size: int) -> Kernel:
    """An optimizer step with two stores, in place: m = 0.9 m + g; p = p - 0.1 m."""
    p, g, m = (Buf(b, F, (size,)) for b in "pgm")
    i = v("i", size)
    return Kernel("update", (g, p, m), (loop(i,
        Let("v1", op("add", op("mul", load(m, (i,)), const(0.9, F)), load(g, (i,)))),
        Let("v2", op("sub", load(p, (i,)), op("mul", n("v1"), const(0.1, F)))),
        Store(m, (i,), n("v1")), Store(p, (i,), n("v2")),
    ),), ("p", "m"))  # fmt: skip


def gather(rows: int, width: int, table: int) -> Kernel:
    """out[i, j] = table[clamped ids[i], j], checked."""
    ids, t, out = Buf("ids", I, (rows,)), Buf("table", F, (table, width)), Buf("out", F, (rows, width))
    i, j = v("i", rows), v("j", width)
    e = Expr("cast", ir.INDEX, 1, (n("id", I),))
    ok = op("and", op("lt", index(-1), e), op("lt", e, index(table)))
    at = op("maximum", index(0), op("minimum", e, index(table - 1)))
    return Kernel("gather", (ids, t, out), (loop(i, Let("id", load(ids, (i,))), Check(ok, "index out of range"),
        loop(j, Store(out, (i, j), load(t, (at, j))))),), ("out",))  # fmt: skip


def scatter(count: int, table: int, dtype: DType = F) -> Kernel:
    """out[ids[s]] += x[s], after out = 0."""
    ids, x, out = Buf("ids", I, (count,)), Buf("x", dtype, (count,)), Buf("out", dtype, (table,))
    i, s = v("i", table), v("s", count)
    e = Expr("cast", ir.INDEX, 1, (load(ids, (s,)),))
    at = op("maximum", index(0), op("minimum", e, index(table - 1)))
    body = (loop(i, Store(out, (i,), const(0, dtype))), loop(s, Accumulate(out, (at,), "add", load(x, (s,)))))
    return Kernel("scatter", (ids, x, out), body, ("out",))


def recurrence(size: int) -> Kernel:
    """out[i + 1] = out[i] + x[i]: iterations that depend on each other."""
    x, out = Buf("x", F, (size,)), Buf("out", F, (size + 1,))
    i = v("i", size)
    return Kernel("recurrence", (x, out), (
        Store(out, (index(0),), const(1.0, F)),
        loop(i, Store(out, (add(i, index(1)),), op("add", load(out, (i,)), load(x, (i,))))),
    ), ("out",))  # fmt: skip


def running_totals(rows: int, width: int) -> Kernel:
    """out = totals of each row of x so far; at = the largest of them so far: an accumulator of what another one is."""
    x, out, at = Buf("x", F, (rows, width)), Buf("out", F, (rows, width)), Buf("at", F, (rows, width))
    total, most = Buf("total", F, (), "register"), Buf("most", F, (), "register")
    i, j = v("i", rows), v("j", width)
    return Kernel("running_totals", (x, out, at), (loop(i, Alloc(total, 0), Alloc(most, F.min), loop(j,
        Accumulate(total, (), "add", load(x, (i, j))), Let("v1", load(total, ())), Store(out, (i, j), n("v1")),
        Accumulate(most, (), "maximum", n("v1")), Store(at, (i, j), load(most, ())))),), ("out", "at"))  # fmt: skip


def cat(rows: int, left: int, right: int, dtype: DType = F) -> Kernel:
    """out = x and y side by side, each read under a mask; the other side adds 0."""
    x, y, out = Buf("x", dtype, (rows, left)), Buf("y", dtype, (rows, right)), Buf("out", dtype, (rows, left + right))
    i, j = v("i", rows), v("j", left + right)
    a = load(x, (i, j), op("lt", j, index(left)))
    b = load(y, (i, add(j, index(-left))), op("lt", index(-1), add(j, index(-left))))
    return Kernel("cat", (x, y, out), (loop(i, loop(j, Store(out, (i, j), op("add", a, b)))),), ("out",))


def turned(rows: int, width: int, dtype: DType = F) -> Kernel:
    """out = the transpose of x, plus 1."""
    x, out = Buf("x", dtype, (width, rows)), Buf("out", dtype, (rows, width))
    i, j = v("i", rows), v("j", width)
    return Kernel("turned", (x, out), (loop(i, loop(j,
        Let("v1", load(x, (j, i))), Store(out, (i, j), op("add", n("v1", dtype), const(1, dtype))),
    )),), ("out",))  # fmt: skip


def pool(rows: int, width: int, step: int, dtype: DType = F) -> Kernel:
    """out[i, j] = the maximum of `step` neighbours of x[i]."""
    x, out = Buf("x", dtype, (rows, width * step)), Buf("out", dtype, (rows, width))
    acc = Buf("acc", dtype, (), "register")
    i, j, r = v("i", rows), v("j", width), v("r", step)
    at = add(ir.apply("mul", (j, index(step))), r) if step > 1 else add(j, r)
    return Kernel("pool", (x, out), (loop(i, loop(j,
        *sum_of(acc, r, value=load(x, (i, at)), init=dtype.min, how="maximum"), Store(out, (i, j), load(acc, ())),
    )),), ("out",))  # fmt: skip


FORMS: dict[str, Kernel] = {
    "cat": cat(3, 5, 4), "turned": turned(19, 23), "pool": pool(3, 21, 2),
    "matmul": matmul(13, 21, 19), "matmul transposed": matmul(9, 35, 20, True), "softmax": softmax(5, 37),
    "attention": attention(11, 19, 6, 9), "banded": banded(19, 23, 17, 4, 2),
    "bf16 matmul": bf16_matmul(13, 21, 18), "bf16 matmul transposed": bf16_matmul(9, 35, 20, True),
    "elementwise": elementwise(7, 40), "two sums": two_sums(5, 21, 9),
    "bias": elementwise(7, 21, True), "outer sum": outer_sum(23, 19), "full sum": full_sum(9, 17), "conv": conv(2, 3, 5, 9),
    "weights": weight_gradient(3, 2, 5, 6, 2),
    "update": update(53), "gather": gather(6, 18, 5), "scatter": scatter(30, 7),
    "running totals": running_totals(5, 21),
}  # fmt: skip


def arrays(k: Kernel, seed: int = 0) -> dict[str, Array]:
    """Memory for every parameter; small whole numbers for ids and integers, normal numbers else."""
    r = np.random.default_rng(seed)
    out = {}
    for p in k.params:
        a = r.integers(0, 5, p.shape) if p.dtype.is_int else r.normal(size=p.shape)
        out[p.name] = p.dtype.encode(a)
    return out


def several(kernels: Sequence[Kernel]) -> tuple[Program, list[Buffer]]:
    """Kernels as one program, each on memory of its own, and that memory."""
    slots: list[Slot] = []
    memory: list[Buffer] = []
    calls = []
    for n, k in enumerate(kernels):
        given = arrays(k)
        calls.append(Call(k, tuple(range(len(slots), len(slots) + len(k.params)))))
        for p in k.params:
            slots.append(Slot(f"{p.name}_{n}", p.dtype, p.shape, "state"))
            memory.append(Buffer.of(p.dtype.decode(given[p.name]), p.dtype))
    return Program("several", tuple(slots), tuple(calls), 0), memory


def native(kernels: Sequence[Kernel]) -> list[dict[str, Array]]:
    """What the memory of each kernel holds after all have run as one program on llvm."""
    program, memory = several(kernels)
    backends.get("llvm").compile(program).run(memory)
    return [{p.name: memory[i].array for p, i in zip(c.kernel.params, c.slots, strict=True)} for c in program.calls]


def outputs(k: Kernel, memory: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs of `k` on a copy of `memory`, flat: a schedule may see a buffer in another shape."""
    own = {name_: a.reshape(-1).copy() for name_, a in memory.items()}
    interpret(k, own)
    return {o: own[o] for o in k.outputs}


def assert_same(a: Kernel, b: Kernel, seed: int = 0) -> None:
    """Both kernels compute the same: exactly for integers, up to the order of summation for floats."""
    memory = arrays(a, seed)
    x, y = outputs(a, memory), outputs(b, memory)
    for o in a.outputs:
        if x[o].dtype.kind == "f":
            np.testing.assert_allclose(y[o], x[o], rtol=2e-5, atol=2e-5)
        else:
            np.testing.assert_array_equal(y[o], x[o])
