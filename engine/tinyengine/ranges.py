"""What a program with symbolic sizes costs: for the values of now, at the ends of the range, and as a formula.

`at` puts numbers in the place of the sizes of a kernel: what is left is a static kernel, whose costs `cost` counts as any
other's. FLOPs are a polynomial by construction: each statement runs as often as the product of its loops' ends says. Bytes are
fitted: a polynomial through exact counts of static kernels, which must also meet the counts at other values, the ends of the
range among them; where it does not, there is no formula and the counts at the ends stand alone. Memory is planned for the largest
values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

from tinyengine import cost, units
from tinyengine.index import size_of
from tinyengine.loopnest import Expr, Kernel, Loop, Stmt, is_size, kernel_lines, stmt_exprs, subexprs, var, walk
from tinyengine.loopnest import index as number
from tinyengine.size import Size, Symbol, Variable
from tinyengine.stages.primitives.nest import rewrite, substitution

if TYPE_CHECKING:
    from tinyengine.pipeline import Lowered

DEGREE = 3  # of the polynomials that are tried in one variable
CHECKS = 3  # further values at which a polynomial must give the count


@dataclass(frozen=True, slots=True)
class Formulas:
    """What was asked for, for every value of the variables: FLOPs, and distinct bytes read and written by all kernels (None where
    no polynomial of low degree is exact)."""

    flops: Any
    bytes_read: Any
    bytes_written: Any


@dataclass(frozen=True, slots=True)
class Range:
    """Beside a certificate for `values`: the formulas, what was asked for now, at the least and at the largest values (FLOPs,
    distinct bytes read and written by the kernels before scheduling; compiled ones may round up to whole vectors and tiles), and
    the certificates at both ends. `bound`: whether `values` are those that the variables are bound to (else they are the
    largest)."""

    symbols: tuple[Symbol, ...]
    values: Mapping[str, int]
    bound: bool
    formulas: Formulas
    asked: tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]
    least: cost.Certificate
    most: cost.Certificate

    def notes(self) -> dict[str, str]:
        """What is said beside a number of the certificate, by its name."""
        f = self.formulas
        now, known = _values(self.values), {"flops": f.flops, "bytes_read": f.bytes_read, "bytes_written": f.bytes_written}
        out = {name: f"{polynomial(x)}, here for {now}" for name, x in known.items() if x is not None}
        return {**out, "peak_bytes": f"planned for {_values({s.name: s.max for s in self.symbols})}"}

    def text(self) -> str:
        """Formulas and the ends of the range, in lines."""
        now = _values(self.values)
        of = ", ".join(f"{s.name} from {s.min} to {s.max}" for s in self.symbols)
        f = self.formulas
        out = [f"for {now}{'' if self.bound else ' (the largest: no value is bound)'}; one program for {of}"]
        rows = zip(("FLOP", "bytes read", "bytes written"), (f.flops, f.bytes_read, f.bytes_written), *self.asked, strict=True)
        for word, formula, here, low, high in rows:
            text = "no formula" if formula is None else polynomial(formula)
            out.append(f"  {word}: {text} = {here:,}; from {low:,} to {high:,}")
        times = f"{units.seconds(self.least.seconds)} to {units.seconds(self.most.seconds)}"
        return "\n".join([*out, f"  predicted: {times}", f"  memory is planned for the largest: {self.most.peak_bytes:,} bytes"])


def _values(values: Mapping[str, int]) -> str:
    return ", ".join(f"{name} = {v}" for name, v in values.items())


def polynomial(x: Any) -> str:
    """A formula as people write it: 2,097,152·n + 512."""
    if not isinstance(x, Size):
        return f"{x:,}"
    out = ""
    for factors, c in sorted(x.terms, key=lambda t: (-len(t[0]), t[0])):
        word = "·".join([*([f"{abs(c):,}"] if abs(c) != 1 or not factors else []), *_powers(factors)])
        out += (f" {'-' if c < 0 else '+'} " if out else "-" if c < 0 else "") + word
    return out


def _powers(factors: Sequence[Symbol]) -> list[str]:
    counted: dict[str, int] = {}
    for s in factors:
        counted[s.name] = counted.get(s.name, 0) + 1
    return [name if k == 1 else f"{name}^{k}" for name, k in counted.items()]


# ---- numbers for sizes


def at(kernel: Kernel, values: Mapping[str, int], lines: dict[int, int] | None = None) -> Kernel:
    """The static kernel that `kernel` is for these values of its sizes. `lines` takes, for each of its statements (by id), the
    line of the kernel's text that it came from."""
    if not any(p.within is not None for p in kernel.params):
        return kernel
    read = {x for s in walk(kernel.body) for e in _exprs(s) for x in subexprs(e) if is_size(x)}
    known = {id(s): i for i, (_, s) in enumerate(kernel_lines(kernel)) if s is not None}
    made = _Numbers(known, {} if lines is None else lines)
    return replace(kernel, body=made.body(kernel.body, {x: number(values[x.arg.name]) for x in read}, frozenset()))


