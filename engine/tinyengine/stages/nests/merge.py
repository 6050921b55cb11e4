"""Neighbouring loops of equal extent become one, where no iteration of the second needs more than the same iteration of the
first.

`for a: acc1 += x[a]` and `for b: acc2 max= x[b]` read x once then. Used at the end of stage 5. Each pair gets a Decision with
what one loop saves: its iterations, and what both would read.
"""

from __future__ import annotations

from dataclasses import replace

from tinyengine import loopnest as ir
from tinyengine.dependence import accesses
from tinyengine.hooks import Decision
from tinyengine.index import simplify
from tinyengine.loopnest import Accumulate, Alloc, Buf, Expr, Let, Loop, Stmt, Store, walk

Joined = tuple[list[Stmt], Loop, list[Stmt]]  # what moves before, the merged loop, what moves behind
RULE = "Neighbouring loops of equal range may be one where an iteration of the second needs only its own of the first."


def merge(body: tuple[Stmt, ...], kernel: str, decisions: list[Decision]) -> tuple[Stmt, ...]:
    """The same statements with mergeable neighbours merged, inner blocks too; equal Lets of one block become one.
    `decisions` gets one for each pair of loops of equal range. `kernel`: what they call it."""
    stmts = list(body)
    i = 0
    while i < len(stmts):
        first = stmts[i]
        if isinstance(first, Loop):
            j = next((j for j in range(i + 1, len(stmts)) if isinstance(stmts[j], Loop)), None)
            if j is not None:
                second = stmts[j]
                assert isinstance(second, Loop)
                if (first.start, first.stop, first.step, first.limit) == (second.start, second.stop, second.step, second.limit):
                    inside = _rename(second.body, {second.var: first.var})
                    joined = _join(first, stmts[i + 1 : j], replace(second, body=inside))
                    decisions.append(_decision((kernel, f"{first.name}, {second.name}"), first, inside, joined))
                    if not isinstance(joined, str):
                        before, loop, after = joined
                        stmts[i : j + 1] = [*before, loop, *after]
                        i += len(before)
                        continue
        i += 1
    return _share([replace(s, body=merge(s.body, kernel, decisions)) if isinstance(s, Loop) else s for s in stmts])


def _decision(subject: tuple[str, str], first: Loop, second: tuple[Stmt, ...], joined: str | Joined) -> Decision:
    """About a loop and the body of another. `reads`: loads from memory in one iteration of both; `reads_shared`: those of the
    second that the first has done, or whose value it has just stored."""
    mine, others = ([x for x in accesses(body) if x.buf.space != "register"] for body in (first.body, second))
    there = {(x.buf, x.at) for x in mine if x.op in ("read", "write")}
    numbers = {
        "iterations": float(first.trips),
        "reads": float(sum(x.op == "read" for x in (*mine, *others))),
        "reads_shared": float(sum(x.op == "read" and (x.buf, x.at) in there for x in others)),
    }
    if isinstance(joined, str):
        return Decision("loops", "merge", subject, "kept apart", joined, numbers)
    why = "no iteration of the second needs another one of the first: one loop counts for both"
    if numbers["reads_shared"]:
        why += ", and what both read is read once"
    return Decision("loops", "merge", subject, "merged", why, numbers)


