"""What stands in registers: loops of products spill nothing, whatever stands beside them in the kernel."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.engine.test_clip import arrays
from tests.engine.test_schedule import AVX2
from tinyengine import Tensor, autograd
from tinyengine.backends import llvm_jit
from tinyengine.backends.llvm_module import module
from tinyengine.choices import DEFAULT
from tinyengine.loopnest import Alloc, Kernel, Loop, Stmt, walk
from tinyengine.machine import FIXTURE, Machine
from tinyengine.node import Graph
from tinyengine.pipeline import lower
from tinyengine.stages.emit import prepare

TARGETS = {
    "avx2": (replace(AVX2, threads=1), llvm_jit.Target("x86_64-unknown-linux-gnu", "x86-64-v3")),
    "avx512": (replace(FIXTURE, threads=1), llvm_jit.Target("x86_64-unknown-linux-gnu", "x86-64-v4")),
}


def kernels(t: Tensor, machine: Machine) -> list[Kernel]:
    return list(lower(Graph([t.node]), DEFAULT, machine, "llvm").scheduled)


def assembly(k: Kernel, target: llvm_jit.Target) -> list[str]:
    return [line.split("#")[0].strip() for line in llvm_jit.assembly(module([prepare(k)], target), target).splitlines()]


def product_loops(lines: list[str]) -> list[list[str]]:
    """The innermost loops with multiply-adds, each as its instructions."""
    out, begin = [], dict[str, int]()
    for n, line in enumerate(lines):
        if line.endswith(":"):
            begin[line[:-1]] = n
        back = re.match(r"j\w+\s+(\.L\w+)", line)
        if back and back[1] in begin:
            body = [x for x in lines[begin[back[1]] : n + 1] if x and not x.startswith(".")]
            inner = any(begin.get(m[1], n) > begin[back[1]] for x in body[:-1] if (m := re.match(r"j\w+\s+(\.L\w+)", x)))
            if not inner and any("fmadd" in x for x in body):
                out.append(body)
    return out


def convolution(x: tuple[int, ...], w: tuple[int, ...]) -> Tensor:
    a, b = (Tensor(t) for t in arrays(x, w))
    return a.conv2d(b, None, padding=w[-1] // 2)


@pytest.mark.parametrize("name", TARGETS)
def test_a_copy_with_masks_takes_no_register_from_the_products(name: str) -> None:
    """The positions that the masks of the copy are made from are constants; the copy stands in more loops than the products do,
    but turns less often."""
    machine, target = TARGETS[name]
    (k,) = kernels(convolution((2, 32, 32, 32), (64, 32, 3, 3)), machine)
    loops = product_loops(assembly(k, target))
    assert loops
    for body in loops:
        assert not [x for x in body if re.search(r"[yz]mm.*\(%rsp\)|\(%rsp\).*[yz]mm", x)], body
        moved = [x for x in body if re.match(r"vmov\w+\s+%[yz]mm\d+, %[yz]mm\d+$", x)]
        assert not moved, body


@pytest.mark.parametrize(
    ("x", "w"), [((2, 32, 32, 32), (64, 32, 3, 3)), ((2, 64, 28, 28), (128, 64, 3, 3)), ((2, 512, 7, 7), (512, 512, 3, 3))]
)
def test_sixteen_registers_hold_a_tile_of_products(x: tuple[int, ...], w: tuple[int, ...]) -> None:
    """Sums enough that no addition waits for the one before, fewer loads than multiply-adds, no spill: whether
    pixels are the lanes, or channels, whose few taps then are not written out as what they share would fill the registers."""
    machine, target = TARGETS["avx2"]
    (k,) = kernels(convolution(x, w), machine)
    bodies = product_loops(assembly(k, target))
    widest = max(bodies, key=lambda body: sum("fmadd" in line for line in body))
    products = [line for line in widest if "fmadd" in line]
    assert len({line.split()[-1] for line in products}) >= 8
    assert sum("(%" in line for line in widest) <= 0.9 * len(products)
    assert not [line for line in widest if "%rsp" in line]


def test_taps_are_written_out_where_there_are_registers() -> None:
    """Channels in the lanes, pixels in the rows of the tile: what three taps share takes eight registers."""
    t = convolution((2, 64, 28, 28), (128, 64, 3, 3))
    for name, out in (("avx2", False), ("avx512", True)):
        low = lower(Graph([t.node]), DEFAULT, TARGETS[name][0], "llvm")
        (k,) = low.scheduled
        assert ("unroll(r_2)" in k.schedule) is out, k.schedule
        assert any(d.kind == "unroll" and "too many of 16" in d.reason for d in low.decisions) is not out


def test_masks_of_a_padded_copy_are_constants() -> None:
    """The gradient of images with few channels: the copy of a row has masks at its ends only."""
    machine, target = TARGETS["avx2"]
    x, w = (Tensor(t) for t in arrays((2, 3, 64, 64), (32, 3, 3, 3)))
    x.requires_grad = True
    y = x.conv2d(w, None, padding=1)
    (g,) = autograd.grad(y, [x], Tensor(arrays(y.shape)[0]))
    assert g is not None
    (k,) = kernels(g, machine)
    assert "unroll(t0_3)" in k.schedule
    masked = [line for line in assembly(k, target) if line.startswith("vmaskmovps")]
    assert 1 < len(masked) <= 9 + 3 * 3, "loads of a row, and stores of the last vector of a row"


def test_a_padded_copy_of_a_large_image_is_made_in_pieces() -> None:
    """An image of which the padded copy is larger than half of the second cache: rows are copied once for each piece and its
    margin, not once for each row of results."""
    machine, _ = TARGETS["avx2"]
    t = convolution((2, 32, 80, 80), (32, 32, 3, 3))
    low = lower(Graph([t.node]), DEFAULT, machine, "llvm")
    (k,) = low.scheduled
    assert any("its padded copy stays in the cache" in d.reason for d in low.decisions), k.schedule
    (copied,) = [b.buf for b in walk(k.body) if isinstance(b, Alloc) and b.buf.space == "local"]
    assert copied.nbytes <= machine.l2_bytes // 2
    assert copied.shape[-2] >= 20, "rows of results, with a margin of two"


@pytest.mark.parametrize("shape", [(1, 64, 56, 56), (16, 64, 8, 8)])
def test_one_thread_copies_the_weights_once(shape: tuple[int, ...]) -> None:
    """Not for each image, nor for each row of the only one."""
    machine, _ = TARGETS["avx512"]
    (k,) = kernels(convolution(shape, (64, 64, 3, 3)), machine)

    def turns(body: tuple[Stmt, ...], around: int) -> int:
        inside = sum(turns(s.body, around * s.trips) for s in body if isinstance(s, Loop))
        return inside + sum(around for s in body if isinstance(s, Alloc) and s.buf.size == 64 * 64 * 9)

    assert turns(k.body, 1) == 1, k.schedule
