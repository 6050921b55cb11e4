"""Movement and creation: what PyTorch gives, at the edges too. See `alike` for how forms are read."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.alike import EVERY, LAYOUTS, Operand, agree, forms_of, on_backends, outcomes
from tinyengine import Tensor

O = Operand

MOVEMENT = """
    x.T
    x.mT
    x.chunk(2)
    x.chunk(3, 1)
    x.chunk(7, -1)
    x.chunk(0)
    x.diag()
    x.diag(1)
    x.diag(-1)
    x.diagonal()
    x.diagonal(1)
    x.diagonal(-1, 0, 1)
    x.diagonal(0, 1, 0)
    x.diagonal(0, -1, -2)
    x.diagonal(9)
    x.diagonal(0, 1, 1)
    x.expand(3, 4)
    x.expand(-1, -1)
    x.expand(2, *x.shape)
    x.expand(2, 3, -1)
    x.expand(5)
    x.flatten()
    x.flatten(1)
    x.flatten(0, 1)
    x.flatten(-2)
    x.flatten(1, 0)
    x.flip(0)
    x.flip(0, 1)
    x.flip([1])
    x.flip(-1)
    x.flip(0, 0)
    x.flip()
    x.flip(5)
    x.ndim
    x.numel()
    x.permute(1, 0)
    x.permute(0, 1, 2)
    x.permute(2, 0, 1)
    x.permute((1, 0))
    x.permute(0, 0)
    x.permute(0)
    x.permute(-1, 0)
    x.repeat(2)
    x.repeat(2, 3)
    x.repeat(1, 0)
    x.repeat(2, 1, 3)
    x.repeat((2, 1, 3))
    x.repeat(-1, 1)
    x.repeat_interleave(2)
    x.repeat_interleave(2, 0)
    x.repeat_interleave(3, 1)
    x.repeat_interleave(0, 0)
    x.repeat_interleave(2, dim=-1)
    x.repeat_interleave(2, 7)
    x.repeat_interleave(-1)
    x.reshape(-1)
    x.reshape(2, -1)
    x.reshape(4, 3)
    x.reshape((3, 4))
    x.reshape(0, -1)
    x.reshape(5, 5)
    x.reshape(-1, -1)
    x.reshape(-2, 3)
    x.roll(1)
    x.roll(-2, 0)
    x.roll(5, 1)
    x.roll((1, 2), (0, 1))
    x.roll(1, -1)
    x.roll((1, 2), 0)
    x.roll(1, 7)
    x.size()
    x.size(0)
    x.size(-1)
    x.size(9)
    x.split(2)
    x.split(2, 1)
    x.split([1, 2], 0)
    x.split([1, 3], 1)
    x.split(5, -1)
    x.split(0)
    x.split(-1)
    x.split([1, 1])
    x.squeeze()
    x.squeeze(0)
    x.squeeze(1)
    x.squeeze((0, 1))
    x.squeeze(-1)
    x.squeeze(5)
    x.stack(x) :: torch.stack([x, x])
    T.stack([x, x])
    T.stack([x, x], 1)
    T.stack([x, x], dim=-1)
    T.stack([x, x[:1]])
    T.stack([])
    T.cat([x, x])
    T.cat([x, x], 1)
    T.cat([x, x], dim=-1)
    T.cat([x, x[:1]], 0)
    T.cat([x, x[:1]], 1)
    T.cat([])
    T.cat([x, x], 9)
    x.transpose(0, 1)
    x.transpose(-1, 0)
    x.transpose(0, 5)
    x.unflatten(0, (1, -1))
    x.unflatten(-1, (2, -1))
    x.unflatten(1, (2, 2))
    x.unflatten(0, (7, 7))
    x.unfold(0, 2, 1)
    x.unfold(1, 2, 2)
    x.unfold(-1, 3, 1)
    x.unfold(0, 1, 1)
    x.unfold(0, 9, 1)
    x.unfold(0, 2, 0)
    x.unfold(0, 0, 1)
    x.unsqueeze(0)
    x.unsqueeze(-1)
    x.unsqueeze(1)
    x.unsqueeze(5)
    x.view(x.shape)
    x.tril()
    x.tril(1)
    x.triu(-1)
    x.triu()
    x.pad((1, 1)) :: F.pad(x, (1, 1))
    x.pad((1, 0, 2, 1)) :: F.pad(x, (1, 0, 2, 1))
    x.pad((-1, 2)) :: F.pad(x, (-1, 2))
    x.pad((1, 1), value=2.5) :: F.pad(x, (1, 1), value=2.5)
    x.pad((-9, 0)) :: F.pad(x, (-9, 0))
    x.pad((1,)) :: F.pad(x, (1,))
    x.expand_as(x)
    x.is_floating_point()
    x.element_size()
    x.nbytes
    len(x)
    T.meshgrid(x.flatten(), x.flatten(), indexing='ij')
    T.meshgrid(x.flatten(), x.flatten(), indexing='xy')
    T.meshgrid(x.flatten(), x.flatten(), indexing='xx')
    x.unflatten(5, (1, 2))
    x.unflatten(0, 3)
    x.tril(1.5)
    x.pad('a') :: F.pad(x, 'a')
    T.einsum(1, x)
