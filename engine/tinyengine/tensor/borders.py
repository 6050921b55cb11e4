"""pad with what is there already: reflect, replicate, circular. Pieces of the tensor are joined; all addresses stay static."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinyengine.origin import user_line

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor

MODES = ("reflect", "replicate", "circular")


def _piece(x: Any, d: int, start: int, stop: int) -> Any:
    return x.shrink([(start, stop) if k == d else None for k in range(x.ndim)])


def _side(x: Any, d: int, count: int, mode: str, low: bool) -> Any:
    """What comes before (or after) the elements along axis d."""
    n = x.shape[d]
    if mode == "replicate":
        edge = _piece(x, d, 0, 1) if low else _piece(x, d, n - 1, n)
        return edge.expand([count if k == d else s for k, s in enumerate(x.shape)])
    if mode == "circular":
        return _piece(x, d, n - count, n) if low else _piece(x, d, 0, count)
    return (_piece(x, d, 1, count + 1) if low else _piece(x, d, n - 1 - count, n - 1)).flip(d)


def extend(x: Any, widths: list[tuple[int, int]], mode: str) -> Tensor:
    """x with `widths` (low, high) more elements on each axis, none negative. RuntimeError where an axis has too few elements:
    reflect needs one more than the width, circular as many, replicate one. NotImplementedError for other modes."""
    if mode not in MODES:
        raise NotImplementedError(f"pad: mode is 'constant', {', '.join(map(repr, MODES))}, not {mode!r}\n  at {user_line()}")
    for d, (low, high) in enumerate(widths):
        if not low and not high:
            continue
        need = {"reflect": max(low, high) + 1, "circular": max(low, high), "replicate": 1}[mode]
        if x.shape[d] < need:
            raise RuntimeError(
                f"pad: {mode} by {(low, high)} needs at least {need} elements along axis {d}, shape {list(x.shape)}\n"
                f"  at {user_line()}"
            )
        parts = [_side(x, d, low, mode, True)] if low else []
        parts += [x, _side(x, d, high, mode, False)] if high else [x]
        x = type(x).cat(parts, dim=d)
    return x  # type: ignore[no-any-return]


__all__ = ["MODES", "extend"]
