"""If, Loop, Scan; sequences and optionals, which are Python lists and None.

Conditions and trip counts that are known are decided while the graph is recorded: branches fall away and loops unroll. Those that
depend on data are computed at once, as far as the program has come.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyengine.onnx import values
from tinyengine.onnx.movement import ints
from tinyengine.onnx.registry import op
from tinyengine.tensor import Tensor


def _true(condition: Any) -> bool:
    return bool(np.asarray(values.on_host(condition)).reshape(()))


@op("If", raw=True)
def if_(condition: Any, *, then_branch: Any, else_branch: Any) -> Any:
    return tuple((then_branch if _true(condition) else else_branch)())


def _stacked(rows: list[Any], dim: int = 0) -> Any:
    if all(values.known(r) for r in rows):
        return np.stack(rows, dim)
    return Tensor.stack([values.as_recorded(r) for r in rows], dim=dim)


@op("Loop", raw=True)
def loop(count: Any = None, condition: Any = None, *state: Any, body: Any) -> Any:
    limit = None if count is None else int(np.asarray(values.on_host(count)).reshape(()))
    kept = list(state)
    rows: list[list[Any]] = [[] for _ in range(len(body.graph.outputs) - 1 - len(kept))]
    i = 0
    going = True if condition is None else _true(condition)
    while going and (limit is None or i < limit):
        again, *out = body(np.array(i, np.int64), np.array(True), *kept)
        kept, scanned = out[: len(kept)], out[len(kept) :]
        for r, v in zip(rows, scanned, strict=True):
            r.append(v)
        i += 1
        if limit is None or i < limit:
            going = _true(again)
    empty = [] if i else [_nothing(*s) for s in body.graph.declared[1 + len(kept) :]]
    return (*kept, *(empty or [_stacked(r) for r in rows]))


def _nothing(element: int, shape: tuple[int | None, ...] | None) -> Any:
    """What a loop that never runs collects of results that its body declares so."""
    if shape is None or None in shape or element not in values.ELEMENTS:
        raise NotImplementedError("a Loop that never runs, and whose body does not say the shape of what it collects")
    return Tensor.zeros(0, *shape, dtype=values.ELEMENTS[element])


@op("Scan", 8, raw=True)
def scan_8(lengths: Any, *xs: Any, body: Any, num_scan_inputs: int, directions: list[int] | None = None) -> Any:
    if lengths is not None:
        raise NotImplementedError("Scan of operator set 8 with lengths of its sequences")
    batch = [
        scan(*[_at(x, 0, b) for x in xs], body=body, num_scan_inputs=num_scan_inputs, scan_input_directions=directions)
        for b in range(xs[0].shape[0])
    ]
    return tuple(_stacked(list(r)) for r in zip(*batch, strict=True))


def _at(x: Any, axis: int, i: int) -> Any:
    return x[(slice(None),) * axis + (i,)]


@op("Scan", 9, raw=True)
def scan(
    *xs: Any, body: Any, num_scan_inputs: int, scan_input_axes: list[int] | None = None,
    scan_input_directions: list[int] | None = None, scan_output_axes: list[int] | None = None,
    scan_output_directions: list[int] | None = None,
) -> Any:  # fmt: skip
    states = len(xs) - num_scan_inputs
    state, scanned = list(xs[:states]), xs[states:]
    rows: list[list[Any]] = [[] for _ in range(len(body.graph.outputs) - states)]
    axes = [a % x.ndim for a, x in zip(scan_input_axes or [0] * num_scan_inputs, scanned, strict=True)]
    back = scan_input_directions or [0] * num_scan_inputs
    n = scanned[0].shape[axes[0]]
    for i in range(n):
        out = body(*state, *[_at(x, a, n - 1 - i if d else i) for x, a, d in zip(scanned, axes, back, strict=True)])
        state = out[:states]
        for r, v in zip(rows, out[states:], strict=True):
            r.append(v)
    turn = scan_output_directions or [0] * len(rows)
    where = scan_output_axes or [0] * len(rows)
    return (*state, *[_stacked(r[::-1] if d else r, a) for r, d, a in zip(rows, turn, where, strict=True)])


# Sequences.


@op("SequenceEmpty", raw=True)
def sequence_empty(*, dtype: int = 1) -> Any:
    return []


@op("SequenceConstruct", raw=True)
def sequence_construct(*xs: Any) -> Any:
    return list(xs)


@op("SequenceLength", raw=True)
def sequence_length(s: list[Any]) -> Any:
    return np.array(len(s), np.int64)


def _place(s: list[Any], at: Any, extra: int = 0) -> int:
    i = int(np.asarray(values.on_host(at)).reshape(()))
    if not -len(s) <= i < len(s) + extra:
        raise IndexError(f"position {i} in a sequence of {len(s)}")
    return i if i >= 0 else i + len(s)


@op("SequenceAt", raw=True)
def sequence_at(s: list[Any], at: Any) -> Any:
    return s[_place(s, at)]


@op("SequenceInsert", raw=True)
def sequence_insert(s: list[Any], x: Any, at: Any = None) -> Any:
    i = len(s) if at is None else _place(s, at, 1)
    return [*s[:i], x, *s[i:]]


@op("SequenceErase", raw=True)
def sequence_erase(s: list[Any], at: Any = None) -> Any:
    i = len(s) - 1 if at is None else _place(s, at)
    return [*s[:i], *s[i + 1 :]]


@op("SequenceMap", raw=True)
def sequence_map(s: list[Any], *more: Any, body: Any) -> Any:
    found = [body(x, *[m[i] if isinstance(m, list) else m for m in more]) for i, x in enumerate(s)]
    return tuple([list(r) for r in zip(*found, strict=True)] if found else [[] for _ in body.graph.outputs])


@op("ConcatFromSequence", raw=True)
def concat_from_sequence(s: list[Any], *, axis: int, new_axis: int = 0) -> Any:
    return _stacked(s, axis) if new_axis else Tensor.cat([values.as_recorded(x) for x in s], dim=axis)


@op("SplitToSequence", raw=True)
def split_to_sequence(x: Any, split: Any = None, *, axis: int = 0, keepdims: int = 1) -> Any:
    x = values.as_recorded(x)
    axis %= x.ndim
    if split is None:
        parts = x.split(1, dim=axis)
        return [p if keepdims else p.squeeze(axis) for p in parts]
    given = np.asarray(values.on_host(split))
    return list(x.split(ints(given) if given.ndim else int(given), dim=axis))


# Optionals: a value, or None.


@op("Optional", raw=True)
def optional(x: Any = None, *, type: Any = None) -> Any:
    return x


@op("OptionalHasElement", raw=True)
def optional_has_element(x: Any = None) -> Any:
    return np.array(x is not None)


@op("OptionalGetElement", raw=True)
def optional_get_element(x: Any) -> Any:
    if x is None:
        raise ValueError("OptionalGetElement of an optional that holds nothing")
    return x