def _exprs(s: Stmt) -> tuple[Expr, ...]:
    return (s.limit,) if isinstance(s, Loop) and s.limit is not None else stmt_exprs(s)


class _Numbers:
    """Puts numbers in the place of sizes. A loop whose rows end at another place in its last iterations falls into these and the
    others."""

    def __init__(self, known: Mapping[int, int], lines: dict[int, int]) -> None:
        self.known, self.lines = known, lines

    def body(self, body: Sequence[Stmt], of: dict[Expr, Expr], whole: frozenset[int]) -> tuple[Stmt, ...]:
        """`of`: what stands for sizes and variables; `whole`: loops (by id) that run to their end."""
        out: list[Stmt] = []
        f = substitution(of)
        for s in body:
            made = self.loop(s, of, whole) if isinstance(s, Loop) else list(rewrite((s,), f))
            for new in made:
                self.lines[id(new)] = self.known.get(id(s), 0)
            out += made
        return tuple(out)

    def loop(self, s: Loop, of: dict[Expr, Expr], whole: frozenset[int]) -> list[Stmt]:
        stop = s.stop
        if s.limit is not None and id(s) not in whole and s.kind != "unroll" and s.trips > 1:
            limit = substitution(of)(s.limit)
            assert limit.op == "const", f"{s.name} ends at {limit}"
            stop = min(stop, limit.arg)
        values = range(s.start, stop, s.step)
        inner = [b for b in walk(s.body) if isinstance(b, Loop) and b.limit is not None and s.var in subexprs(b.limit)]
        if not inner:
            return [self.part(s, values, of, whole)] if values else []

        def runs_whole(v: int) -> bool:
            f = substitution({**of, s.var: number(v)})
            return all((e := f(b.limit)).op == "const" and e.arg >= b.stop for b in inner if b.limit is not None)

        full = [v for v in values if runs_whole(v)]
        out: list[Stmt] = []
        if full and full == list(values[: len(full)]):
            out.append(self.part(s, values[: len(full)], of, whole | {id(b) for b in inner}))
            values = values[len(full) :]
        return out + [self.part(s, range(v, v + 1), {**of, s.var: number(v)}, whole) for v in values]

    def part(self, s: Loop, values: range, of: dict[Expr, Expr], whole: frozenset[int]) -> Loop:
        v = var(s.name, values.start, values[-1])
        of = {s.var: v, **of}
        return replace(s, var=v, start=values.start, stop=values.stop, limit=None, body=self.body(s.body, of, whole))


# ---- formulas


def trips(kernel: Kernel) -> dict[Any, dict[int, int]]:
    """How often each statement of a kernel before scheduling runs: a Size or an int -> its statements, by id, each once."""
    out: dict[Any, dict[int, int]] = {}

    def visit(body: Sequence[Stmt], times: Any) -> None:
        for s in body:
            if isinstance(s, Loop):
                visit(s.body, times * (s.trips if s.limit is None else size_of(s.limit)))
            else:
                out.setdefault(times, {})[id(s)] = 1

    visit(kernel.body, 1)
    return out


def flops(kernel: Kernel) -> Any:
    """FLOPs of a kernel before scheduling, for every value of its sizes."""
    total: Any = 0
    for times, ran in trips(kernel).items():
        total = total + times * cost.flops(kernel, ran=ran)
    return total


