"""What stands in registers: loops of products spill nothing, whatever stands beside them in the kernel."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.engine.test_clip import arrays
from tests.engine.test_schedule import AVX2
from tinyengine import Tensor
from tinyengine.backends import llvm_jit
from tinyengine.backends.llvm_module import module
from tinyengine.choices import DEFAULT
from tinyengine.loopnest import Kernel
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
