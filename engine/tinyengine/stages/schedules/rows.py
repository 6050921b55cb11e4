"""Kernels that differ in which rows of their parameters they touch have one schedule: it is chosen for the first rows, of a
parameter that has no others, and holds wherever these rows stand.

Rows are moved by whole cache lines (see `arithmetic.displace`), so what is aligned is aligned in both.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace

from tinyengine import index
from tinyengine.loopnest import Buf, Kernel
from tinyengine.loopnest import index as number
from tinyengine.stages.arithmetic.displace import At, accesses, constant, lines, minus, plus, rewritten


@dataclass(frozen=True, slots=True)
class Rows:
    """`kernel` touches the first rows of its parameters. `begin`: of a parameter, as it is in truth, the row at which they
    begin."""

    kernel: Kernel
    begin: Mapping[str, tuple[Buf, int]]

    def put_back(self, kernel: Kernel) -> Kernel:
        """What became of the kernel, for the rows that are meant. A schedule may have joined axes of a parameter."""

        def change(b: Buf, at: At) -> tuple[Buf, At]:
            own, row = self.begin[b.name]
            step = b.strides[0]
            whole = replace(b, shape=(own.size // step, *b.shape[1:]))
            return whole, (plus(at[0], row * own.strides[0] // step), *at[1:])

        return _changed(kernel, self.begin, change) if self.begin else kernel


def first_rows(kernel: Kernel) -> Rows:
    """The kernel over the first rows of each parameter of which it touches none."""
    spans: dict[Buf, tuple[int, int, int]] = {}  # constant of all first indices, least and largest row
    for buf, at in accesses(kernel):
        if at:
            low, high = index.bounds(at[0])
            a, b, c = spans.get(buf, (constant(at[0]), low, high))
            spans[buf] = min(a, constant(at[0])), min(b, low), max(c, high)
    begin: dict[str, tuple[Buf, int]] = {}
    few: dict[str, tuple[int, ...]] = {}
    for buf, (least, low, high) in spans.items():
        row = lines(buf, 0, least)
        if row and low >= row and high < buf.shape[0]:
            begin[buf.name] = buf, row
            few[buf.name] = (high - row + 1, *buf.shape[1:])
    if not begin:
        return Rows(kernel, begin)

    def change(b: Buf, at: At) -> tuple[Buf, At]:
        return replace(b, shape=few[b.name]), (minus(at[0], begin[b.name][1]), *at[1:])

    return Rows(_changed(kernel, begin, change), begin)


def _changed(kernel: Kernel, names: Container[str], change: Callable[[Buf, At], tuple[Buf, At]]) -> Kernel:
    """The kernel with other accesses to some parameters, and with these as its parameters."""
    params = [change(p, (number(0),) * len(p.shape))[0] if p.name in names else p for p in kernel.params]
    return replace(rewritten(kernel, names, change), params=tuple(params))
