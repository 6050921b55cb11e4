"""Forms whose kernels once came out wrong: small shapes, views and masks that meet. See `alike` for how forms are read."""

from __future__ import annotations

import pytest

from tests.engine.alike import LAYOUTS, Operand, agree, compiled

O = Operand
ONE = O((1,), dtype="int64", low=1, high=1)
CASES = [
    # a guard stood before the loop that its mask names
    ("(lambda z: (z.__setitem__(i, y[0]), z)[1])(x * 1)", {"x": O((3, 4)), "y": O((3, 4)), "i": ONE}),
    ("(lambda z: (z.__setitem__((slice(None), i - 2), y[:, :1]), z)[1])(x * 1)", {"x": O((3, 4)), "y": O((3, 4)), "i": ONE}),
    # 1 / 0 beside a padded product
    ("x.softmax(0)", {"x": O((3, 4), "strided")}),
    ("x[..., ::2].softmax(0)", {"x": O((3, 8), "transposed")}),
    ("x.log_softmax(0).exp() / x.softmax(0)", {"x": O((3, 4), "strided")}),
    # memory seen as one axis under an index of several lanes
    ("x.max()", {"x": O((3, 4), "transposed")}),
    ("x.var((0, 1))", {"x": O((3, 4), "transposed")}),
    ("x.scatter_reduce(0, j, x * 2, 'amin', include_self=False)", {"x": O((4, 3, 5)), "j": O((4, 3, 5), dtype="int64", low=0)}),
    ("x.cross_entropy(x.softmax(-1).detach()) :: F.cross_entropy(x, x.softmax(-1).detach())", {"x": O((2, 4, 3))}),
    ("x.max_pool2d(3, return_indices=True) :: F.max_pool2d(x, 3, return_indices=True)", {"x": O((2, 3, 6, 7), "transposed")}),
    # a step beside a mask: 2 e < 10 follows from e < 5
    ("x.conv2d(w, None, (2, 1), 1) :: F.conv2d(x, w, None, (2, 1), 1)", {"x": O((2, 4, 6, 5), "strided"), "w": O((6, 4, 3, 2))}),
    ("x.max_pool2d((1, 2), ceil_mode=True) :: F.max_pool2d(x, (1, 2), ceil_mode=True)", {"x": O((2, 3, 6, 7), "strided")}),
]


@pytest.mark.parametrize("form, operands", CASES, ids=range(len(CASES)))
def test_what_is_compiled_is_what_pytorch_gives(form: str, operands: dict[str, Operand]) -> None:
    layouts = LAYOUTS if operands["x"].layout == "plain" else [operands["x"].layout]
    every = [{**operands, "x": operands["x"]._replace(layout=k)} for k in layouts]
    agree(form, every, rtol=2e-5, by=compiled)
