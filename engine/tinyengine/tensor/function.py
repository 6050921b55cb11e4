"""Function: an operation whose derivative its author writes, with the shape that PyTorch gave it.

`apply` records what `forward` computes and puts a `function` node on each result. Its value is the computed one, so nothing is
slower for it (`simplify` takes it away); its derivative is the author's `backward`, which records Tensor operations too, so that
its results can be differentiated again. What `save_for_backward` keeps are operands of the node: an update in place cannot change
them unseen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tinyengine import origin
from tinyengine.node import Node
from tinyengine.origin import MAX_FRAMES, Origin, here, user_line
from tinyengine.stages import record
from tinyengine.tensor import core, force
from tinyengine.tensor.core import Base, make

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor


class Context:
    """`ctx`: what `forward` leaves for `backward`. Any attribute may be set; tensors belong into `save_for_backward`."""

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad  # one for each argument of apply
        self.saved_tensors: tuple[Tensor | None, ...] = ()
        self._kept: tuple[Tensor | None, ...] = ()
        self._constant: tuple[Tensor, ...] = ()
        self._materialize = True

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep these tensors as they are now; `backward` finds them in `saved_tensors`. Arguments, results and others may stand
        among them."""
        wrong = next((t for t in tensors if t is not None and not isinstance(t, Base)), None)
        if wrong is not None:
            raise TypeError(f"save_for_backward keeps tensors and None, not {type(wrong).__name__}\n  at {user_line()}")
        self._kept = tensors

    def mark_non_differentiable(self, *results: Tensor) -> None:
        """No gradient flows through these results."""
        self._constant = results

    def set_materialize_grads(self, value: bool) -> None:
        """False: `backward` gets None, not zeros, for results that the loss does not depend on."""
        self._materialize = value

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Not supported: see the error."""
        raise NotImplementedError(
            "mark_dirty is not supported: a function's results are new values here, so that its arguments stay what they were; "
            f"return the result and assign it outside\n  at {user_line()}"
        )


class Call:
    """One application: the class, its context, how many results and arguments are tensors, and where saved tensors stand."""

    def __init__(self, cls: type[Function], ctx: Context, outputs: Sequence[bool], inputs: Sequence[bool]) -> None:
        self.cls, self.ctx, self.outputs, self.inputs = cls, ctx, outputs, inputs
        self.saved: list[tuple[str, int]] = []  # ('src', number of the operand), ('out', number of the result) or ('none', 0)

    @property
    def name(self) -> str:
        """Of the derivative rule."""
        return f"d-{self.cls.__name__}"

    def backward(self, n: Node, given: Mapping[int, Node], needed: set[Node]) -> list[tuple[Node, Node]]:
        """(operand, its gradient) for each tensor argument of this application that has one. `given`: result -> its gradient."""
        ctx, results = self.ctx, sum(self.outputs)
        inputs = n.src[results : results + sum(self.inputs)]

        def saved(kind: str, i: int) -> Tensor | None:
            return None if kind == "none" else _differentiable(n.src[i] if kind == "src" else _result(self, n.src, i, n.origin))

        ctx.saved_tensors = tuple([saved(*where) for where in self.saved])
        rest = iter(inputs)
        ctx.needs_input_grad = tuple([t and (s := next(rest)) in needed and s.dtype.is_float for t in self.inputs])
        grads: list[Tensor | None] = []
        values = iter(range(results))
        for t in self.outputs:
            g = given.get(i := next(values)) if t else None
            if g is None and t and ctx._materialize:
                g = record.const(0.0, n.src[i].dtype, n.src[i].shape, here()) if n.src[i].dtype.is_float else None
            grads.append(None if g is None else _differentiable(g))
        overwritten = force.overwrites()
        with origin.phase("backward"), core.grad_mode(True):
            out = self.cls.backward(ctx, *grads)
        ctx.saved_tensors = ()
        if force.overwrites() > overwritten:
            raise RuntimeError(
                f"{self.cls.__name__}.backward read a value that made pending updates run; realize them before the gradient"
                f"\n  at {user_line()}"
            )
        return self._checked(out if isinstance(out, tuple) else (out,), inputs, n)

    def _checked(self, out: Sequence[Any], inputs: Sequence[Node], n: Node) -> list[tuple[Node, Node]]:
        name, wanted = self.cls.__name__, len(self.inputs)
        where = f"\n  at {n.origin[0]}: {n.origin[0].frames[0].text}" if n.origin and n.origin[0].frames else ""
        if len(out) != wanted and not (len(out) > wanted and all(g is None for g in out[wanted:])):
            raise RuntimeError(f"{name}.backward returned {len(out)} gradients for {wanted} arguments of forward{where}")
        pairs: list[tuple[Node, Node]] = []
        tie = _Tie(self.cls, n, self.name)
        rest = iter(inputs)
        for k, (is_tensor, g) in enumerate(zip(self.inputs, out, strict=False)):
            s = next(rest) if is_tensor else None
            if g is None:
                continue
            if s is None:
                raise RuntimeError(f"{name}.backward returned a gradient for argument {k}, which is no tensor{where}")
            if not isinstance(g, Base):
                raise TypeError(f"{name}.backward returned {type(g).__name__} for argument {k}, expected a tensor or None{where}")
            if not s.dtype.is_float:
                continue
            if not _covers(g.shape, s.shape):
                raise RuntimeError(
                    f"{name}.backward returned a gradient of shape {list(g.shape)} for argument {k} of shape {list(s.shape)}"
                    + where
                )
            with origin.phase("backward"):
                g = _sum_to(g, s.shape).cast(s.dtype)
            pairs.append((s, tie(g.node)))
        return pairs


@dataclass(frozen=True, slots=True, eq=False)
class Output:
    """What a `function` node holds: the application, and which of its results this is."""

    call: Call
    index: int

    def __repr__(self) -> str:
        return self.call.cls.__name__ + (f"[{self.index}]" if sum(self.call.outputs) > 1 else "")


def _result(call: Call, src: tuple[Node, ...], i: int, o: record.Where) -> Node:
    return Node("function", src[i].dtype, src[i].shape, src, Output(call, i), o)


def _differentiable(n: Node) -> Tensor:
    return make(n, core.FLOWS if n.dtype.is_float else core.NO_FLOW)


def _sum_to(g: Any, shape: tuple[int, ...]) -> Any:
    """The sum of a gradient over the axes along which its argument was broadcast."""
    if g.shape == shape:
        return g
    extra = len(g.shape) - len(shape)
    axes = tuple([d for d, k in enumerate(g.shape) if d < extra or (shape[d - extra] == 1 != k)])
    return g.sum(axes, keepdim=True).reshape(shape)


def _covers(wide: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether `shape` broadcasts to `wide`."""
    extra = len(wide) - len(shape)
    return extra >= 0 and all([k in (1, w) for k, w in zip(shape, wide[extra:], strict=True)])


