"""A compiled signature of a jitted function, and how it runs again: look up memory, one native call, hand out results."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinyengine import dtypes, hooks
from tinyengine import realize as engine
from tinyengine.node import Node
from tinyengine.origin import user_line
from tinyengine.pipeline import Lowered
from tinyengine.runtime.buffer import Buffer, Result, size_memory
from tinyengine.signature import JitError, rebuilt
from tinyengine.size import Guard, Size, with_values
from tinyengine.tensor import core, force, random
from tinyengine.tensor.views import refresh, watched

_nothing = contextlib.nullcontext()
_NONE: Mapping[str, int] = {}
_make_node = tuple.__new__


class Entry:
    """The program of a signature, and where each thing that it touches comes from.

    `buffers`: what the program takes; inputs and counters are replaced at every replay. `inputs`: slot -> position of the tensor
    argument; `draws`: slot of a random counter -> how many numbers are drawn. `roots`: the first `results` are tensors of the
    result; the others give the tensors of `updates` new content. `tree`: the result, with tensors as positions; `names`: those of
    the tensor arguments. `guards`: what must hold of the values of variables. `sizes`: slot -> variable."""

    def __init__(
        self, lowered: Lowered, buffers: list[Buffer], inputs: dict[int, int], draws: dict[int, Any], roots: list[Node],
        updates: list[Any], tree: Any, results: int, names: list[str], guards: Sequence[Guard] = (),
    ) -> None:  # fmt: skip
        self.lowered, self.buffers, self.inputs, self.draws = lowered, buffers, inputs, draws
        self.roots, self.updates, self.tree, self.results, self.names = roots, updates, tree, results, names
        self.guards = tuple(guards)
        self.sizes = {i: s for i, b in enumerate(buffers) if (s := getattr(b, "symbol", None)) is not None}
        targets = {id(r.src[0].arg) for r in roots if r.op == "assign"}
        outer = [b for i, b in enumerate(buffers) if i not in inputs and i not in draws and i not in self.sizes]
        self.captured = frozenset(map(id, outer))
        self.written = [b for b in outer if id(b) in targets]  # captured memory that the program updates in place
        self.given = [leaf for slot, leaf in inputs.items() if id(buffers[slot]) in targets]  # arguments that it updates
        # the roots whose memory is new at every replay
        self.fresh = [i for i, r in enumerate(roots) if i < results or r.op != "assign"]
        self._outputs = [Result(s.size, s.dtype) for s in lowered.outputs]
        slots = [lowered.root_slots[i] for i in self.fresh]
        # each result is an output of its own, and nothing else gets new memory: the usual case
        own = len(set(slots)) == len(slots) == results and all(s >= len(buffers) for s in slots)
        self._own = own and not lowered.empty
        self._plain = self._own and not draws and not self.written
        self._shapes: dict[tuple[int, ...], list[Any]] = {}  # values of variables -> the shapes of the results
        self._run: Any = lowered.executable.run if self._own else None
        self._inputs = list(inputs.items())
        self._results = [(roots[i].dtype, roots[i].shape, slots[i], roots[i].origin) for i in range(results if self._own else 0)]
        self._one = self._results[0] if self._results and tree == ("tensor", 0) else None

    def memory(self, leaves: Sequence[Any], now: Mapping[str, int] = _NONE) -> list[Buffer]:
        """The memory that the program is given this time; `now`: the values of the variables."""
        out = self.buffers.copy()
        for slot, leaf in self._inputs:
            out[slot] = leaves[leaf].node.arg
        for slot, count in self.draws.items():
            n = int(count.bind_all(now)) if isinstance(count, Size) else count
            out[slot] = Buffer.of(np.array(random.take(n), np.uint32), dtypes.uint32)
        for slot, symbol in self.sizes.items():
            if symbol.name in now:
                out[slot] = size_memory(symbol, now[symbol.name])
        return out

    def replay(self, leaves: Sequence[Any], now: Mapping[str, int] = _NONE) -> Any:
        """Run the program on these tensors, for these values of the variables; the result of the function. JitError when an
        argument shares memory with what the program updates."""
        if force.updated and (late := force.late(self.captured)):
            force.realize(late, "jit: updates that came before")
        if self.given or self.written:
            return self._updating(leaves, now)
        return self._run_on(leaves, now)

    def _updating(self, leaves: Sequence[Any], now: Mapping[str, int]) -> Any:
        """As `replay`, where memory is updated in place: whatever else reads it is told."""
        written = [*self.written, *[leaves[i].node.arg for i in self.given]]
        owners = [*self.updates, *[leaves[i] for i in self.given]]
        if self.inputs:
            self._distinct(leaves, written)
        force.overwriting(written, watched(owners))
        out = self._run_on(leaves, now)
        for t in owners:
            if t.viewed is not None:
                refresh(t)
        return out

    def _distinct(self, leaves: Sequence[Any], written: Sequence[Buffer]) -> None:
        """Refuses arguments that share memory with what the program updates: inside, they were told apart."""
        for i, t in enumerate(leaves):
            memory = t.node.arg
            if i in self.given:
                whole = t.viewed.storage if t.viewed is not None else self
                others = [u for k, u in enumerate(leaves) if k != i]
                clash = any([u.node.arg is memory or (u.viewed is not None and u.viewed.storage is whole) for u in others])
                clash = clash or any([memory is b for b in self.written])
            else:
                clash = any([memory is b for b in written])
            if clash:
                raise JitError(
                    f"argument {self.names[i]} shares memory with another tensor that this jitted function updates in place; give"
                    f" a clone(), or use one name for both inside. Called on {user_line()}"
                )

    def _run_on(self, leaves: Sequence[Any], now: Mapping[str, int]) -> Any:
        if self._plain:
            given = self.buffers.copy()
            for slot, leaf in self._inputs:
                given[slot] = leaves[leaf].node.arg
            if now:
                for slot, symbol in self.sizes.items():
                    if symbol.name in now:
                        given[slot] = size_memory(symbol, now[symbol.name])
        else:
            given = self.memory(leaves, now)
            if not self._own:
                return self._replay(given, now)
        for result in self._outputs:
            given.append(result.take())
        # Ctrl-C stops the program before its first update in place, or comes when all of them are done
        if hooks.watching:
            engine.launch(self.lowered, given)
        else:
            try:
                self._run(given)
            except IndexError as e:
                raise engine.bad_index(self.lowered, given, e) from None
        if now:
            return self._sized(given, now)
        if self._one is not None:
            dtype, shape, slot, origin = self._one
            return core.computed(_make_node(Node, ("buffer", dtype, shape, (), given[slot], origin)))
        out = []
        for dtype, shape, slot, origin in self._results:
            out.append(core.computed(_make_node(Node, ("buffer", dtype, shape, (), given[slot], origin))))
        return unflatten(self.tree, out)

    def _sized(self, given: list[Buffer], now: Mapping[str, int]) -> Any:
        """The results, with the shapes that they have for these values of the variables."""
        key = tuple(now.values())
        shapes = self._shapes.get(key)
        if shapes is None:
            if len(self._shapes) > 10_000:
                self._shapes.clear()
            shapes = self._shapes[key] = [with_values(shape, now) for _, shape, _, _ in self._results]
        out = [
            core.computed(_make_node(Node, ("buffer", dtype, shape, (), given[slot], origin)))
            for (dtype, _, slot, origin), shape in zip(self._results, shapes, strict=True)
        ]
        return out[0] if self._one is not None else unflatten(self.tree, out)

    def _replay(self, given: list[Buffer], now: Mapping[str, int]) -> Any:
        """Where a result is an argument, or another result, or an update has no memory of its own."""
        with engine.uninterrupted() if self.written or self.given or self.updates else _nothing:
            slots = self.lowered.root_slots
            roots = [r._replace(shape=with_values(r.shape, now)) for r in self.roots] if now else self.roots
            nodes = engine.run_roots(self.lowered, roots, given, self.fresh)
            results = []
            for i, n in zip(self.fresh, nodes, strict=True):
                if i < self.results:
                    if slots[i] < len(given) and n.arg is given[slots[i]]:  # an updated tensor is returned: its content, copied
                        n = n._replace(arg=n.arg.copy())
                    results.append(core.computed(n))
                else:
                    self.updates[i - self.results].node = n
        return unflatten(self.tree, results)


def flatten(x: Any, out: list[Any], tensor: type) -> Any:
    """The shape of a result with its tensors replaced by their positions in `out`."""
    if isinstance(x, tensor):
        out.append(x)
        return ("tensor", len(out) - 1)
    if isinstance(x, (tuple, list)):
        return (type(x), [flatten(i, out, tensor) for i in x])
    if isinstance(x, dict):
        return (dict, {k: flatten(v, out, tensor) for k, v in x.items()})
    return ("value", x)


def unflatten(tree: Any, tensors: Sequence[Any]) -> Any:
    kind, inner = tree
    if kind == "tensor":
        return tensors[inner]
    if kind == "value":
        return inner
    if kind is dict:
        return {k: unflatten(v, tensors) for k, v in inner.items()}
    return rebuilt(kind, (unflatten(v, tensors) for v in inner))
