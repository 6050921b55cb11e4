"""Equal expressions are one object, however many others were made in the meantime."""

from __future__ import annotations

import numpy as np
import pytest

from tinyengine import Tensor, dtypes
from tinyengine.loopnest import Expr, apply, const, name, subexprs


def _made(k: int) -> Expr:
    return apply("add", (name("swept", dtypes.float32), const(k, dtypes.float32)))


def test_what_is_held_stays_identical_and_what_is_not_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    held = apply("mul", (_made(-1), _made(-2)))
    below = list(subexprs(held))
    monkeypatch.setattr(Expr, "_most", len(Expr._table) + 1000)
    for k in range(3000):
        subexprs(_made(k))
    assert apply("mul", (_made(-1), _made(-2))) is held and list(subexprs(held)) == below
    swept = [key for key in Expr._table if key[0] == "add" and key[3][0] is below[0]]
    assert below[0] is name("swept", dtypes.float32) and len(swept) < 2600  # one sweep, after about 500


def test_a_sweep_in_the_middle_of_compiling_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyengine.loopnest.LEAST_SWEPT", 0)
    sweep, count = Expr._sweep.__func__, 0  # type: ignore[attr-defined]

    def often(cls: type[Expr]) -> None:
        nonlocal count
        sweep(cls)
        cls._most, count = len(cls._table) + 50, count + 1

    monkeypatch.setattr(Expr, "_sweep", classmethod(often))
    monkeypatch.setattr(Expr, "_most", 0)
    x = np.linspace(-0.3, 0.3, 53 * 71, dtype=np.float32).reshape(53, 71)
    got = (Tensor(x) @ Tensor(x.T).tanh()).softmax(1).numpy()
    z = np.exp(x.astype(np.float64) @ np.tanh(x.T.astype(np.float64)))
    np.testing.assert_allclose(got, z / z.sum(1, keepdims=True), rtol=1e-5)
    assert count > 1  # few where much of the program was compiled before
