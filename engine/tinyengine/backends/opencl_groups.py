"""Kernels with parallel loops inside a parallel one, for devices that have work-groups (see stages/primitives/groups.py).

An iteration of the outermost parallel loop is a group's; each group takes every n-th, so that any number of groups is right. The
iterations of a parallel loop inside are the work-items', each again every n-th. Memory that a group allocates outside these loops
is `local`, up to what the device has; what does not fit is a slice of global scratch per group. It is filled by all work-items.
Writes to memory between the loops are the first work-item's; values and registers there are every work-item's own, and equal.
Barriers stand where Barriers says, so never where work-items part. All of them leave together when the status word is set.

Run on PoCL, which executes groups, local memory and barriers on a CPU; not yet on the hardware of a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import gcd, prod
from typing import Any

from tinyengine.backends import opencl_memory as mem
from tinyengine.backends import opencl_ops as ops
from tinyengine.backends.opencl_ops import Helpers, Operand
from tinyengine.backends.opencl_source import Writer, ends, own_bytes
from tinyengine.backends.opencl_values import Line
from tinyengine.loopnest import Accumulate, Alloc, Let, Loop, Stmt, Store, walk
from tinyengine.stages.arithmetic.expand import Expander
from tinyengine.stages.primitives.groups import Barriers, chain, grid_of

STOP_BYTES = 64  # of local memory, for the word that says that all work-items leave


class GroupWriter(Writer):
    """Writes the body of a function for groups. `local_bytes`: of the device's local memory that it may take."""

    def __init__(
        self, helpers: Helpers, lower: Expander, numbers: dict[int, int], in_memory: frozenset[str], local_bytes: int,
        aliases: Mapping[str, str],
    ) -> None:  # fmt: skip
        super().__init__(helpers, lower, numbers, in_memory)
        self.limit, self.aliases = local_bytes, aliases
        self.shared = False  # at work on what all work-items of a group do together
        self.items = 1
        self.local_at = self.group_at = 0  # of the memory of this loop's groups, how much is given away
        self.local_bytes = self.group_scratch = self.barriers = 0
        self.stops = self.spills = False
        self.before: dict[int, frozenset[str]] = {}

    def guard(self) -> None:
        """All work-items of a group see the same status word, or some would wait for ever at a barrier."""
        self.stops, self.limit = True, self.limit - STOP_BYTES
        self.put("if (get_local_id(0) == 0) stop = *status;")
        self.put("barrier(CLK_LOCAL_MEM_FENCE);")
        self.put("if (stop) return;")

    def grids(self, loops: Sequence[Loop]) -> None:
        """The iterations of all loops, counted one after the other, go round the groups."""
        done = 0
        for s in loops:
            g = grid_of(s)
            if self.local_at or self.group_at:  # the memory of one loop's groups serves the next loop's
                self.put("barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);")
                self.barriers += 1
            self.local_at = self.group_at = 0
            self.items = max(self.items, g.items)
            self.spills = sum(own_bytes(x.buf) for x in walk(g.body) if isinstance(x, Alloc)) > self.limit
            self.before = Barriers(g, self.aliases).before
            self.number = self.numbers.get(id(s), 0)
            count = "(long)get_num_groups(0)"
            first = "(long)get_group_id(0)"
            if done:
                first = f"({first} + {count} - {done} % {count}) % {count}"
            self.shared = True
            self.over(g.groups, g.body, first, count)
            self.shared = False
            done += g.trips

    def over(self, loops: Sequence[Loop], body: Sequence[Stmt], first: str, count: str) -> None:
        """`body` for every `count`-th iteration of these loops, one in the other, from `first` on."""
        if len(loops) == 1 and loops[0].limit is loops[0].first is None:
            s = loops[0]
            times = f" * {s.step}" if s.step != 1 else ""
            start = f"({first}){times}" if times and " " in first else f"{first}{times}"
            self.counted(s, start if s.start == 0 else f"{s.start} + {start}", f"{count}{times}", body)
            return
        self.open()
        n = self.fresh("n")
        self.put(f"for (long {n} = {first}; {n} < {prod(s.trips for s in loops)}; {n} += {count}) {{")
        self.indent += 1
        number, held, conditions = self.number, self.scratch_at, []
        inside = 1
        for s in reversed(loops):
            name = self.fresh(s.name)
            place = n if inside == 1 else f"({n} / {inside})"
            place = place if s is loops[0] else f"{place} % {s.trips}"
            place = place if s.step == 1 else f"({place}) * {s.step}"
            self.put(f"const long {name} = {place if s.start == 0 else f'{s.start} + {place}'};")
            self.blocks[-1].names[s.name] = [Operand(name, name)]
            self.grain[s.name] = gcd(s.start, s.step)
            conditions += [(f"{name} {sign}", e) for sign, e in (("<", s.limit), (">=", s.first)) if e is not None]
            inside *= s.trips
        for text, e in conditions:
            end = self.machine(e)
            self.evaluate([end])
            self.put(f"if ({text} {self.values[end][0].full}) {{")
            self.indent += 1
        self.block(body)
        for _ in conditions:
            self.indent -= 1
            self.put("}")
        self.scratch_at, self.number = held, number
        self.indent -= 1
        self.put("}")
        self.close()

    # ---- what a group does together

    def block(self, body: Sequence[Stmt]) -> None:  # type: ignore[override]
        if not self.shared:
            super().block(body)
            return
        for s in body:
            if id(s) in self.before:
                self.number = self.numbers.get(id(s), 0)
                self.barrier(self.before[id(s)])
            super().block((s,))

    def barrier(self, memory: frozenset[str]) -> None:
        # memory that the iteration before used and this one has not allocated yet may be of either kind where not all fits
        unknown = {"local", "global"} if self.spills else {"local"}
        spaces = {x for b in memory for x in ({self.places[b][1]} if b in self.places else unknown)}
        self.put(f"barrier({' | '.join(f'CLK_{x.upper()}_MEM_FENCE' for x in ('local', 'global') if x in spaces)});")
        self.barriers += 1

    def loop(self, s: Loop) -> None:
        if not self.shared or s.kind != "parallel":
            super().loop(s)
            return
        if not s.trips:
            return
        loops = chain(s)
        body = (*(b for x in loops[:-1] for b in x.body if isinstance(b, Let)), *loops[-1].body)
        self.shared = False
        self.over(loops, body, "(long)get_local_id(0)", "(long)get_local_size(0)")
        self.shared = True

    def alloc(self, s: Alloc) -> None:
        if not self.shared or s.buf.space == "register":
            super().alloc(s)
            return
        buf, t = s.buf, ops.MEMORY[s.buf.dtype.name]
        self.blocks[-1].buffers.append(buf.name)
        name, nbytes = self.fresh(buf.name), own_bytes(buf)
        if self.local_at + nbytes <= self.limit:
            space, base, at = "local", "shared", self.local_at
            self.local_at += nbytes
            self.local_bytes = max(self.local_bytes, self.local_at)
        else:
            space, base, at = "global", "ours", self.group_at
            self.group_at += nbytes
            self.group_scratch = max(self.group_scratch, self.group_at)
        self.put(f"{space} {t}* restrict {name} = ({space} {t}*)({base} + {at + 64 * ends(buf)});")
        self.places[buf.name] = (name, space)
        if s.init is not None:
            i = self.fresh("i")
            fill = mem.store_one(self.helpers, buf.dtype, name, i, ops.literal(s.init, buf.dtype))
            self.put(f"for (int {i} = get_local_id(0); {i} < {buf.size}; {i} += get_local_size(0)) {fill}")

    def store(self, s: Store) -> None:
        self.by_the_first(s, super().store)

    def accumulate(self, s: Accumulate, product: bool) -> None:
        self.by_the_first(s, lambda x: super(GroupWriter, self).accumulate(x, product))

    def by_the_first(self, s: Store | Accumulate, write: Callable[[Any], None]) -> None:
        """A write to memory, of one work-item where all of them are together."""
        if not self.shared or s.buf.space == "register":
            write(s)
            return
        self.put("if (get_local_id(0) == 0) {")
        self.indent += 1
        write(s)
        self.indent -= 1
        self.put("}")

    def header(self) -> list[Line]:
        """Declarations at the head of the function."""
        lines = ["local int stop;"] if self.stops else []
        if self.local_bytes:  # the language wants it outermost
            lines.append(f"local uchar shared[{self.local_bytes}] __attribute__((aligned(64)));")
        if self.group_scratch or self.scratch_bytes:
            each = f"{self.group_scratch} + get_local_size(0) * {self.scratch_bytes}"
            lines.append(f"global uchar* ours = scratch + get_group_id(0) * ({each});")
        if self.scratch_bytes:
            lines.append(f"global uchar* mine = ours + {self.group_scratch} + get_local_id(0) * {self.scratch_bytes};")
        return [Line("  " + x, 1) for x in lines]
