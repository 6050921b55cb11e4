"""What all optimizers share. Each step is recorded (phase "optimizer") and computed in one program together with the gradients;
parameters and state are updated in place. Learning rate and counters live in memory, not in the graph: changing them compiles
nothing."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from numbers import Number
from typing import Any

import numpy as np

from tinyengine import origin
from tinyengine.origin import user_line
from tinyengine.tensor import Tensor, force
from tinyengine.tensor.core import no_grad


def named(t: Tensor, name: str) -> Tensor:
    """`t`, its memory called `name` for those who read kernels."""
    t.node.arg.name = name
    return t


class Group(dict[str, Any]):
    """Parameters that share settings, as in PyTorch's param_groups: "params" (the tensors), "lr" and the optimizer's options. The
    rate lives in memory: g["lr"] = 0.1 may be written at any time, between replays of a jitted step too."""

    def __init__(self, params: list[Tensor], lr: float, options: Mapping[str, Any]) -> None:
        if not isinstance(lr, Number):
            raise TypeError(f"the learning rate is a number, not {lr!r}\n  at {user_line()}")
        if not lr >= 0:
            raise ValueError(f"the learning rate must be at least 0, not {lr}\n  at {user_line()}")
        self.rate = named(Tensor(np.float32(lr)), "lr")
        self.memory: dict[str, Tensor] = {}  # what the optimizer keeps for the group: counters of steps
        self.scale: Any = None  # what it computes once a step for all parameters
        super().__init__(params=params, lr=lr, **options)

    def __getitem__(self, key: str) -> Any:
        return float(self.rate.item()) if key == "lr" else super().__getitem__(key)

    def __setitem__(self, key: str, value: Any) -> None:
        if key == "lr":
            self.rate.node.arg.array[...] = value
        super().__setitem__(key, value)


def _groups(params: Any, defaults: Mapping[str, Any]) -> list[Group]:
    """One Group for a list of tensors; or one for each dict, whose keys stand above the defaults. Tensors without requires_grad
    are left out. TypeError, ValueError for what is no group."""
    if not isinstance(params, Iterable):
        raise TypeError(f"an optimizer takes tensors, not {type(params).__name__}; give model.parameters()\n  at {user_line()}")
    given = list(params)
    parts = given if given and all(isinstance(g, dict) for g in given) else [{"params": given}]
    seen: set[int] = set()
    groups = []
    for part in parts:
        unknown = [k for k in part if k != "params" and k not in defaults]
        if "params" not in part or unknown:
            known = ", ".join(["params", *defaults])
            raise ValueError(f"a group of parameters has {known}; got {', '.join(part)}\n  at {user_line()}")
        tensors = [part["params"]] if isinstance(part["params"], Tensor) else list(part["params"])
        wrong = next((p for p in tensors if not isinstance(p, Tensor)), None)
        if wrong is not None:
            raise TypeError(
                f"an optimizer takes tensors, not {type(wrong).__name__}; see state.get_parameters(model)\n  at {user_line()}"
            )
        mine = list({id(p): p for p in tensors if p.requires_grad}.values())
        if not seen.isdisjoint(map(id, mine)):
            raise ValueError(f"some parameters are in more than one group\n  at {user_line()}")
        seen.update(map(id, mine))
        options = {**defaults, **{k: v for k, v in part.items() if k != "params"}}
        groups.append(Group(mine, options.pop("lr"), options))
    if not seen:
        raise ValueError(f"no tensor that requires a gradient was given to the optimizer\n  at {user_line()}")
    return groups


def _checked(name: str, init: Callable[..., None]) -> Callable[..., None]:
    form = inspect.signature(init)

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **options: Any) -> None:
        try:
            form.bind(self, *args, **options)
        except TypeError as e:
            taken = form.replace(parameters=list(form.parameters.values())[1:], return_annotation=form.empty)
            raise TypeError(f"{name}{taken}: {e}\n  at {user_line()}") from None
        init(self, *args, **options)

    return __init__


class Optimizer:
    """`params`: tensors, or dicts {"params": tensors, "lr": ..., any option} for groups with settings of their own; tensors that
    do not require a gradient are left alone. `options`: the optimizer's settings by name; with `maximize` the gradients' signs
    are changed first. Subclasses give `update`."""

    per_parameter: tuple[str, ...] = ()  # attributes that are lists of tensors, one for each parameter

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:  # an argument that it does not take is said on the line of who gave it
            cls.__init__ = _checked(cls.__name__, cls.__dict__["__init__"])  # type: ignore[method-assign]

    def __init__(self, params: Iterable[Any], lr: float, **options: Any) -> None:
        self.param_groups = _groups(params, {"lr": lr, **options})
        self.params: list[Tensor] = [p for g in self.param_groups for p in g["params"]]
        self._group = [g for g in self.param_groups for _ in g["params"]]
        for g in self.param_groups:
            wrong = next((k for k in ("momentum", "weight_decay", "eps") if not g.get(k, 0.0) >= 0), None)
            if wrong is not None:
                raise ValueError(f"{wrong} must be at least 0, not {g[wrong]}\n  at {user_line()}")
            self.check(g)
        force.realize(self.params, "optimizer")

    def check(self, g: Group) -> None:
        """ValueError for options that make no sense."""

    @property
    def lr(self) -> float:
        """The learning rate, of the first group; set, of all groups. At any time, between replays of a jitted step too."""
        return float(self.param_groups[0]["lr"])

    @lr.setter
    def lr(self, value: float) -> None:
        for g in self.param_groups:
            g["lr"] = value

    def state_dict(self) -> dict[str, Any]:
        """{"state": {number of a parameter: {name: tensor}}, "param_groups": [options, memory, numbers of its parameters]}: what
        `load_state_dict` takes. The tensors are those in use; names are this engine's (m, v, velocity)."""
        state = {i: {name: getattr(self, name)[i] for name in self._kept()} for i in range(len(self.params))}
        number = {id(p): i for i, p in enumerate(self.params)}
        groups = [
            {**{k: g[k] for k in g if k != "params"}, "params": [number[id(p)] for p in g["params"]], "memory": dict(g.memory)}
            for g in self.param_groups
        ]
        return {"state": state, "param_groups": groups}

    def _kept(self) -> list[str]:
        return [name for name in self.per_parameter if getattr(self, name)]

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over rates, options and state, into the memory in use. ValueError when groups or parameters are not alike."""
        groups, state = state_dict["param_groups"], state_dict["state"]
        if [len(g["params"]) for g in groups] != [len(g["params"]) for g in self.param_groups] or len(state) != len(self.params):
            raise ValueError(f"load_state_dict: the groups of parameters are not of the same sizes\n  at {user_line()}")
        pairs = [(getattr(self, name)[i], state[i][name]) for i in range(len(self.params)) for name in self._kept()]
        for g, new in zip(self.param_groups, groups, strict=True):
            pairs += [(t, new["memory"][k]) for k, t in g.memory.items()]
            for k in g:
                if k != "params" and k in new:  # a file may be older than an option
                    g[k] = new[k]
        for mine, theirs in pairs:
            mine.assign(theirs)
        force.realize([mine for mine, _ in pairs], "load_state_dict")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for p in self.params:
            p.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient. RuntimeError when none has."""
        if all(p.grad is None for p in self.params):
            raise RuntimeError(f"step: no parameter has a gradient; call backward() on a loss first\n  at {user_line()}")
        with no_grad(), origin.phase("optimizer"):
            changed = self.schedule()
            force.realize(changed, "step")

    def schedule(self) -> list[Tensor]:
        """Record the updates; returns the tensors that they write."""
        changed = [t for group in self.param_groups for t in self.begin(group)]
        for i, p in enumerate(self.params):
            if p.grad is not None:
                o = self._group[i]
                changed += self.update(i, p, -p.grad if o.get("maximize") else p.grad, o)
        return changed

    def begin(self, o: Group) -> list[Tensor]:
        """What is done once a step for a group; returns what it writes."""
        return []

    def update(self, i: int, p: Tensor, g: Tensor, o: Group) -> list[Tensor]:
        """Record the update of parameter i, of group `o`; returns the tensors that it writes."""
        raise NotImplementedError

    def _like(self, p: Tensor, what: str) -> Tensor:
        owner = p.node.arg.name if p.node.op == "buffer" else ""
        return named(Tensor(np.zeros(p.shape, np.float32), dtype=p.dtype), f"{owner}.{what}" if owner else "")


