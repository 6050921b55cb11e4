"""Hand-written scheduled kernels and the way to run them on a backend: what the tests of the backends share."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyengine.backends import Executable
from tinyengine.backends.llvm import LLVMBackend
from tinyengine.dtypes import DType, float32
from tinyengine.loopnest import (
    Accumulate,
    Alloc,
    Buf,
    Expr,
    Kernel,
    Let,
    Loop,
    Store,
    apply,
    const,
    index,
    lanes_reduce,
    load,
    name,
    ramp,
    var,
)
from tinyengine.program import Call, Program, Slot
from tinyengine.runtime.buffer import Buffer

W = 16


def add(*terms: Expr) -> Expr:
    out = terms[0]
    for t in terms[1:]:
        out = apply("add", (out, t))
    return out


def times(a: Expr, c: int) -> Expr:
    return apply("mul", (a, index(c)))


def mul(a: Expr, b: Expr) -> Expr:
    return apply("mul", (a, b))


def below(a: Expr, n: int) -> Expr:
    return apply("lt", (a, index(n)))


def program(*kernels: Kernel, roles: dict[str, str] | None = None) -> Program:
    """Kernels in order; buffers of the same name are the same memory, and the caller gives all of them."""
    slots: dict[str, Slot] = {}
    for k in kernels:
        for p in k.params:
            role = (roles or {}).get(p.name, "output" if p.name in k.outputs else "input")
            if p.name not in slots or role != "input":
                slots[p.name] = Slot(p.name, p.dtype, p.shape, role)
    order = list(slots)
    calls = tuple(Call(k, tuple(order.index(p.name) for p in k.params)) for k in kernels)
    return Program("test", tuple(slots.values()), calls, 0)


def buffers(p: Program, arrays: dict[str, Any]) -> list[Buffer]:
    """Memory for the given slots: from `arrays` by name, else filled with 77 so that an unwritten element shows."""
    out = []
    for s in p.slots[: p.given]:
        a = arrays.get(s.name)
        out.append(Buffer.of(np.full(s.shape, 77, s.dtype.numpy) if a is None else np.asarray(a), s.dtype, s.name))
    return out


def run(kernel: Kernel, passes: int = 0, **arrays: Any) -> dict[str, Any]:
    """Compile and run one kernel with the llvm backend; the content of every buffer afterwards, in its shape."""
    p = program(kernel)
    e: Executable = LLVMBackend(passes).compile(p)
    memory = buffers(p, arrays)
    e.run(memory)
    return {s.name: b.array.reshape(s.shape).copy() for s, b in zip(p.slots, memory, strict=True)}


def elementwise(op: str, dtypes: tuple[DType, ...], result: DType, n: int, lanes: int = W, arg: Any = None) -> Kernel:
    """y[i] = op(a[i], b[i], ...) over n elements, `lanes` at a time with a masked tail."""
    params = [Buf(f"x{k}", d, (n,)) for k, d in enumerate(dtypes)]
    out = Buf("y", result, (n,))
    i = var("i", 0, (n - 1) // lanes * lanes)
    at = (ramp(i, lanes),) if lanes > 1 else (i,)
    mask = below(at[0], n) if n % lanes else None
    value = apply(op, tuple(load(p, at, mask) for p in params), result, arg)
    return Kernel(op, (*params, out), (Loop(i, 0, n, lanes, (Store(out, at, value, mask),), "parallel"),), ("y",))


def chain(n: int, lanes: int = W) -> Kernel:
    """y = max(2x + 1, 0)"""
    x, y = Buf("x", float32, (n,)), Buf("y", float32, (n,))
    i = var("i", 0, (n - 1) // lanes * lanes)
    at = (ramp(i, lanes),) if lanes > 1 else (i,)
    mask = below(at[0], n) if n % lanes else None
    v = add(mul(load(x, at, mask), const(2.0, float32)), const(1.0, float32))
    v = apply("maximum", (v, const(0.0, float32)))
    return Kernel("chain", (x, y), (Loop(i, 0, n, lanes, (Store(y, at, v, mask),), "parallel"),), ("y",))


def softmax(rows: int, n: int) -> Kernel:
    """Softmax of each row: register accumulators for maximum and sum, the row of exponentials in a local buffer."""
    x, y = Buf("x", float32, (rows, n)), Buf("y", float32, (rows, n))
    row = Buf("row", float32, (n,), "local")
    most, total = Buf("most", float32, (W,), "register"), Buf("total", float32, (W,), "register")
    r = var("r", 0, rows - 1)
    last = (n - 1) // W * W
    j, k, m = var("j", 0, last), var("k", 0, last), var("m", 0, last)
    lanes = (ramp(index(0), W),)

    def mask(v: Expr) -> Expr | None:
        return below(ramp(v, W), n) if n % W else None

    e = apply("exp", (apply("sub", (load(x, (r, ramp(k, W)), mask(k)), name("peak", float32))),))
    body = (
        Alloc(most, -float("inf")),
        Alloc(total, 0.0),
        Alloc(row),
        Loop(j, 0, n, W, (Accumulate(most, lanes, "maximum", load(x, (r, ramp(j, W)), mask(j)), mask(j)),), reduce=True),
        Let("peak", lanes_reduce("maximum", load(most, lanes))),
        Loop(k, 0, n, W, (
            Let("e", e),
            Store(row, (ramp(k, W),), name("e", float32, W), mask(k)),
            Accumulate(total, lanes, "add", name("e", float32, W), mask(k)),
        )),
        Let("scale", apply("reciprocal", (lanes_reduce("add", load(total, lanes)),))),
        Loop(m, 0, n, W, (Store(y, (r, ramp(m, W)), mul(load(row, (ramp(m, W),), mask(m)), name("scale", float32)), mask(m)),)),
    )  # fmt: skip
    return Kernel("softmax", (x, y), (Loop(r, 0, rows, 1, body, "parallel"),), ("y",))


def matmul(M: int, N: int, K: int, rows: int = 6, vectors: int = 4) -> Kernel:
    """C = A @ B: a packed panel of B in local memory, a tile of `rows` x `vectors` register accumulators, exact tail of rows,
    and the epilogue relu(C + bias). N is a multiple of 16 * vectors."""
    P = vectors * W
    assert N % P == 0
    A, B, bias, C = Buf("A", float32, (M, K)), Buf("B", float32, (K, N)), Buf("bias", float32, (N,)), Buf("C", float32, (M, N))
    panel = Buf("panel", float32, (K, P), "local")
    p, kp, jp = var("p", 0, N // P - 1), var("kp", 0, K - 1), var("jp", 0, P - W)
    column = add(times(p, P), ramp(jp, W))
    pack = Loop(kp, 0, K, 1, (Loop(jp, 0, P, W, (Store(panel, (kp, ramp(jp, W)), load(B, (kp, column))),), "unroll"),))

    def tile(start: int, stop: int, height: int, tag: str) -> Loop:
        acc = Buf(f"acc{tag}", float32, (height, P), "register")
        i, k, r, j = var(f"i{tag}", start, stop - height), var(f"k{tag}", 0, K - 1), var("r", 0, height - 1), var("j", 0, P - W)
        at = (r, ramp(j, W))
        product = mul(load(A, (add(i, r), k)), load(panel, (k, ramp(j, W))))
        step = Loop(r, 0, height, 1, (Loop(j, 0, P, W, (Accumulate(acc, at, "add", product),), "unroll"),), "unroll")
        col = add(times(p, P), ramp(j, W))
        value = apply("maximum", (add(load(acc, at), load(bias, (col,))), const(0.0, float32)))
        out = Loop(r, 0, height, 1, (Loop(j, 0, P, W, (Store(C, (add(i, r), col), value),), "unroll"),), "unroll")
        return Loop(i, start, stop, height, (Alloc(acc, 0.0), Loop(k, 0, K, 1, (step,), reduce=True), out))

    whole = M // rows * rows
    body: list[Any] = [Alloc(panel), pack]
    if whole:
        body.append(tile(0, whole, rows, ""))
    if M - whole:
        body.append(tile(whole, M, M - whole, "_tail"))
    return Kernel("matmul", (A, B, bias, C), (Loop(p, 0, N // P, 1, tuple(body), "parallel"),), ("C",))


def conv(images: int, size: int, inputs: int, outputs: int) -> Kernel:
    """3 x 3 convolution with padding 1: each image is copied into a local buffer with a border of zeros; unrolled taps."""
    x = Buf("x", float32, (images, inputs, size, size))
    w = Buf("w", float32, (outputs, inputs, 3, 3))
    y = Buf("y", float32, (images, outputs, size, size))
    pad = Buf("pad", float32, (inputs, size + 2, size + 2 + W), "local")
    acc = Buf("acc", float32, (2, W), "register")
    n, c, h, b = var("n", 0, images - 1), var("c", 0, inputs - 1), var("h", 0, size - 1), var("b", 0, (size - 1) // W * W)
    mask = below(ramp(b, W), size) if size % W else None
    one = index(1)
    copy = Loop(c, 0, inputs, 1, (Loop(h, 0, size, 1, (Loop(b, 0, size, W, (
        Store(pad, (c, add(h, one), add(ramp(b, W), one)), load(x, (n, c, h, ramp(b, W)), mask), mask),
    )),)),))  # fmt: skip
    o, ci, kh, kw, t = var("o", 0, outputs - 2), var("ci", 0, inputs - 1), var("kh", 0, 2), var("kw", 0, 2), var("t", 0, 1)
    at = (t, ramp(index(0), W))
    product = mul(load(w, (add(o, t), ci, kh, kw)), load(pad, (ci, add(h, kh), add(ramp(b, W), kw))))
    taps = Loop(
        kh,
        0,
        3,
        1,
        (Loop(kw, 0, 3, 1, (Loop(t, 0, 2, 1, (Accumulate(acc, at, "add", product),), "unroll"),), "unroll"),),
        "unroll",
    )
    compute = Loop(o, 0, outputs, 2, (Loop(h, 0, size, 1, (Loop(b, 0, size, W, (
        Alloc(acc, 0.0),
        Loop(ci, 0, inputs, 1, (taps,), reduce=True),
        Loop(t, 0, 2, 1, (Store(y, (n, add(o, t), h, ramp(b, W)), load(acc, at), mask),), "unroll"),
    )),)),))  # fmt: skip
    return Kernel("conv", (x, w, y), (Loop(n, 0, images, 1, (Alloc(pad, 0.0), copy, compute), "parallel"),), ("y",))
