"""Symbolic sizes: `Variable("n", 1, 1024)` and what is computed from it. One program serves every value from the least to the
most.

A `Size` is a polynomial in variables with whole coefficients. It stands in the shape of a tensor in place of an int. Arithmetic
on sizes is exact, or refused: `(4 * n) // 2` is `2 * n`, and `n // 2` raises. Whether `n > 3` is answered from the bounds where
they settle it, else from the value that n is bound to; a trace of a jitted function then notes a `Guard`, and a later call in
which the answer is another traces again. What the stages make of sizes: extent.py.
"""

from __future__ import annotations

import operator
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tinyengine.origin import is_user, user_line


class SizeError(ValueError):
    """A size has no value, another than expected, or is asked for what only a number can tell."""


class Symbol(NamedTuple):
    """What a variable is in every program: its name and its bounds, both included."""

    name: str
    min: int
    max: int

    def __str__(self) -> str:
        return self.name


Terms = tuple[tuple[tuple[Symbol, ...], int], ...]  # (factors in order, coefficient), sorted
_ENGINE, _LARGE = "tinyengine", 1 << 40


class _State(threading.local):
    guards: list[Guard] | None = None  # those of the trace that is going on


state = _State()


class Size:
    """A polynomial in variables: an extent of a tensor, or a position. `value`: the number that it is bound to, or None."""

    __slots__ = ("_bound", "_hash", "max", "min", "symbols", "terms")

    def __init__(self, terms: Terms, bound: tuple[tuple[str, int], ...]) -> None:
        self.terms, self._bound = terms, bound
        self._hash = hash(terms)
        low = high = 0
        for factors, c in terms:
            a = b = c
            for s in factors:
                a, b = (a * s.min, b * s.max) if c > 0 else (a * s.max, b * s.min)
            low, high = low + a, high + b
        self.min, self.max = low, high
        self.symbols = tuple(dict.fromkeys([s for factors, _ in terms for s in factors]))  # its variables in order

    # -- what it is

    @property
    def bound(self) -> dict[str, int]:
        """The values of its variables, as far as they have one."""
        return dict(self._bound)

    @property
    def value(self) -> int | None:
        """The number that it stands for now; None while a variable has none."""
        values = dict(self._bound)
        return self.at(values) if all([s.name in values for s in self.symbols]) else None

    def at(self, values: Mapping[str, int]) -> int:
        """Its value where the variables have these values."""
        total = 0
        for factors, c in self.terms:
            for s in factors:
                c *= values[s.name]
            total += c
        return total

    def bind_all(self, values: Mapping[str, int]) -> Size:
        """The same where the variables have these values; a variable without one there keeps what it has."""
        known = {**dict(self._bound), **values}
        return Size(self.terms, tuple(sorted((s.name, known[s.name]) for s in self.symbols if s.name in known)))

    def __repr__(self) -> str:
        out = ""
        for factors, c in sorted(self.terms, key=lambda t: -len(t[0])):
            word = "*".join(s.name for s in factors)
            text = str(abs(c)) if not word else word if abs(c) == 1 else f"{abs(c)}*{word}"
            out += (f" {'-' if c < 0 else '+'} " if out else "-" if c < 0 else "") + text
        return out or "0"

    def __hash__(self) -> int:
        return self._hash

    # -- arithmetic

    def __add__(self, other: Any) -> Any:
        terms = _terms(other)
        if terms is None:
            return NotImplemented
        out = dict(self.terms)
        for factors, c in terms:
            out[factors] = out.get(factors, 0) + c
        return _made(out, _together(self, other))

    __radd__ = __add__

    def __neg__(self) -> Any:
        return self * -1

    def __sub__(self, other: Any) -> Any:
        return NotImplemented if _terms(other) is None else self + other * -1

    def __rsub__(self, other: Any) -> Any:
        return NotImplemented if _terms(other) is None else self * -1 + other

    def __mul__(self, other: Any) -> Any:
        terms = _terms(other)
        if terms is None:
            return NotImplemented
        out: dict[tuple[Symbol, ...], int] = {}
        for f, c in self.terms:
            for g, d in terms:
                factors = tuple(sorted(f + g))
                out[factors] = out.get(factors, 0) + c * d
        return _made(out, _together(self, other))

    __rmul__ = __mul__

    def divided(self, other: Any) -> Any:
        """self / other where that is a size for every value, else None."""
        terms = _terms(other)
        if not terms:
            return None
        lead, c = terms[-1]
        rest, out = dict(self.terms), 0
        bound = _together(self, other)
        while rest:
            top = max(rest)
            factors = list(top)
            for s in lead:
                if s not in factors:
                    return None
                factors.remove(s)
            if rest[top] % c:
                return None
            part = _made({tuple(factors): rest[top] // c}, bound)
            out = out + part
            left = _made(rest, bound) - part * other
            rest = dict(left.terms) if isinstance(left, Size) else {(): left} if left else {}
        return out

    def __floordiv__(self, other: Any) -> Any:
        if _terms(other) is None:
            return NotImplemented
        out = self.divided(other)
        if out is not None:
            return out
        if isinstance(other, int) and other > 0 and self.min // other == self.max // other:
            return self.min // other
        raise SizeError(
            f"({self}) // ({other}) is no whole number for every value of {_names(self)}; expected a division without rest\n"
            f"  at {user_line()}"
        )

    def __mod__(self, other: Any) -> Any:
        if _terms(other) is None:
            return NotImplemented
        if self.divided(other) is not None:
            return 0
        if isinstance(other, int) and other > 0:
            if all([c % other == 0 for factors, c in self.terms if factors]):
                return dict(self.terms).get((), 0) % other
            if self.min // other == self.max // other:
                return self - self.min // other * other
        raise SizeError(f"({self}) % ({other}) is not the same for every value of {_names(self)}\n  at {user_line()}")

    def __rfloordiv__(self, other: Any) -> Any:
        if _terms(other) is None:
            return NotImplemented
        return other // int(self)

    def __rmod__(self, other: Any) -> Any:
        if _terms(other) is None:
            return NotImplemented
        return other % int(self)

    def __truediv__(self, other: Any) -> Any:
        return float(self) / other if isinstance(other, (int, float)) else NotImplemented

    def __rtruediv__(self, other: Any) -> Any:
        return other / float(self) if isinstance(other, (int, float)) else NotImplemented

    # -- questions

    def __eq__(self, other: object) -> Any:
        terms = _terms(other)
        if terms is None:
            return NotImplemented
        if isinstance(other, Size) and other.terms == self.terms and (not self._bound or self._bound == other._bound):
            return True
        if isinstance(other, int) and not self.min <= other <= self.max:
            return False
        if not is_user(sys._getframe(1).f_code):
            return isinstance(other, Size) and other.terms == self.terms  # the engine asks whether it is the same extent always
        return self._decide("==", other)

    def __ne__(self, other: object) -> Any:
        terms = _terms(other)
        if terms is None:
            return NotImplemented
        if isinstance(other, int) and not self.min <= other <= self.max:
            return True
        if not is_user(sys._getframe(1).f_code):
            return not (isinstance(other, Size) and other.terms == self.terms)
        return not self._decide("==", other)

    def __lt__(self, other: Any) -> Any:
        return self._order("<", other)

    def __le__(self, other: Any) -> Any:
        return self._order("<=", other)

    def __gt__(self, other: Any) -> Any:
        return self._order(">", other)

    def __ge__(self, other: Any) -> Any:
        return self._order(">=", other)

    def _order(self, op: str, other: Any) -> Any:
        if isinstance(other, float):
            low, high = self.min - other, self.max - other
        elif _terms(other) is None:
            return NotImplemented
        else:
            low, high = bounds(_plain(self) - _plain(other))
        least, most = _COMPARE[op](low, 0), _COMPARE[op](high, 0)
        return least if least == most else self._decide(op, other)

    def _decide(self, op: str, other: Any) -> bool:
        """What the values of now say; a trace notes it."""
        a = self._number(op, other)
        b = other._number(op, self) if isinstance(other, Size) else other
        answer = bool(_COMPARE[op](a, b))
        if state.guards is not None:
            state.guards.append(Guard(self, op, other, answer, user_line()))
        return answer

    def _number(self, op: str, other: Any) -> int:
        v = self.value
        if v is None:
            raise SizeError(
                f"whether {self} {op} {other} depends on the value of {_names(self)}, which has none here; expected a question"
                f" that its bounds {self.min} to {self.max} settle, or a bound value, as in {_names(self)}.bind({self.max})\n"
                f"  at {user_line()}"
            )
        return v

    def __bool__(self) -> bool:
        return bool(self.min > 0 or self.max < 0 or not self._decide("==", 0))

    def __int__(self) -> int:
        v = self.value
        if v is None:
            raise SizeError(
                f"the value of {self} was asked for, and {_names(self)} has none here; bind it, as in"
                f" {_names(self)}.bind({self.max})\n  at {user_line()}"
            )
        if state.guards is not None:
            state.guards.append(Guard(self, "==", v, True, user_line()))
        return v

    __index__ = __int__

    def __float__(self) -> float:
        return float(int(self))


class Variable(Size):
    """A size that is not known yet: any whole number from `min` to `max`. `bind` gives it a value, for the tensors that are made
    with the result. ValueError for bounds that are no range of numbers from 0 on."""

    __slots__ = ()

    def __init__(self, name: str, min: int, max: int) -> None:
        if not (isinstance(name, str) and name.isidentifier()):
            raise SizeError(f"the name of a variable is an identifier, not {name!r}\n  at {user_line()}")
        if type(min) is not int or type(max) is not int or not 0 <= min <= max < _LARGE:
            raise SizeError(
                f"{name}: expected whole numbers 0 <= min <= max < 2**40, got {min!r} and {max!r}\n  at {user_line()}"
            )
        super().__init__((((Symbol(name, min, max),), 1),), ())

    @property
    def name(self) -> str:
        """Its name."""
        return self.terms[0][0][0].name

    def bind(self, value: int) -> Bound:
        """This variable with a value, an int from min to max. SizeError (a ValueError) for another."""
        out: Bound = object.__new__(Bound)
        given: Any = value
        if isinstance(given, (bool, Size)) or not hasattr(given, "__index__"):
            raise SizeError(f"{self.name}.bind takes an int, not {value!r}\n  at {user_line()}")
        v = value.__index__()
        if not self.min <= v <= self.max:
            raise SizeError(f"{self.name} is bound to {v}; expected {self.min} to {self.max}\n  at {user_line()}")
        Size.__init__(out, self.terms, ((self.name, v),))
        return out


class Bound(Variable):
    """A variable with a value."""

    __slots__ = ()

    def unbind(self) -> tuple[Variable, int]:
        """(the variable, its value)."""
        s = self.terms[0][0][0]
        return Variable(*s), self._bound[0][1]


_COMPARE: dict[str, Any] = {
    "==": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Guard:
    """What a trace took for granted: that `left op right` is `answer`. `line`: of the user, where it was asked."""

    left: Size
    op: str
    right: Any
    answer: bool
    line: str

    def holds(self, values: Mapping[str, int]) -> bool:
        """Whether it is so for these values of the variables."""
        right = self.right.at(values) if isinstance(self.right, Size) else self.right
        return bool(_COMPARE[self.op](self.left.at(values), right)) == self.answer

    def __str__(self) -> str:
        return f"{self.left} {self.op} {self.right}"


def _terms(x: Any) -> Terms | None:
    if isinstance(x, Size):
        return x.terms
    if isinstance(x, int):
        return (((), int(x)),) if x else ()
    return None


def _made(terms: dict[tuple[Symbol, ...], int], bound: tuple[tuple[str, int], ...]) -> Any:
    """A Size, or an int where no variable is left."""
    kept = {f: c for f, c in terms.items() if c}
    if not kept or list(kept) == [()]:
        return kept.get((), 0)
    names = {s.name for f in kept for s in f}
    return Size(tuple(sorted(kept.items())), tuple([(n, v) for n, v in bound if n in names]))


def _together(a: Size, b: Any) -> tuple[tuple[str, int], ...]:
    """The values of both. SizeError where they differ."""
    if not isinstance(b, Size) or not b._bound or a._bound == b._bound:
        return a._bound
    out = dict(a._bound)
    for name, v in b._bound:
        if out.setdefault(name, v) != v:
            raise SizeError(f"{name} is bound to {out[name]} and to {v}; expected one value\n  at {user_line()}")
    return tuple(sorted(out.items()))


def _plain(x: Any) -> Any:
    """Without values: a comparison of two values is no conflict."""
    return Size(x.terms, ()) if isinstance(x, Size) else x


def _names(x: Size) -> str:
    return ", ".join(s.name for s in x.symbols)


def bounds(x: Any) -> tuple[int, int]:
    """The least and the largest value of a size or an int."""
    return (x.min, x.max) if isinstance(x, Size) else (int(x), int(x))


def most(x: Any) -> int:
    """The largest value."""
    return x.max if isinstance(x, Size) else int(x)


def with_values(shape: tuple[Any, ...], values: Mapping[str, int]) -> tuple[Any, ...]:
    """The same shape where its variables have these values."""
    for d in shape:
        if isinstance(d, Size):
            return tuple([d.bind_all(values) if isinstance(d, Size) else d for d in shape])
    return shape
