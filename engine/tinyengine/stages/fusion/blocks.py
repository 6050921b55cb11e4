"""Rows of products: when a kernel may hold more than one matrix product, and what that costs.

Attention is a product, a function of its rows, and a product with what came out. A row of the first product can be kept "at loop"
like any row, because no other row needs it; the schedule then takes a block of rows at a time, so that each product still has its
register tile (`schedules.block`). The questions here are asked of any chain of that structure, whatever it is called.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING

from tinyengine import index
from tinyengine.loopnest import Expr, var
from tinyengine.machine import Machine
from tinyengine.node import Node
from tinyengine.ops import ELEMENTWISE
from tinyengine.stages.fusion.groups import Group

if TYPE_CHECKING:
    from tinyengine.stages.fuse import Fuser

At = tuple[Expr, ...]
LEAST_ROWS = 8  # fewer rows than this share too little of what a product streams
MOST_ROWS = 96  # of a block
TILES = 12  # a multiple of the rows of a register tile with four vectors, and with two
SHARE = 4  # of L2 that the rows of a block may fill
LAST_SPEEDUP = 2.0  # bandwidth of what stays in the last cache, against memory
COPY_BANDWIDTH = 8e9  # bytes/s of one core that copies an operand so that it lies along the vectors
MOST_PRODUCTS = 2  # of a kernel
MOST = f"a kernel holds at most {MOST_PRODUCTS} matrix products: more only lengthen the code"
ONE = "a kernel holds one matrix product or convolution"
LOOK = 64  # values looked at below one


def extent(v: Expr) -> int:
    """How many values a loop variable takes."""
    return int(v.arg[2]) + 1


def share(machine: Machine) -> int:
    """Bytes that the rows of a register tile may take: half of what a core has of L2, or of L3 where that is more. Products give
    each of their elements so much to do that even L3 brings them in time."""
    return max(machine.l2_bytes, machine.l3_bytes // machine.cores) // 2


def block_rows(machine: Machine, rows: int, row_bytes: int) -> int:
    """Rows of a block: as many as a quarter of L2 holds, at most MOST_ROWS, in about equal blocks of whole register tiles. Of
    rows so long that not even one tile fits, two tiles, in L3, share what a product streams."""
    most = min(MOST_ROWS, machine.l2_bytes // SHARE // max(row_bytes, 1))
    if most < TILES:
        most = 2 * TILES if 2 * TILES * row_bytes <= share(machine) else TILES
    if rows <= most:
        return rows
    equal = -(-rows // -(-rows // (most // TILES * TILES)))
    return -(-equal // TILES) * TILES


def leaves(fuser: Fuser, n: Node, at: At) -> list[tuple[Node, At]]:
    """What computing `n` at `at` reads, reductions and buffers, with the index at which it does; seen through arithmetic. Asked
    of the same values again and again, so it is kept."""
    found = fuser.leaves_at.get((n, at))
    if found is None:
        found = fuser.leaves_at[n, at] = list(_leaves(fuser, n, at))
    return found


def _leaves(fuser: Fuser, n: Node, at: At, count: int = LOOK) -> Iterator[tuple[Node, At]]:
    stack, seen = [(n, at)], {(n, at)}
    while stack and count:
        count -= 1
        m, here = stack.pop()
        if m.is_movement:
            below: list[tuple[Node, At]] = [(m.src[0], fuser.pull(m, here)[0])]
        elif m.op in ELEMENTWISE or m.op == "contiguous":
            below = [(s, here) for s in m.src]
        else:
            yield m, here
            continue
        for x in below:
            if x not in seen and x[0].op not in ("const", "iota"):
                seen.add(x)
                stack.append(x)


def _used(at: At) -> set[Expr]:
    return {v for e in at for v in index.variables(e)}


def _operands(fuser: Fuser, product: Node, at: At) -> list[list[tuple[Node, At]]] | None:
    """For a product at `at` what each factor reads, with the index; None where it sums over more than one axis."""
    src = product.src[0]
    axes = [a for a in product.arg if src.shape[a] > 1]
    if len(axes) != 1:
        return None
    inner = tuple(var("sum", 0, src.shape[a] - 1) if a in axes else e for a, e in enumerate(at))
    m = src
    while m.op == "cast" or m.is_movement:
        if m.op in ("window", "place", "pad"):
            return None
        inner, m = (fuser.pull(m, inner)[0] if m.is_movement else inner), m.src[0]
    if m.op != "mul":
        return None
    return [leaves(fuser, s, inner) for s in m.src]


def _factors(fuser: Fuser, product: Node, at: At) -> list[set[Expr]] | None:
    """For a product at `at` the variables on which each factor depends; None where it sums over more than one axis."""
    found = _operands(fuser, product, at)
    return None if found is None else [{v for _, here in f for v in _used(here)} for f in found]


def row_loop(fuser: Fuser, product: Node, at: At, g: Group) -> str:
    """Why `product`, needed at `at` in g, cannot be computed for a block of rows at a time; empty when it can."""
    key = (product, at, g.space)
    found = fuser.row_loops.get(key)
    if found is None:
        found = fuser.row_loops[key] = _row_loop(fuser, product, at, g)
    return found


def _row_loop(fuser: Fuser, product: Node, at: At, g: Group) -> str:
    space = fuser.space_vars(g.space)
    if len(space) < 2:
        return "its kernel has no loop of rows outside of the vectors"
    block, used = set(space[:-1]), _used(at)
    rest = used - block
    if not block <= used or len(rest) != 1 or any(e.op not in ("var", "const") for e in at):
        return "it is not a row of each iteration of the outer loops"
    rows, (vector,) = space[-2], rest
    if extent(rows) < LEAST_ROWS:
        return f"{extent(rows)} rows share too little of what the product streams"
    if extent(vector) * product.dtype.itemsize < fuser.costs.machine.vector_bytes:
        return f"its rows of {extent(vector)} elements fill no vector"
    factors = _factors(fuser, product, at)
    if factors is None:
        return f"{ONE}, and this is no plain matrix product"
    if [vector in f for f in factors].count(True) != 1 or any(vector in f and rows in f for f in factors):
        return "its rows do not share an operand"
    if not any(rows in f for f in factors):
        return "it does not depend on the rows"
    return ""


def seconds(fuser: Fuser, product: Node, at: At, g: Group) -> float:
    """What it costs more to compute `product` for a block of rows at a time than in a kernel of its own. The operand that rows
    share is copied by each thread, where it lies across and serves all iterations, instead of once; and one that is too large for
    L2 is streamed again for each block, from L3 where that holds it."""
    operands = _operands(fuser, product, at)
    if operands is None or row_loop(fuser, product, at, g):
        return 0.0
    m, space = fuser.costs.machine, fuser.space_vars(g.space)
    outer, rows = space[:-2], space[-2]
    reads = next((f for f in operands if not any(rows in _used(here) for _, here in f)), [])
    shared = {v for _, here in reads for v in _used(here)}
    (vector,) = _used(at) - set(space[:-1])
    across = any(vector in _used(here) and vector not in _used(here[-1:]) for _, here in reads)
    once = prod(extent(v) for v in shared if v not in outer) * product.dtype.itemsize
    total = once * prod(extent(v) for v in shared if v in outer)
    out = 0.0
    if across and m.cores > 1 and not any(extent(v) >= m.cores for v in shared if v in outer):
        out += total / COPY_BANDWIDTH * (1 - 1 / m.cores)
    if once > m.l2_bytes // 2:
        row_bytes = max((extent(v) for v in _used(at) if v not in space), default=1) * product.dtype.itemsize
        blocks = prod(map(extent, outer)) * -(-extent(rows) // block_rows(m, extent(rows), row_bytes))
        speed = fuser.costs.bandwidth * (LAST_SPEEDUP if once <= m.l3_bytes // 2 else 1.0)
        out += max(0, max(blocks, m.cores) * once - total) / speed
    return out


def operand_seconds(fuser: Fuser, n: Node, g: Group) -> float:
    """What it costs more when n is kept as a row that a product of g reads: of that product, and of the one below n."""
    found = [(p, at) for p in g.products for at in uses_of(fuser, p, g)]
    for scope, at in fuser.uses[n]:
        if fuser.find(scope.group) is g:
            found += [(m, here) for m, here in leaves(fuser, n, at) if fuser.costs.is_contraction(m)]
    return sum(seconds(fuser, p, at, g) for p, at in dict.fromkeys(found))


def products_fit(fuser: Fuser, g: Group) -> str:
    """Why the products that g holds cannot be computed for a block of rows at a time; empty when they can."""
    for p in g.products:
        for at in uses_of(fuser, p, g):
            why = row_loop(fuser, p, at, g)
            if why:
                return f"{ONE}, or rows of several: {why}"
    return ""


def block_loops(g: Group) -> frozenset[int]:
    """The axes around the rows that g keeps for its products; none where it keeps none."""
    rows = frozenset(range(len(g.space) - 1))
    return rows if g.products and any(axes == rows and g.rows[v] for v, axes in g.at.items()) else frozenset()


def in_rows(fuser: Fuser, n: Node, g: Group) -> str:
    """Why the product `n` cannot be computed within the rows of kernel g, which holds other work; empty when it can."""
    uses = [(s, at) for s, at in fuser.uses[n] if fuser.find(s.group) is g]
    own = fuser.own_index(n, g)
    if len(g.products) >= MOST_PRODUCTS:
        return MOST
    if g.products and any(s.contraction or at == own for s, at in uses):
        return ONE
    return next((why for _, at in uses if at != own and (why := row_loop(fuser, n, at, g))), "") or products_fit(fuser, g)


def uses_of(fuser: Fuser, n: Node, g: Group) -> list[At]:
    """The indices at which g computes the product `n`."""
    own = [fuser.own_index(n, g)] if n in g.outputs else []
    return [at for at in [*own, *(at for s, at in fuser.uses[n] if fuser.find(s.group) is g)] if at is not None]


def below_in_rows(fuser: Fuser, n: Node, product: Node) -> bool:
    """Whether `product`, of which n is computed, can be computed within the rows of the kernels that use n."""
    for s, at in fuser.uses[n]:
        g = fuser.find(s.group)
        block, used = set(fuser.space_vars(g.space)[:-1]), _used(at)
        if not block <= used or len(used - block) != 1:  # what is below has no more variables
            return False
        found = [here for m, here in leaves(fuser, n, at) if m is product]
        if not found or any(row_loop(fuser, product, here, g) for here in found) or products_fit(fuser, g):
            return False
    return True


def operand_row(fuser: Fuser, n: Node, g: Group) -> str:
    """Why `n`, which a product in g reads, cannot be kept as a row of that product's left operand; empty when it can."""
    axes, row, why = fuser.at_loop(n, g, of=g)
    if axes is None:
        return why
    if not g.space or axes != frozenset(range(len(g.space) - 1)):
        return "it is an operand of a matrix product, whose schedule packs what it reads"
    if sum(d > 1 for d in n.shape) != len(axes) + 1 or row == 1:
        return "it is an operand of a matrix product, and no row of it"
    if len(g.products) >= MOST_PRODUCTS:
        return MOST
    if not products_in(fuser, n):
        return "it is an operand of a matrix product, whose schedule packs what it reads; no product of its size is below it"
    if row * n.dtype.itemsize < fuser.costs.machine.vector_bytes:
        return f"its rows of {row} elements fill no vector"
    if TILES * row * n.dtype.itemsize > share(fuser.costs.machine):
        return f"{TILES} of its rows of {row} elements, a register tile, do not fit in half of a core's caches"
    return products_fit(fuser, g)


def products_in(fuser: Fuser, n: Node) -> list[Node]:
    """The products of the size of n from which it is computed, seen through arithmetic and reductions of rows."""
    found = fuser.products_in.get(n)
    if found is None:
        found = fuser.products_in[n] = _products_in(fuser, n)
    return found


def _products_in(fuser: Fuser, n: Node) -> list[Node]:
    out: list[Node] = []
    stack, seen = [n], {n}
    while stack and len(seen) < LOOK:
        m = stack.pop()
        if fuser.costs.is_contraction(m):
            if m.size == n.size and m not in out:
                out.append(m)
            continue
        for s in m.src if m.is_movement or m.is_reduce or m.op in ELEMENTWISE or m.op == "contiguous" else ():
            if s not in seen:
                seen.add(s)
                stack.append(s)
    return out
