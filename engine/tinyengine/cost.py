"""The certificate: FLOPs, bytes, addresses, memory and time of a program, known before it runs, from its loop nests alone.

Definitions. FLOPs: by the op table (an FMA is 2, a transcendental 1), recomputation included; arithmetic on positions (indices,
masks, selections by position) is none. bytes_read, bytes_written: distinct bytes of global memory per kernel. bytes_issued: all
its
accesses. Masked-off accesses move nothing. A number that had to be bounded from above is marked; addresses that depend on data
say on which."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tinyengine import timing, units
from tinyengine.footprint import Access, accesses, box, issued, statements
from tinyengine.loopnest import Accumulate, Buf, Expr, Kernel, Let, Stmt, Store, kernel_lines, name, stmt_exprs, subexprs
from tinyengine.machine import Machine, current
from tinyengine.node import Node
from tinyengine.ops import OPS
from tinyengine.origin import Origin
from tinyengine.positions import Count, distinct
from tinyengine.program import Program

if TYPE_CHECKING:
    from tinyengine.ranges import Range


@dataclass(frozen=True, slots=True)
class Address:
    """One access to global memory. `verdict`: 'static', or 'data-dependent' with the reason; `elements`: moved in all."""

    buffer: str
    write: bool
    verdict: str
    reason: str
    elements: int
    exact: bool
    line: int  # of the kernel's text


@dataclass(frozen=True, slots=True)
class KernelCost:
    """One kernel. `flops`: asked for; `flops_issued`: done by the scheduled kernel, padded vector lanes included;
    `flops_expanded`: the same after exp, tanh... have become polynomials. `exact`: no number is an upper bound. `limits`:
    seconds by limit; `error`: of `seconds`, as a factor (see `timing.Time`)."""

    name: str
    flops: int
    flops_issued: int
    flops_expanded: int
    bytes_read: int
    bytes_written: int
    bytes_issued: int
    exact: bool
    addresses: tuple[Address, ...]
    seconds: float
    error: float
    bound: str
    limits: Mapping[str, float]

    @property
    def bytes_moved(self) -> int:
        return self.bytes_read + self.bytes_written

    @property
    def intensity(self) -> float:
        """FLOPs per distinct byte: the x axis of the roofline."""
        return self.flops / max(1, self.bytes_moved)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A program. `kernels`: one per call, in order. `given_bytes`: inputs, state and outputs; `arena_bytes`: temporaries.
    `range`: where sizes are symbolic, the formulas and the certificates at the ends of their range (see `ranges`)."""

    program: str
    machine: Machine
    kernels: tuple[KernelCost, ...]
    given_bytes: int
    arena_bytes: int
    peak_bytes: int
    seconds: float
    error: float
    range: Range | None = None

    @property
    def launches(self) -> int:
        return len(self.kernels)

    @property
    def flops(self) -> int:
        return sum(k.flops for k in self.kernels)

    @property
    def bytes_read(self) -> int:
        return sum(k.bytes_read for k in self.kernels)

    @property
    def bytes_written(self) -> int:
        return sum(k.bytes_written for k in self.kernels)

    @property
    def bytes_issued(self) -> int:
        return sum(k.bytes_issued for k in self.kernels)

    @property
    def exact(self) -> bool:
        return all(k.exact for k in self.kernels)

    @property
    def static(self) -> bool:
        """Is every address known before the run?"""
        return all(a.verdict == "static" for k in self.kernels for a in k.addresses)

    def text(self) -> str:
        """The certificate as a table."""
        upto = "" if self.exact else " (≤: an upper bound)"
        out = [
            f"{self.program}: {units.some(self.launches, 'kernel')}, {units.flops(self.flops)},"
            f" reads {units.nbytes(self.bytes_read)}, writes {units.nbytes(self.bytes_written)},"
            f" peak memory {units.nbytes(self.peak_bytes)}{upto}",
            *([self.range.text()] if self.range is not None else []),
            f"predicted {units.seconds(self.seconds)}, within a factor of {1 + self.error:.1f},"
            f" on {self.machine.name} ({self.machine.source} peaks)",
            f"{'kernel':<24}{'FLOP':>10}{'read':>12}{'written':>12}{'issued':>12}{'time':>11}  bound by",
        ]
        for k in self.kernels:
            mark = "" if k.exact else "≤"
            moved = "".join(f"{mark + units.nbytes(n):>12}" for n in (k.bytes_read, k.bytes_written, k.bytes_issued))
            out.append(f"{k.name:<24}{units.count(k.flops):>10}{moved}{units.seconds(k.seconds):>11}  {k.bound}")
        dynamic = {(k.name, a.buffer, a.reason) for k in self.kernels for a in k.addresses if a.verdict != "static"}
        out.append("every address is known before the run" if not dynamic else "addresses that depend on data:")
        out += [f"  {kernel}: {buffer}, because {reason}" for kernel, buffer, reason in sorted(dynamic)]
        return "\n".join(out)

    __repr__ = text


