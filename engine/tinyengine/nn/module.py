"""Module: the base of layers, and an optional one of your networks. It finds out under which name it is called, so that every
node knows its place in the network (`model.fc1`), and it switches between training and evaluation.

A class of yours may define `forward` (PyTorch's way) or `__call__` (tinygrad's), or not inherit from Module at all: names are
then found by looking, once for each layer, at the attributes of the `self` that called it and at the caller's variables.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from tinyengine import origin, state
from tinyengine.tensor import core
from tinyengine.tensor.casting import target

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor


class Module:
    """`model(x)` calls `model.forward(x)` inside the origin of its name. Attributes that are tensors, modules, lists, tuples or
    dicts of them are its parts."""

    training: bool = True
    _path: str | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__call__" in cls.__dict__:
            cls.__call__ = _tracked(cls.__dict__["__call__"])  # type: ignore[method-assign]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            with entered(self):
                return self.forward(*args, **kwargs)
        except AttributeError as e:
            from tinyengine.tensor import Tensor

            if hasattr(Tensor, e.name or "") and any(e.obj is x for x in args):
                name, given = type(self).__name__, type(e.obj).__name__
                raise TypeError(f"{name} takes tensors, not {given}\n  at {origin.user_line()}") from e
            raise

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} defines neither forward nor __call__\n  at {origin.user_line()}")

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of all that are trained."""
        return iter([(k, t) for k, t in state.get_state_dict(self).items() if t.requires_grad])

    def parameters(self) -> Iterator[Tensor]:
        """The tensors that are trained."""
        return iter([t for _, t in self.named_parameters()])

    def state_dict(self) -> dict[str, Tensor]:
        """Name -> tensor, running statistics included."""
        return state.get_state_dict(self)

    def load_state_dict(self, state_dict: dict[str, Any], strict: bool = True) -> None:
        """Take over the values; see `state.load_state_dict`."""
        state.load_state_dict(self, state_dict, strict)

    def train(self, mode: bool = True) -> Module:
        """Switch this module and all its parts to training, or with False to evaluation."""
        set_training(self, mode)
        return self

    def eval(self) -> Module:
        """Switch to evaluation: dropout does nothing, batch norm uses its running statistics."""
        return self.train(False)

    def to(self, *targets: Any, **kwargs: Any) -> Module:
        """Parameters, their gradients, and buffers of floats become this float dtype (given as for `Tensor.to`), in place. Make
        optimizers afterwards: their state keeps its dtype. Names of devices change nothing. TypeError for a dtype that is no
        float."""
        dtype = target(f"{type(self).__name__}.to", targets, kwargs)
        if dtype is None:
            return self
        if not dtype.is_float:
            raise TypeError(f"{type(self).__name__}.to takes a float dtype, not {dtype}\n  at {origin.user_line()}")
        held = [t for t in self.state_dict().values() if t.dtype.is_float and t.dtype is not dtype]
        for t in held:
            flow = t.flow
            t.to_(dtype).flow = flow  # also inside no_grad
            if t.grad is not None:
                t.grad = t.grad.detach().cast(dtype)  # not computed: that of a jitted step has no value outside it
        if held:
            held[0].realize(*held[1:])
        return self

    def half(self) -> Module:
        """`to` float16."""
        return self.to("float16")

    def bfloat16(self) -> Module:
        """`to` bfloat16."""
        return self.to("bfloat16")

    def float(self) -> Module:
        """`to` float32."""
        return self.to("float32")

    def double(self) -> Module:
        """`to` float64."""
        return self.to("float64")

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        """Freeze the parameters with False; train those again that were frozen, here or one by one. Buffers stay as they are."""
        held = self.state_dict().values()
        for t in [t for t in held if id(t) in core.frozen] if requires_grad else list(self.parameters()):
            t.requires_grad = requires_grad
        return self

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for p in self.parameters():
            p.grad = None

    def named_children(self) -> list[tuple[str, Module]]:
        """(name, module) of the parts that are modules."""
        parts = [(k, v) for k, v in vars(self).items() if isinstance(v, Module)]
        for k, v in vars(self).items():
            if isinstance(v, (list, tuple)):
                parts += [(f"{k}.{i}", m) for i, m in enumerate(v) if isinstance(m, Module)]
        return parts

    def children(self) -> Iterator[Module]:
        """The parts that are modules."""
        return iter([m for _, m in self.named_children()])

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """(dotted name, module) of this one, whose name is empty, and of all inside it."""
        return state.walk(self, Module)

    def modules(self) -> Iterator[Module]:
        """This module and all inside it."""
        return iter([m for _, m in self.named_modules()])

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of what is kept and not trained, such as running statistics."""
        return iter([(k, t) for k, t in state.get_state_dict(self).items() if not t.requires_grad])

    def buffers(self) -> Iterator[Tensor]:
        """The tensors that are kept and not trained."""
        return iter([t for _, t in self.named_buffers()])

    def register_buffer(self, name: str, tensor: Tensor | None) -> None:
        """Keep a tensor that is not trained under this name. The same as assigning it."""
        setattr(self, name, tensor)

    def apply(self, fn: Callable[[Module], Any]) -> Module:
        """Call `fn` on all modules inside, parts first, and on this one."""
        for m in reversed(list(self.modules())):
            fn(m)
        return self

    def __repr__(self) -> str:
        parts = self.named_children()
        if not parts:
            return f"{type(self).__name__}({self.extra_repr()})"
        body = "\n".join(f"  ({k}): " + repr(v).replace("\n", "\n  ") for k, v in parts)
        return f"{type(self).__name__}(\n{body}\n)"

    def extra_repr(self) -> str:
        return ""


def set_training(model: Any, mode: bool) -> None:
    """Switch every Module inside any object, list or dict."""
    for _, m in state.walk(model, Module):
        m.training = mode


def _tracked(f: Any) -> Any:
    @functools.wraps(f)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with entered(self):
            return f(self, *args, **kwargs)

    return call


_entered: list[Module] = []  # the modules that are being called right now, innermost last


class entered:
    """Nodes made inside belong to this module."""

    __slots__ = ("module", "old")

    def __init__(self, module: Module) -> None:
        self.module = module

    def __enter__(self) -> None:
        m = self.module
        if m._path is None:
            m._path = _find(m, sys._getframe(1))
        self.old = origin.enter(m._path)
        _entered.append(m)

    def __exit__(self, *exc: object) -> None:
        _entered.pop()
        origin.enter(self.old)


def _find(module: Any, frame: FrameType | None) -> str:
    """The name under which the user's code knows this object."""
    if _entered:
        name = _part(_entered[-1], module)
        if name:
            return f"{_entered[-1]._path}.{name}"
    while frame is not None and not origin.is_user(frame.f_code):
        frame = frame.f_back
    if frame is None:
        return type(module).__name__.lower()
    f_locals = frame.f_locals
    owner = f_locals.get("self")
    if owner is not None and owner is not module:
        name = _part(owner, module)
        if name:
            above = getattr(owner, "_path", None) or _name(owner, frame.f_back)
            return f"{above}.{name}" if above else name
    found = _name(module, frame)
    inside = origin.current_module()
    return found or (f"{inside}." if inside else "") + type(module).__name__.lower()


def _name(thing: Any, frame: FrameType | None) -> str:
    """The variable of this frame, or of one above it, that holds `thing`, or a list that does; empty when there is none."""
    while frame is not None:
        if origin.is_user(frame.f_code):
            for names in (frame.f_locals, frame.f_globals):
                held = [(k, v) for k, v in list(names.items()) if k != "self" and k.isidentifier() and not k.startswith("_")]
                found = next((k for k, v in held if v is thing), "")
                for k, v in () if found else held:
                    inner = _part(v, thing) if isinstance(v, (list, tuple, dict)) else ""
                    if inner:
                        found = f"{k}.{inner}"
                        break
                if found:
                    return found
            if frame.f_code.co_name == "<module>":
                break
        frame = frame.f_back
    return ""


def _part(owner: Any, thing: Any) -> str:
    """The dotted path from `owner` to `thing`, the same as in the state dict."""
    return next((path for path, t in state.walk(owner, type(thing)) if t is thing), "")