"""
# empty tensors and scalars for which PyTorch does not look at its arguments, or overflows while it makes its message
SPECIAL = {
    "x.expand(-1, -1)": [()], "x.expand(2, 3, -1)": [()], "x.repeat(-1, 1)": [(0, 3), (2, 0)], "x.roll(5, 1)": [(0,)],
    "x.roll((1, 2), (0, 1))": [(0,)], "x.roll(1, 7)": [(0,), (2, 0), (0, 3)], "T.cat([x, x], 1)": [(0,)],
    "T.cat([x, x], 9)": [(0,)], "T.cat([x, x[:1]], 1)": [(0,)],
}  # fmt: skip
SHAPES: list[Any] = [(), (1,), (4,), (0,), (2, 0), (0, 3), (1, 4), (2, 3, 4), (2, 1, 3), (1, 1)]
OPERANDS = [O((3, 4), layout) for layout in LAYOUTS] + [O(s) for s in SHAPES] + [O((2, 3, 4), "transposed")]
OPERANDS += [O((3, 4), dtype=d, low=-3, high=3) for d in ("float16", "int32", "uint8", "bool")]


@pytest.mark.parametrize("form", forms_of(MOVEMENT))
def test_movement(form: str) -> None:
    agree(form, [{"x": o} for o in OPERANDS if o.shape not in SPECIAL.get(form, [])])


def test_a_new_axis_has_an_extent() -> None:
    for shape in ((-1, -1), (2, 3, -1)):
        with pytest.raises(RuntimeError):
            Tensor(1.0).expand(*shape)


def test_movement_on_all_backends() -> None:
    some = [f for f in forms_of(MOVEMENT)[::2] if not f.startswith("len")]
    operand = {"x": O((3, 4), "reversed")}
    on_backends("\n".join(f for f in some if outcomes(f, operand)[1].error is None), operand)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0), (2, 0, 3), ()], ids=str)
def test_empty_shapes_and_scalars_are_compiled_too(shape: tuple[int, ...]) -> None:
    operand = {"x": O(shape)}
    pairs = [(f, *outcomes(f, operand)[:2]) for f in forms_of(MOVEMENT)]
    on_backends("\n".join(f for f, mine, other in pairs if mine.error is None and other.error is None), operand, EVERY[:1])


CREATION = """
    T.zeros(2, 3)
    T.zeros((2, 3))
    T.zeros(0)
    T.zeros(())
    T.zeros(-1)
    T.ones(2, 3)
    T.full((2, 3), 7)
    T.full((2, 3), 7.5)
    T.full((2,), True)
    T.full((-2,), 1)
    T.full((), 3.0)
    T.arange(5)
    T.arange(2, 5)
    T.arange(2, 9, 3)
    T.arange(5, 2, -1)
    T.arange(0, 1, 0.25)
    T.arange(5.0)
    T.arange(5, 2)
    T.arange(0, 5, 0)
    T.arange(0)
    T.arange(1, 2, 0.3)
    T.linspace(0, 1, 5)
    T.linspace(0, 1, steps=1)
    T.linspace(3, -2, 7)
    T.linspace(0, 1, 0)
    T.linspace(0, 1, -1)
    T.linspace(0, 10, 4, dtype='int32') :: torch.linspace(0, 10, 4, dtype=torch.int32)
    T.linspace(-5, 5, 4, dtype='int32') :: torch.linspace(-5, 5, 4, dtype=torch.int32)
    T.eye(3)
    T.eye(2, 4)
    T.eye(0)
    T.eye(-1)
    T.eye(2, -1)
    x.zeros_like() :: torch.zeros_like(x)
    x.ones_like() :: torch.ones_like(x)
    x.full_like(3) :: torch.full_like(x, 3)
    x.full_like(2.5) :: torch.full_like(x, 2.5)
    x.full_like(True) :: torch.full_like(x, True)
    x.zeros_like(dtype='int32') :: torch.zeros_like(x, dtype=torch.int32)
    x.long()
    x.bitcast('int32') :: x.view(torch.int32)
    x.item()
    x.tolist()
    bool(x)
    int(x)
    float(x)
    len(x)
    [v for v in x]
    x.clone()
"""


@pytest.mark.parametrize("form", forms_of(CREATION))
def test_creation(form: str) -> None:
    operands = [O((2, 3), "transposed"), O(()), O((0,)), O((1,)), O((2,), dtype="int32"), O((1,), dtype="bool")]
    agree(form, [{"x": o} for o in operands])