# ---- FLOPs


def flops(kernel: Kernel, expanded: bool = False, ran: Mapping[int, int] | None = None) -> int:
    """FLOPs of one launch by the op table; `expanded`: issue slots of the expansions instead, an FMA counted as 2. `ran`: how
    often each statement ran, by its id, where that was counted (see `counting`)."""
    total = 0
    data: dict[str, bool] = {}
    for s, trips in statements(kernel.body):
        per_run = 0
        if not isinstance(s, (Let, Store, Accumulate)):
            continue
        seen: set[int] = set()
        for e in _arithmetic(s.value, data, seen):
            if e.op == "lanes_reduce":
                per_run += e.args[0].lanes - 1
            elif e.op == "lanes_scan":
                per_run += e.lanes * (e.lanes.bit_length() - 1)
            else:
                per_run += e.lanes * (_expanded(e) if expanded else OPS[e.op].flops)
        if isinstance(s, Let):
            data[s.name] = not _is_position(s.value, data)
        elif isinstance(s, Accumulate):
            per_run += s.value.lanes
        total += per_run * (trips if ran is None else ran.get(id(s), 0))
    return total


def _is_position(e: Expr, data: Mapping[str, bool]) -> bool:
    """Is it arithmetic on positions: int64 or bool, of loop variables alone?"""
    if e.dtype.kind != "bool" and e.dtype.name != "int64":
        return False
    return not any(x.op == "load" or (x.op == "name" and data.get(x.arg, True)) for x in subexprs(e))


def _arithmetic(e: Expr, data: Mapping[str, bool], seen: set[int]) -> list[Expr]:
    """The elementwise ops and lane reductions of a value that compute with data; not those in addresses and masks."""
    if id(e) in seen or e.op == "load" or _is_position(e, data):
        return []
    seen.add(id(e))
    out = [x for a in e.args for x in _arithmetic(a, data, seen)]
    op = e.op in OPS and e.args and not (e.op == "where" and _is_position(e.args[0], data))
    if op or e.op in ("lanes_reduce", "lanes_scan"):
        out.append(e)
    return out


def _expanded(e: Expr) -> int:
    if OPS[e.op].flops == 0:
        return 0
    return OPS[e.op].flops if OPS[e.op].flops > 1 else max(1, _flops_of_expansion(e.op, e.args[-1]))


_expansions: dict[tuple[str, str], int] = {}


def _flops_of_expansion(op: str, like: Expr) -> int:
    key = (op, like.dtype.name)
    if key not in _expansions:
        from tinyengine.dtypes import bool_
        from tinyengine.stages.arithmetic import expand

        operands = tuple(name(f"{op}{k}", bool_ if op == "where" and k == 0 else like.dtype) for k in range(OPS[op].arity))
        whole = expand.expander()(Expr(op, bool_ if op in ("lt", "eq") else like.dtype, 1, operands))
        _expansions[key] = sum(OPS[x.op].flops for x in subexprs(whole) if x.args and x.op in OPS)
    return _expansions[key]


