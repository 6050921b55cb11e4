"""The operators: which function computes which, and from which version of the operator set on.

An operator is a function of Tensors whose keyword-only arguments are the operator's attributes, by their names in ONNX. What else
it wants to be given stands in its row:
- `host`: positions of the operands whose values decide a shape. They come as NumPy arrays, computed at once where they are not
  known (`ALL`: every operand).
- `either`: positions that come as they are, known (NumPy) or recorded (Tensor).
- `raw`: every operand comes as it is: sequences, optionals, strings too.
- `random`: never folded.
- `moves`: elements change places only, so those of a dtype that the engine does not have (`values.Held`) may too.
- `held`: takes and gives `values.Held` itself.
- an argument `call`: the node that is being computed (its operator set, how many results are asked for).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

OLDEST, NEWEST = 1, 28  # operator sets whose operators have the meaning they have here
ALL = range(1 << 30)


@dataclass(frozen=True)
class Operator:
    """One row: `since` is the first operator set in which `f` is what the name means; `required`: attributes without default."""

    name: str
    since: int
    f: Callable[..., Any]
    attributes: frozenset[str]
    required: frozenset[str]
    host: Collection[int] = ()
    either: Collection[int] = ()
    raw: bool = False
    random: bool = False
    moves: bool = False
    held: bool = False
    wants_call: bool = False


# Operators of ONNX that are not here, and why.
REFUSED = {
    "ImageDecoder": "reading image files is no computation on tensors; decode before the model, and give it the pixels",
}
# Operators that ONNX defines by a function of others, which is taken instead of a row here.
BY_FUNCTION = (
    "AffineGrid", "BlackmanWindow", "CausalConvWithState", "DynamicQuantizeLinear", "HammingWindow", "HannWindow",
    "LinearAttention", "SwiGLU",
)  # fmt: skip

OPERATORS: dict[str, list[Operator]] = {}  # by name, in order of `since`


def op(
    name: str,
    since: int = 1,
    *,
    host: Collection[int] = (),
    either: Collection[int] = (),
    raw: bool = False,
    random: bool = False,
    moves: bool = False,
    held: bool = False,
) -> Callable[[F], F]:
    """`f` is the operator `name` from operator set `since` on, until another row says otherwise."""

    def register(f: F) -> F:
        named = {p.name: p for p in inspect.signature(f).parameters.values() if p.kind is p.KEYWORD_ONLY}
        wants_call = named.pop("call", None) is not None
        required = frozenset([n for n, p in named.items() if p.default is p.empty])
        row = Operator(name, since, f, frozenset(named), required, host, either, raw, random, moves, held, wants_call)
        rows = OPERATORS.setdefault(name, [])
        rows.append(row)
        rows.sort(key=lambda r: r.since)
        return f

    return register


def find(name: str, opset: int) -> Operator | None:
    """The row that holds in this operator set."""
    return next((r for r in reversed(OPERATORS.get(name, [])) if r.since <= opset), None)


def supported() -> list[str]:
    """The names of the operators that a model may hold."""
    return sorted((*OPERATORS, *BY_FUNCTION))


__all__ = ["ALL", "BY_FUNCTION", "NEWEST", "OLDEST", "OPERATORS", "REFUSED", "Operator", "find", "op", "supported"]
