"""Hints for memory that the next iteration of a loop needs: which lines they name, and where the schedules put them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.engine import forms
from tests.engine.test_clip import arrays
from tinyengine import Tensor
from tinyengine.choices import DEFAULT
from tinyengine.loopnest import Expr, Kernel, Loop, Prefetch, index, walk
from tinyengine.machine import FIXTURE
from tinyengine.node import Graph
from tinyengine.pipeline import lower
from tinyengine.stages.arithmetic.affine import flat_expr, substitute
from tinyengine.stages.primitives.apply import apply

LINE = 16  # floats


def hinted(k: Kernel, outer: str) -> dict[tuple[int, ...], set[int]]:
    """The lines that the hints of the kernel name, for each iteration of the loops up to `outer`."""
    found: dict[tuple[int, ...], set[int]] = {}

    def visit(body: object, env: dict[Expr, Expr], seen: tuple[int, ...], inside: bool) -> None:
        for s in body:  # type: ignore[attr-defined]
            if isinstance(s, Loop):
                for n in range(s.start, s.stop, s.step):
                    now = seen if inside else (*seen, n)
                    visit(s.body, env | {s.var: index(n)}, now, inside or s.name == outer)
            elif isinstance(s, Prefetch):
                e = substitute(flat_expr(s.index, s.buf.strides), env, {})
                assert e.op == "const", e
                found.setdefault(seen, set()).add(e.arg // LINE)

    visit(k.body, {}, (), False)
    return found


@pytest.mark.parametrize("depth", [3, 7, 200])
def test_the_next_row_in_parts(depth: int) -> None:
    """Fewer and more turns of the loop than lines: every line of the next row, and no other."""
    k = apply(forms.matmul(3, 64, depth), "reorder(j, i); tile(j, 32); reorder(i, ji); prefetch(out, jo, at=i)")
    row = apply(forms.matmul(3, 128, depth), "prefetch(out, i, at=k)")
    for (i, *_), lines in hinted(row, "i").items():
        assert lines == set(range((i + 1) * 8, (i + 2) * 8))
    assert set().union(*hinted(k, "jo").values()) == {r * 4 + n for r in range(3) for n in (2, 3, 4, 5)}


def test_a_box_of_short_rows() -> None:
    """The next tile of a convolution: one line of each row of each channel."""
    k = apply(forms.conv(2, 3, 8, 16), "reorder(b, y, z, c); prefetch(out, y, at=z)")
    for (b, y), lines in hinted(k, "y").items():
        assert lines == {(b * 8 + c) * 16 + y + 1 for c in range(8)}


def convolution(images: int) -> Graph:
    x, w = (Tensor(t) for t in arrays((images, 32, 24, 24), (32, 32, 5, 5)))
    return Graph([x.conv2d(w).relu().node])


@pytest.mark.parametrize(("images", "ahead"), [(4, False), (64, True)])
def test_a_convolution_asks_ahead_for_what_the_second_cache_does_not_hold(images: int, ahead: bool) -> None:
    low = lower(convolution(images), DEFAULT, replace(FIXTURE, threads=1), "llvm")
    (k,) = low.scheduled
    hints = [s for s in walk(k.body) if isinstance(s, Prefetch)]
    assert bool(hints) is ahead
    assert {h.buf.name for h in hints} == (set() if not ahead else {p.name for p in k.params if p.nbytes > 1 << 20})
    decided = [d for d in low.decisions if d.kind == "prefetch"]
    assert all(d.numbers["bytes"] > d.numbers["l2_bytes"] for d in decided) and bool(decided) is ahead


def test_one_hint_at_a_time() -> None:
    """More of them at once would stand before the loads of the products."""
    (k,) = lower(convolution(64), DEFAULT, replace(FIXTURE, threads=1), "llvm").scheduled
    sums = [s for s in walk(k.body) if isinstance(s, Loop) and any(isinstance(b, Prefetch) for b in s.body)]
    assert sums and all(len([b for b in s.body if isinstance(b, Prefetch)]) <= 3 for s in sums)
    assert not [b for s in sums for b in s.body if isinstance(b, Loop) and not b.reduce]


@pytest.mark.parametrize(("images", "ahead"), [(8, False), (64, True)])
def test_a_channel_of_the_next_image_is_asked_for(images: int, ahead: bool) -> None:
    """A sum over images and rows: each channel's rows are one short piece of an image."""
    x, m = (Tensor(t) for t in arrays((images, 32, 20, 20), (20, 1)))
    (k,) = lower(Graph([(x * m).sum((0, 2, 3)).node]), DEFAULT, FIXTURE, "llvm").scheduled
    (large,) = [p.name for p in k.params if p.shape == x.shape]
    assert (f"prefetch({large}, r, at=r_1)" in k.schedule) is ahead, k.schedule


def test_what_lies_behind_each_other_is_left_to_the_machine() -> None:
    """Whole images, one behind the other."""
    x, m = (Tensor(t) for t in arrays((64, 32, 20, 20), (20, 1)))
    (k,) = lower(Graph([(x * m).sum((1, 2, 3)).node]), DEFAULT, FIXTURE, "llvm").scheduled
    assert not [p for p in k.schedule if p.startswith("prefetch")], k.schedule