def fitted(symbols: Sequence[Symbol], count: Callable[[Mapping[str, int]], Sequence[int]]) -> list[Any]:
    """The polynomials that `count` (several numbers, for values of the variables) follows; None where it follows none of at most
    DEGREE in each variable."""
    if len(symbols) > 2:
        return [None] * len(count({s.name: s.max for s in symbols}))
    axes = [_samples(s) for s in symbols]
    known = {point: count(dict(zip([s.name for s in symbols], point, strict=True))) for point in product(*(a for a, _ in axes))}
    out: list[Any] = []
    for k in range(len(next(iter(known.values())))):
        found: Any = _through(symbols, [a for a, _ in axes], lambda point, k=k: known[point][k])  # type: ignore[misc]
        out.append(found)
    for point in zip(*([*more, *[more[-1]] * CHECKS][:CHECKS] for _, more in axes), strict=True):
        values = dict(zip([s.name for s in symbols], point, strict=True))
        for k, n in enumerate(count(values)):
            if out[k] is not None and (out[k].at(values) if isinstance(out[k], Size) else out[k]) != n:
                out[k] = None
    return out


def _samples(s: Symbol) -> tuple[list[int], list[int]]:
    """(values to fit a polynomial to, values to check it at)."""
    middle = (s.min + s.max) // 2
    fit = list(range(max(s.min, middle - 1), min(s.max, middle + DEGREE - 1) + 1))
    rest = [v for v in (s.min, s.max, (s.min + middle) // 2) if v not in fit]
    return fit, rest or [s.max]


def _through(symbols: Sequence[Symbol], axes: Sequence[Sequence[int]], known: Callable[[tuple[int, ...]], int]) -> Any:
    """The polynomial through the known numbers on a grid (Lagrange), as a Size or an int; None where its coefficients are no
    whole numbers."""
    coefficients: dict[tuple[int, ...], Fraction] = {}
    for point in product(*axes):
        terms: dict[tuple[int, ...], Fraction] = {(): Fraction(known(point))}
        for axis, x in zip(axes, point, strict=True):
            basis = [Fraction(1)]  # of the powers of this variable: 1 at x, 0 at the others
            for y in axis:
                if y != x:
                    scaled = [c / (x - y) for c in basis]
                    basis = [a - y * b for a, b in zip([Fraction(0), *scaled], [*scaled, Fraction(0)], strict=True)]
            terms = {(*powers, p): c * b for powers, c in terms.items() for p, b in enumerate(basis)}
        for powers, c in terms.items():
            coefficients[powers] = coefficients.get(powers, Fraction(0)) + c
    total: Any = 0
    for powers, c in coefficients.items():
        if c.denominator != 1:
            return None
        term: Any = int(c)
        for s, p in zip(symbols, powers, strict=True):
            term = term * prod([Variable(*s)] * p, start=1) if p else term
        total = total + term
    return total


# ---- programs


def certify(lowered: Lowered) -> cost.Certificate:
    """The certificate of a program with symbolic sizes, for the values that its variables are bound to (else the largest), and
    its `range`."""
    symbols = tuple(lowered.graph.sizes())
    largest = {s.name: s.max for s in symbols}
    values = {**largest, **lowered.values}
    asked = {n.kernel.name: n.kernel for n in lowered.nests}

    def of(now: Mapping[str, int]) -> cost.Certificate:
        return cost.certify(lowered.plan, lowered.machine, asked, lambda k, lines: at(k, now, lines))

    total: Any = 0
    calls = [asked.get(c.kernel.name, c.kernel) for c in lowered.plan.calls]
    for k in calls:
        total = total + flops(k)

    def moved(now: Mapping[str, int]) -> tuple[int, int]:
        kernels = [at(k, now) for k in calls]
        both = [cost.moved(k) for k in kernels]
        return sum(r for r, _ in both), sum(w for _, w in both)

    read, written = fitted(symbols, moved)
    least = {s.name: s.min for s in symbols}

    def number_of(now: Mapping[str, int]) -> tuple[int, int, int]:
        return (total.at(now) if isinstance(total, Size) else total, *moved(now))

    bound = all(s.name in lowered.values for s in symbols)
    asked_for = (number_of(values), number_of(least), number_of(largest))
    found = Range(symbols, values, bound, Formulas(total, read, written), asked_for, of(least), of(largest))
    return replace(of(values), range=found)


__all__ = ["Formulas", "Range", "at", "certify", "fitted", "flops", "polynomial"]
