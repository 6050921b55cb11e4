"""Random chains of functions over views, compiled: value and gradient are what PyTorch gives. See `alike` for the forms."""

from __future__ import annotations

import random

import pytest

from tests.engine.alike import LAYOUTS, Operand, agree, compiled

STEPS = (
    "{}.tanh()", "{}.exp()", "{}.relu()", "F.gelu({})", "{}.softmax(-1)", "{}.log_softmax(0)", "{}.cumsum(-1)", "{}.cumsum(0)",
    "{}.sum(0)", "{}.mean(-1, keepdim=True)", "{}.amax(0, keepdim=True)", "{}.max(0)[0]", "{}.min(-1)[0]", "{}.sort(-1)[0]",
    "{}.flip(0)", "{}.transpose(0, -1)", "{}[..., ::2]", "{}[..., 1::3]", "{}[1:]", "{}[[0, -1, 0]]", "{}.unsqueeze(0)",
    "{}.unsqueeze(-1)", "F.pad({}, (1, 2))", "F.pad({}, (0, 1), value=1.5)", "{}.roll(1, -1)", "{}.unfold(-1, 2, 1)",
    "{}.unfold(0, 2, 1)", "{}.repeat_interleave(2, 0)", "{}.flatten()", "{}.tril()", "{}.diagonal()", "({} * y)", "({} + y)",
    "({} / (y * y + 0.5))", "F.linear({}, w)", "F.normalize({}, dim=-1, eps=0.1)", "(lambda z: z @ z.transpose(-1, -2))({})",
    "(lambda z: T.cat([z, z * y], 0))({})", "(lambda z: T.cat([z[:1], z], -1))({})",
    "(lambda z: F.layer_norm(z, z.shape[-1:]))({})",
    "(lambda z: F.conv1d(z[None, None].flatten(2), w[:1, None, :3], padding=2)[0])({})", "{}.var(-1, correction=0)",
    "(lambda z: (z.__setitem__((Ellipsis, slice(0, None, 2)), 0.5), z)[1])({} * 1)",
    "(lambda z: (z.__setitem__(0, z[-1] * y), z)[1])({} * 1)", "{}.masked_fill(y > 0, 0.25)",
)  # fmt: skip
SHAPES = ((5, 17), (3, 4, 6), (16, 8), (33,), (2, 3, 4, 5), (1, 31))


def chain(seed: int) -> str:
    rng = random.Random(seed)
    form = "x"
    for _ in range(rng.randint(2, 6)):
        form = rng.choice(STEPS).format(form)
    return form


@pytest.mark.parametrize("first", range(0, 80, 10))
def test_chains(first: int) -> None:
    for seed in range(first, first + 10):
        x = Operand(SHAPES[seed % len(SHAPES)], LAYOUTS[seed % len(LAYOUTS)])
        agree(chain(seed), [{"x": x, "y": Operand((1,)), "w": Operand((7, 6))}], rtol=1e-3, by=compiled)