class OptimizerGroup:
    """Several optimizers, for parts of a model with different settings; `step` computes all of them in one program."""

    def __init__(self, *optimizers: Optimizer) -> None:
        if not optimizers:
            raise ValueError(f"a group needs at least one optimizer\n  at {user_line()}")
        self.optimizers = list(optimizers)

    @property
    def params(self) -> list[Tensor]:
        """The parameters of all of them, in order."""
        return [p for o in self.optimizers for p in o.params]

    @property
    def param_groups(self) -> list[Group]:
        """The groups of all of them, which a learning-rate schedule takes."""
        return [g for o in self.optimizers for g in o.param_groups]

    def __getitem__(self, i: int) -> Optimizer:
        return self.optimizers[i]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for o in self.optimizers:
            o.zero_grad()

    def step(self) -> None:
        """Update every parameter that has a gradient. RuntimeError when none has."""
        ready = [o for o in self.optimizers if any(p.grad is not None for p in o.params)]
        if not ready:
            raise RuntimeError(f"step: no parameter has a gradient; call backward() on a loss first\n  at {user_line()}")
        with no_grad(), origin.phase("optimizer"):
            force.realize([t for o in ready for t in o.schedule()], "step")


def length(x: Tensor) -> Tensor:
    """The square root of the sum of squares, without axes."""
    return (x * x).sum().sqrt()


def trust(a: Tensor, b: Tensor) -> Tensor:
    """a / b for lengths, 1 where either is 0."""
    return ((a > 0) & (b > 0)).where(a / b, 1.0)


__all__ = ["Group", "Optimizer", "OptimizerGroup", "length", "named", "trust"]
