"""A kept row is overwritten by the row that is computed from it, where nothing needs the old one any more: a softmax then takes
one row of cache instead of three. Used at the end of stage 5.
"""

from __future__ import annotations

from dataclasses import replace

from tinyengine.dependence import accesses
from tinyengine.loopnest import Alloc, Buf, Loop, Stmt
from tinyengine.stages.primitives.nest import rename_buffers


def reuse(body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
    """The same statements, inner blocks too, with rows in place of the rows that they are computed from."""
    body = tuple(replace(s, body=reuse(s.body)) if isinstance(s, Loop) else s for s in body)
    rows = [s.buf for s in body if isinstance(s, Alloc) and s.buf.space == "local" and s.init is None]
    for new in rows:
        for old in rows:
            if old is not new and (old.dtype, old.shape) == (new.dtype, new.shape) and _in_place(body, old, new):
                without = tuple(s for s in body if not (isinstance(s, Alloc) and s.buf == new))
                return reuse(rename_buffers(without, {new: old}))
    return body


def _in_place(body: tuple[Stmt, ...], old: Buf, new: Buf) -> bool:
    """Whether one statement writes `new`, and the last thing that is read of `old`, before it, is the same element."""
    touched = [a for a in accesses(body) if a.buf in (old, new)]
    writes = [i for i, a in enumerate(touched) if a.buf == new and a.op != "read"]
    if len(writes) != 1 or touched[writes[0]].op != "write":
        return False
    at = writes[0]
    home = next(s for s in body if touched[at].stmt in ((s,) if not isinstance(s, Loop) else _all(s)))
    inside = {id(a.stmt) for a in accesses((home,))}
    for i, a in enumerate(touched):
        if a.buf == old and (i > at or (id(a.stmt) in inside and (a.op != "read" or a.at != touched[at].at))):
            return False
        if a.buf == new and i < at:
            return False
    # the old row is whole before the loop that writes the new one
    return any(a.buf == old and a.op == "write" and id(a.stmt) not in inside for a in touched)


def _all(s: Loop) -> tuple[Stmt, ...]:
    return tuple(x for b in s.body for x in ((b, *_all(b)) if isinstance(b, Loop) else (b,)))