# ---- kernels and programs


def kernel_cost(
    kernel: Kernel,
    machine: Machine | None = None,
    asked: Kernel | None = None,
    program_bytes: int = 0,
    lines: Mapping[int, int] | None = None,
    since: Mapping[str, int] | None = None,
) -> KernelCost:
    """The cost of one launch of `kernel`. `asked`: the same kernel before scheduling, whose FLOPs no padding has grown;
    `program_bytes`, `since`: the program around it (see `timing.predict`); `lines`: of the kernel's text by id of a statement,
    where the text is another's."""
    from tinyengine.stages.primitives.clip import clipped

    machine = machine or current()
    found = [a for a in accesses(kernel) if a.buf.space == "global"]
    read, read_exact = _touched([a for a in found if not a.write])
    written, write_exact = _touched([a for a in found if a.write])
    addresses = _addresses(kernel, found, lines)
    moved = sum(a.elements * b.dtype.itemsize for a, b in zip(addresses, (a.buf for a in found), strict=True))
    time = timing.predict(kernel, machine, program_bytes, since=since)
    issued_flops = flops(kernel)
    return KernelCost(
        kernel.name, flops(clipped(asked)) if asked is not None else issued_flops, issued_flops, flops(kernel, True),
        read, written, moved, read_exact and write_exact and all(a.exact for a in addresses), addresses,
        time.seconds, time.error, time.bound, time.limits,
    )  # fmt: skip


def moved(kernel: Kernel) -> tuple[int, int]:
    """(distinct bytes read, distinct bytes written) of one launch."""
    found = [a for a in accesses(kernel) if a.buf.space == "global"]
    return _touched([a for a in found if not a.write])[0], _touched([a for a in found if a.write])[0]


def _touched(found: Sequence[Access]) -> tuple[int, bool]:
    """(distinct bytes, is that exact?) of these accesses together."""
    by_name: dict[str, list[Access]] = {}
    for a in found:
        by_name.setdefault(a.buf.name, []).append(a)
    total, exact = 0, True
    for group in by_name.values():
        views: dict[Buf, list[Access]] = {}
        for a in group:
            views.setdefault(a.buf, []).append(a)
        counts = [distinct(buf, [box(a) for a in those]) for buf, those in views.items()]
        # one memory seen in several shapes: together at most all of it
        size = max(b.size for b in views)
        n = counts[0] if len(counts) == 1 else Count(min(size, sum(c.n for c in counts)), any(c.n == size for c in counts))
        total, exact = total + n.n * group[0].buf.dtype.itemsize, exact and n.exact
    return total, exact


def _addresses(kernel: Kernel, found: Sequence[Access], lines: Mapping[int, int] | None) -> tuple[Address, ...]:
    if lines is None:
        lines = {id(s): i for i, (_, s) in enumerate(kernel_lines(kernel)) if s is not None}
    out = []
    for a in found:
        n = issued(a)
        verdict = "data-dependent" if a.dynamic else "static"
        out.append(Address(a.buf.name, a.write, verdict, a.dynamic, n.n, n.exact, lines.get(id(a.stmt), 0)))
    return tuple(out)


def reuse(program: Program) -> list[dict[str, int]]:
    """For each call: parameter -> bytes that calls have touched since one last touched its memory, in a run after another one."""
    slots = program.slots

    def place(s: int) -> tuple[str, int]:
        return ("arena", slots[s].offset) if slots[s].role == "temporary" else ("slot", s)

    touched, last = 0, dict[tuple[str, int], int]()
    out: list[dict[str, int]] = []
    for _ in range(2):
        out.clear()
        for c in program.calls:
            places = [place(s) for s in c.slots]
            names = [p.name for p in c.kernel.params]
            out.append({name: touched - last.get(at, touched) for name, at in zip(names, places, strict=True)})
            touched += sum(slots[s].nbytes for s in set(c.slots))
            last.update(dict.fromkeys(places, touched))
    return out


