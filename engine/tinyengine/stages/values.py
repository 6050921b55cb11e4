"""What the stages after simplify mean by a value: a node that is not just a view of another."""

from __future__ import annotations

import hashlib

from tinyengine.node import Node, toposort


def base(n: Node) -> Node:
    """The node whose memory holds `n`: reshapes and contiguous() of something computed share it."""
    while n.op in ("reshape", "contiguous"):
        n = n.src[0]
    return n


def is_leaf(n: Node) -> bool:
    return n.op in ("buffer", "const", "iota")


def value_key(n: Node) -> str:
    """A name for a value that survives a new session: its op and a hash of the normalised graph that computes it."""
    number: dict[Node, int] = {}
    h = hashlib.sha256()
    for m in toposort([n]):
        number[m] = len(number)
        arg = "" if m.op == "buffer" else repr(m.arg)
        h.update(f"{m.op}|{m.dtype.name}|{m.shape}|{[number[s] for s in m.src]}|{arg}\n".encode())
    return f"{n.op}-{h.hexdigest()[:10]}"