class _Tie:
    """Gives the nodes that a `backward` recorded their place: rule, forward node, and its own line above that of `apply`."""

    def __init__(self, cls: type[Function], forward: Node, rule: str) -> None:
        self.code = getattr(cls.backward, "__code__", None)
        self.forward, self.rule = forward, rule
        self.new: dict[Node, Node] = {}

    def __call__(self, root: Node) -> Node:
        stack = [root]
        while stack:
            n = stack[-1]
            if n in self.new or not _untied(n):
                self.new.setdefault(n, n)
                stack.pop()
                continue
            missing = [s for s in n.src if s not in self.new]
            if missing:
                stack += missing
                continue
            stack.pop()
            self.new[n] = n._replace(src=tuple([self.new[s] for s in n.src]), origin=self._origin(n.origin[0]))
        return self.new[root]

    def _origin(self, o: Origin) -> tuple[Origin, ...]:
        f = self.forward.origin[0]
        inner = next((o.frames[: i + 1] for i, x in enumerate(o.frames) if x.code is self.code), ())
        return (Origin((*inner, *f.frames)[:MAX_FRAMES], f.module, "backward", self.forward, self.rule),)


def _untied(n: Node) -> bool:
    return bool(n.origin) and n.origin[0].phase == "backward" and n.origin[0].forward is None


class Function:
    """Subclass it with two static methods, `forward(ctx, *args)` and `backward(ctx, *grads)`, and call `MyOp.apply(*args)`.

    `forward` gets what `apply` was given and returns a tensor or a tuple; gradients are off inside. `backward` gets one gradient
    for each result and returns one for each argument: a tensor of its shape, or None. A class may instead define
    `forward(*args)` and `setup_context(ctx, inputs, output)`. As in PyTorch: `ctx.needs_input_grad`, `saved_tensors`,
    `mark_non_differentiable`, `set_materialize_grads`. In jit both run while the function is traced.

    Raises NotImplementedError where a method is missing, RuntimeError for a wrong number or shape of gradients."""

    setup_context: Any = None

    @staticmethod
    def forward(*args: Any) -> Any:
        """What the function computes."""
        raise NotImplementedError(f"a Function needs a static method forward(ctx, ...)\n  at {user_line()}")

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """The gradients of the arguments, given those of the results."""
        raise NotImplementedError(f"a Function needs a static method backward(ctx, ...) to be differentiated\n  at {user_line()}")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Record one application; what `forward` returns, its tensors made differentiable by `backward`."""
        given = [isinstance(a, Base) for a in args]
        ctx = Context(tuple([t and a.requires_grad for t, a in zip(given, args, strict=True)]))
        xs = [a for t, a in zip(given, args, strict=True) if t]
        flow, inputs = core.settle(*xs)
        with core.no_grad():
            if cls.setup_context is None:
                out = cls.forward(ctx, *args)
            else:
                out = cls.forward(*args)
                cls.setup_context(ctx, args, out)
        outs = out if isinstance(out, tuple) else (out,)
        ys = [y for y in outs if isinstance(y, Base)]
        call = Call(cls, ctx, [isinstance(y, Base) for y in outs], given)
        src = [*(y.node for y in ys), *inputs]
        for t in ctx._kept:
            if t is None:
                call.saved.append(("none", 0))
            elif (i := _position(t, xs)) is not None:
                call.saved.append(("src", len(ys) + i))
            elif (i := _position(t, ys)) is not None:
                call.saved.append(("out", i))
            else:
                call.saved.append(("src", len(src)))
                src.append(t.node)
        fixed = [t for t in ctx._constant if _position(t, ys) is not None]
        ctx._kept = ctx._constant = ()
        o = here()
        results: list[Any] = []
        for y in outs:
            if not isinstance(y, Base):
                results.append(y)
                continue
            constant = not y.dtype.is_float or _position(y, fixed) is not None
            n = _result(call, tuple(src), _position(y, ys) or 0, o)
            results.append(make(n, core.NO_FLOW if constant else flow))
        return tuple(results) if isinstance(out, tuple) else results[0]


def _position(t: Any, among: Sequence[Any]) -> int | None:
    return next((i for i, x in enumerate(among) if x is t), None)


__all__ = ["Context", "Function"]