def sink(body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
    """In every block, values that no loop of the block needs move behind its last loop: a reduction then starts the block, and a
    schedule may move its loops without moving reads of what the block overwrites."""
    stmts = [replace(s, body=sink(s.body)) if isinstance(s, Loop) else s for s in body]
    last = max((i for i, s in enumerate(stmts) if isinstance(s, Loop)), default=-1)
    needed: set[str] = set()
    written: set[str] = set()
    stay: list[Stmt] = []
    late: list[Stmt] = []
    for s in reversed(stmts[: last + 1]):
        inner = tuple(walk((s,)))
        reads = {str(x.arg) for t in inner for e in ir.stmt_exprs(t) for x in ir.subexprs(e) if x.op == "name"}
        if isinstance(s, Let) and s.name not in needed and not _loads(s) & written:
            late.append(s)
            continue
        needed |= reads
        written |= {t.buf.name for t in inner if isinstance(t, (Store, Accumulate, Alloc))}
        stay.append(s)
    return (*reversed(stay), *reversed(late), *stmts[last + 1 :])


def _loads(s: Let) -> set[str]:
    """The buffers that a value is read from."""
    return {x.arg.name for x in ir.subexprs(s.value) if x.op == "load"}


def _join(a: Loop, between: list[Stmt], b: Loop) -> str | Joined:
    """The merged loop and what moves, or why there is none. The body of `b` has a's variable."""
    if _product(a) or _product(b):
        return "one of them adds up for each of its iterations, and stands alone so that it may get a register tile"
    if not all(isinstance(s, (Let, Alloc)) for s in between):
        return "what stands between them has an effect"
    written = _written(a.body)
    # what depends on the first loop's results moves behind; the second loop must not need it
    behind: list[Stmt] = []
    ahead: list[Stmt] = []
    late: set[str] = set()
    for s in between:
        reads = {
            x.arg if x.op == "name" else x.arg.name for e in ir.stmt_exprs(s) for x in ir.subexprs(e) if x.op in ("name", "load")
        }
        if isinstance(s, Let) and (reads & late or reads & {w.name for w in written}):
            behind.append(s)
            late.add(s.name)
        else:
            ahead.append(s)
    for s in ir.walk(b.body):
        for e in ir.stmt_exprs(s):
            for x in ir.subexprs(e):
                if x.op == "name" and x.arg in late:
                    return "the second needs what all iterations of the first give together"
                if x.op == "load" and x.arg in written and (written[x.arg] is None or written[x.arg] != ir.load_index(x)):
                    return f"the second reads {x.arg.name} where another iteration of the first writes it"
    mine = _written(b.body)
    if any(w.space == "global" and w in mine and not _apart(w, a, b) for w in written):
        return "both write the same memory"
    for s in ir.walk(a.body):
        for e in ir.stmt_exprs(s):
            for x in ir.subexprs(e):
                if x.op == "load" and x.arg in mine:
                    return f"the first reads {x.arg.name}, which the second changes"
    reduce = a.reduce or b.reduce
    nodes = tuple(dict.fromkeys(a.nodes + b.nodes))
    return ahead, replace(a, body=a.body + b.body, reduce=reduce, nodes=nodes), behind


def _apart(w: Buf, a: Loop, b: Loop) -> bool:
    """Whether each iteration of both loops, whose variable is a's, touches a part of `w` that no other one touches."""
    touched = [x.at for x in accesses((*a.body, *b.body)) if x.buf == w]
    return any(all(at[d] == a.var for at in touched) for d in range(len(w.shape)))


def _product(s: Loop) -> bool:
    """Whether each iteration sums up for itself: such a loop stands alone, so that a schedule can give it a register tile."""
    return not s.reduce and any(isinstance(b, Loop) and b.reduce for b in s.body)


def _written(body: tuple[Stmt, ...]) -> dict[Buf, tuple[Expr, ...] | None]:
    """Buffer -> the one index at which it is stored; None where it is accumulated or stored at several."""
    out: dict[Buf, tuple[Expr, ...] | None] = {}
    for s in ir.walk(body):
        if isinstance(s, Store):
            out[s.buf] = None if s.buf in out and out[s.buf] != s.index else s.index
        elif isinstance(s, Accumulate):
            out[s.buf] = None
    return out


def _rename(body: tuple[Stmt, ...], to: dict[Expr, Expr]) -> tuple[Stmt, ...]:
    memo: dict[Expr, Expr] = {}

    def expr(e: Expr) -> Expr:
        return simplify(ir.map_expr(e, to.get, memo))

    def visit(s: Stmt) -> Stmt:
        if isinstance(s, Loop):
            return replace(s, body=tuple(map(visit, s.body)))
        return ir.map_stmt(s, expr)

    return tuple(map(visit, body))


def _share(stmts: list[Stmt]) -> tuple[Stmt, ...]:
    """Give equal Lets of a block one name; a load of a local row just stored in this block becomes the stored value."""
    first: dict[Expr, Expr] = {}
    same: dict[Expr, Expr] = {}
    stored: dict[tuple[Buf, tuple[Expr, ...]], Expr] = {}
    out: list[Stmt] = []
    for s in stmts:
        s = _rename((s,), same)[0] if same else s
        if isinstance(s, Store) and s.buf.space == "local" and s.mask is None:
            stored[s.buf, s.index] = s.value
        elif isinstance(s, (Loop, Accumulate)):
            inner = _written((s,)) if isinstance(s, Loop) else {s.buf: None}
            stored = {k: v for k, v in stored.items() if k[0] not in inner}
            first = {v: n for v, n in first.items() if not any(x.op == "load" and x.arg in inner for x in ir.subexprs(v))}
        elif isinstance(s, Let):
            name = ir.name(s.name, s.value.dtype, s.value.lanes)
            v = s.value
            if v.op == "load" and ir.load_mask(v) is None and (v.arg, ir.load_index(v)) in stored:
                same[name] = stored[v.arg, ir.load_index(v)]
                continue
            if v in first:
                same[name] = first[v]
                continue
            first[v] = name
        out.append(s)
    return tuple(out)
