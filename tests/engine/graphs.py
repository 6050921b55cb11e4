"""Small graphs made by hand, and a way to run their loop nests without schedule, plan or backend."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from tinyengine import dtypes
from tinyengine.backends.reference import interpret
from tinyengine.choices import DEFAULT, Choices
from tinyengine.dtypes import DType
from tinyengine.machine import FIXTURE
from tinyengine.node import Graph, Node, const
from tinyengine.stages import fuse, loops

F32 = dtypes.float32
Array = np.ndarray[Any, Any]


def buf(name: str, *shape: int, dtype: DType = F32) -> Node:
    size = int(np.prod(shape))
    return Node("buffer", dtype, shape, (), SimpleNamespace(name=name, size=size, dtype=dtype), ())


def op(name: str, shape: tuple[int, ...], *src: Node, arg: Any = None, dtype: DType | None = None) -> Node:
    return Node(name, dtype or src[0].dtype, shape, src, arg, ())


def ew(name: str, *src: Node) -> Node:
    dtype = dtypes.bool_ if name in ("lt", "eq") else src[1].dtype if name == "where" else src[0].dtype
    return op(name, src[0].shape, *src, dtype=dtype)


def num(value: float, *shape: int, dtype: DType = F32) -> Node:
    return const(value, dtype, shape)


def red(name: str, x: Node, *axes: int) -> Node:
    return op(name, tuple(1 if d in axes else s for d, s in enumerate(x.shape)), x, arg=axes)


def scan(name: str, x: Node, axis: int, reverse: bool = False) -> Node:
    return op(name, x.shape, x, arg=(axis, reverse))


def reshape(x: Node, *shape: int) -> Node:
    return op("reshape", shape, x)


def expand(x: Node, *shape: int) -> Node:
    return op("expand", shape, x)


def permute(x: Node, *axes: int) -> Node:
    return op("permute", tuple(x.shape[a] for a in axes), x, arg=axes)


def matmul(x: Node, w: Node) -> Node:
    m, k = x.shape
    n = w.shape[1]
    left = expand(reshape(x, m, 1, k), m, n, k)
    right = expand(reshape(permute(w, 1, 0), 1, n, k), m, n, k)
    return reshape(red("sum", ew("mul", left, right), 2), m, n)


def conv2d(x: Node, w: Node, pad: int) -> Node:
    b, c, h, wd = x.shape
    o, _, kh, kw = w.shape
    p = op("pad", (b, c, h + 2 * pad, wd + 2 * pad), x, arg=((0, 0, 0), (0, 0, 0), (pad, pad, 0), (pad, pad, 0)))
    hp, wp = p.shape[2:]
    oh, ow = hp - kh + 1, wp - kw + 1
    e = expand(reshape(p, b, 1, c, hp, wp, 1, 1), b, o, c, hp, wp, kh, kw)
    e = op("window", (b, o, c, oh, wp, kh, kw), e, arg=(3, 5, 1, 1))
    e = op("window", (b, o, c, oh, ow, kh, kw), e, arg=(4, 6, 1, 1))
    k = expand(reshape(w, 1, o, c, 1, 1, kh, kw), b, o, c, oh, ow, kh, kw)
    return reshape(red("sum", ew("mul", e, k), 2, 5, 6), b, o, oh, ow)


def softmax(x: Node) -> Node:
    e = ew("exp", ew("sub", x, expand(red("max", x, 1), *x.shape)))
    return ew("div", e, expand(red("sum", e, 1), *x.shape))


def layernorm(x: Node) -> Node:
    n = 1.0 / x.shape[1]
    mean = ew("mul", red("sum", x, 1), num(n, x.shape[0], 1))
    d = ew("sub", x, expand(mean, *x.shape))
    var = ew("mul", red("sum", ew("mul", d, d), 1), num(n, x.shape[0], 1))
    return ew("div", d, expand(ew("sqrt", ew("add", var, num(1e-5, x.shape[0], 1))), *x.shape))


def fused(*roots: Node, choices: Choices = DEFAULT) -> fuse.Fusion:
    return fuse.run(Graph(roots), choices, FIXTURE)[0]


def run_nests(fusion: fuse.Fusion, **inputs: Array) -> dict[Node, Array]:
    """Every stored value, by interpreting the unscheduled nests in order. Updates change `inputs` in place."""
    memory: dict[Node, Array] = {}
    for nest in loops.run(fusion):
        arrays = {}
        for p, v in zip(nest.kernel.params, nest.values, strict=True):
            if v.op == "buffer":
                memory.setdefault(v, inputs[v.arg.name])
            elif v not in memory:
                memory[v] = np.zeros(v.shape, v.dtype.numpy)
            arrays[p.name] = memory[v].reshape(-1)
        interpret(nest.kernel, arrays)
    return memory