def certify(
    program: Program,
    machine: Machine | None = None,
    asked: Mapping[str, Kernel] | None = None,
    static: Callable[[Kernel, dict[int, int]], Kernel] | None = None,
) -> Certificate:
    """The certificate of `program` on `machine` (default: this one). `asked`: kernel name -> the kernel before scheduling.
    `static`: makes a kernel static whose sizes are symbolic, and notes the lines of its statements."""
    machine = machine or current()
    given = sum(s.nbytes for s in program.slots if s.role != "temporary")
    peak = given + program.arena_bytes
    known: dict[int, KernelCost] = {}
    for c, since in zip(program.calls, reuse(program), strict=True):
        k = c.kernel
        if id(k) in known:
            continue
        before, lines = (asked or {}).get(k.name), None
        if static is None:
            known[id(k)] = kernel_cost(k, machine, before, peak, since=since)
        else:
            lines = dict[int, int]()
            made = static(k, lines)
            known[id(k)] = kernel_cost(made, machine, static(before, {}) if before is not None else None, peak, lines, since)
    kernels = tuple(known[id(c.kernel)] for c in program.calls)
    seconds = machine.start_seconds + sum(k.seconds for k in kernels)
    error = (machine.start_seconds * timing.error(machine) + sum(k.seconds * k.error for k in kernels)) / seconds
    return Certificate(program.name, machine, kernels, given, program.arena_bytes, peak, seconds, error)


# ---- whose time is it?


def node_weights(kernel: Kernel, machine: Machine | None = None) -> dict[int, float]:
    """Graph node number -> predicted seconds of that node in this kernel; they add up to the kernel's time. A statement's part is
    its cycles of arithmetic, loads and stores; a load is charged to the statements that use what it brings, not to whoever made
    it; what serves no node is spread over all; several nodes of one statement share evenly."""
    machine = machine or current()
    counted = timing.core(kernel, machine)
    seconds = timing.predict(kernel, machine, 0, counted).seconds
    cycles: dict[int, float] = {}  # by statement
    body = [s for s, _ in statements(kernel.body)]
    users: dict[str, list[Stmt]] = {}
    for s in body:
        for used in {x.arg for e in stmt_exprs(s) for x in subexprs(e) if x.op == "name"}:
            users.setdefault(used, []).append(s)
    for s in body:
        charged = users.get(s.name, [s]) if isinstance(s, Let) and s.value.op == "load" else [s]
        for u in charged:
            cycles[id(u)] = cycles.get(id(u), 0.0) + counted.by_stmt.get(id(s), 0.0) / len(charged)
    out: dict[int, float] = {}
    for s in body:
        for n in s.nodes:
            out[n] = out.get(n, 0.0) + cycles.get(id(s), 0.0) / len(s.nodes)
    total = sum(out.values())
    if not total:
        return {n: seconds / len(out) for n in out}
    return {n: c / total * seconds for n, c in out.items() if c}


Key = tuple[str, int, str]  # file, line, phase


def line_of(o: Origin) -> Key:
    """The innermost line of the user ('self'), with its phase."""
    return (o.file, o.line, o.phase)


def shares(
    kernel: Kernel,
    graph_nodes: Sequence[Node],
    machine: Machine | None = None,
    key: Callable[[Origin], Any] = line_of,
    weights: dict[int, float] | None = None,
) -> dict[Any, float]:
    """(file, line, phase) -> that line's share of the kernel's time; the shares add up to 1. A node that several lines asked for
    is split equally over their distinct keys. `graph_nodes`: the nodes of the simplified graph, by number; `key`: what to
    charge; `weights`: what `node_weights` said, where it is known already."""
    out: dict[Any, float] = {}
    weights = node_weights(kernel, machine) if weights is None else weights
    total = sum(weights.values())
    for n, w in weights.items():
        keys = list(dict.fromkeys(key(o) for o in graph_nodes[n].origin))
        for k in keys:
            out[k] = out.get(k, 0.0) + w / total / len(keys)
    return out


# ---- text
