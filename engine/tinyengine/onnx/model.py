"""`load`: an ONNX file as a callable."""

from __future__ import annotations

import inspect
import keyword
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tinyengine import dtypes
from tinyengine.nn.module import Module, entered
from tinyengine.onnx import registry, values
from tinyengine.onnx.graph import MAIN, Graph, Scope, initializers, tensor_value
from tinyengine.origin import user_line
from tinyengine.tensor import Tensor, core

if TYPE_CHECKING:
    import onnx


class Spec(NamedTuple):
    """An input or output as the model declares it. `dtype`: a DType, or the name of what the engine has no dtype for; `shape`:
    ints, names of extents that are free, None where nothing is said; None for a free rank."""

    name: str
    dtype: Any
    shape: tuple[int | str | None, ...] | None

    def __str__(self) -> str:
        shape = "[...]" if self.shape is None else "[" + ", ".join("?" if s is None else str(s) for s in self.shape) + "]"
        return f"{self.name!r}: {self.dtype}{shape}"


@dataclass(slots=True)
class Plan:
    """What a model is besides its parameters. (An object without a `__dict__`: what it holds is no state.)"""

    inputs: tuple[Spec, ...]
    defaults: tuple[Spec, ...]  # inputs that have a value in the file
    outputs: tuple[Spec, ...]
    opset: int | None
    graph: Graph
    constants: dict[str, Any]


class Model(Module):
    """What `load` returns: `model(x)`, `model(image=x)` or `model({"image.1": x})` records the model's graph on these inputs and
    returns its output, a tuple when there are several; nothing is computed before a value is read. Its parameters have the names
    that the file gives them (`state_dict`, `load_state_dict`, `parameters`); they get gradients after `requires_grad_()`. Nodes
    belong to the layers that the exporter named, under the name that the caller's code has for the model: model.layer1.conv1.
    TypeError for inputs that are missing, unknown or of another dtype, ValueError for another shape."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        opsets = {o.domain: o.version for o in proto.opset_import}
        version = next((opsets[d] for d in MAIN if d in opsets), None)
        if version is not None and not registry.OLDEST <= version <= registry.NEWEST:
            raise NotImplementedError(
                f"the model is of operator set {version}; there are {registry.OLDEST} to {registry.NEWEST}\n  at {user_line()}"
            )
        scope = Scope(opsets, {(f.domain, f.name, getattr(f, "overload", "")): f for f in proto.functions}, {}, [])
        g = proto.graph
        held, nodes = dict(initializers(g)), []
        for n in g.node:
            value = constant_of(n)
            if value is None:
                nodes.append(n)
            else:
                held[n.output[0]] = value
        inputs = tuple([spec_of(v) for v in g.input if v.name not in held])
        outputs = tuple([spec_of(v) for v in g.output])
        graph = Graph(nodes, [s.name for s in inputs], [s.name for s in outputs], scope)
        if scope.missing:
            raise NotImplementedError("this model cannot be loaded:\n  " + "\n  ".join(scope.missing) + f"\n  at {user_line()}")
        on_host = graph.read_on_host()
        constants: dict[str, Any] = {}
        for name, value in held.items():
            if name in on_host or not is_parameter(value):
                constants[name] = value
                continue
            vars(self)[name] = t = value if isinstance(value, Tensor) else Tensor(value)
            t.node.arg.name = name
        defaults = tuple([spec_of(v) for v in g.input if v.name in held])
        self._plan = Plan(inputs, defaults, outputs, version, graph, constants)
        if inputs and all(s.name.isidentifier() and not keyword.iskeyword(s.name) for s in inputs):
            kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
            self.__signature__ = inspect.Signature([inspect.Parameter(s.name, kind, default=None) for s in inputs])

    @property
    def inputs(self) -> tuple[Spec, ...]:
        """What the model takes, in order."""
        return self._plan.inputs

    @property
    def outputs(self) -> tuple[Spec, ...]:
        """What the model gives, in order."""
        return self._plan.outputs

    @property
    def opset(self) -> int | None:
        """The version of the default operator set that the model is written in; None when it uses none."""
        return self._plan.opset

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out = list(self.run(*args, **kwargs).values())
        return out[0] if len(out) == 1 else tuple(out)

    def run(self, *args: Any, outputs: Sequence[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        """Results by name: the model's outputs, or any values of the graph that `outputs` names. ValueError for other names."""
        wanted = [s.name for s in self.outputs] if outputs is None else list(outputs)
        env = {**self._plan.constants, **{k: v for k, v in vars(self).items() if isinstance(v, Tensor)}}
        env |= self._bind(args, kwargs)
        unknown = [] if outputs is None else [k for k in wanted if k not in env and k not in self._plan.graph.names()]
        if unknown:
            raise ValueError(f"the model has no value called {', '.join(map(repr, unknown))}\n  at {user_line()}")
        with entered(self):
            return {k: _result(v) for k, v in zip(wanted, self._plan.graph.run(env, wanted), strict=True)}

    def requires_grad_(self, requires_grad: bool = True) -> Model:
        """Whether the parameters get gradients: all floats but the running statistics of batch norms. As
        torch.nn.Module.requires_grad_."""
        fixed = self._plan.graph.statistics()
        for name, t in vars(self).items():
            if isinstance(t, Tensor) and t.dtype.is_float and name not in fixed:
                t.requires_grad_(requires_grad)
        return self

    def _bind(self, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Name -> value of the inputs, checked."""
        specs = {s.name: s for s in (*self.inputs, *self._plan.defaults)}
        if len(args) == 1 and isinstance(args[0], dict):
            kwargs, args = {**args[0], **kwargs}, []
        takes = "the model takes " + (", ".join(map(str, self.inputs)) or "nothing")
        if len(args) > len(self.inputs):
            raise TypeError(f"{len(args)} inputs were given; {takes}\n  at {user_line()}")
        given = dict(zip(specs, args, strict=False))
        for k, v in kwargs.items():
            if k in given or k not in specs:
                raise TypeError(f"{'input twice' if k in given else 'no input'} {k!r}; {takes}\n  at {user_line()}")
            given[k] = v
        missing = [repr(s.name) for s in self.inputs if s.name not in given]
        if missing:
            raise TypeError(f"missing {', '.join(missing)}; {takes}\n  at {user_line()}")
        return {k: _checked(v, specs[k]) for k, v in given.items()}

    def __repr__(self) -> str:
        sides = " -> ".join(", ".join(map(str, side)) for side in (self.inputs, self.outputs))
        return f"Model({sides}; operator set {self.opset})"


def constant_of(node: Any) -> Any:
    """The value of a Constant node that holds a tensor, None for other nodes."""
    if node.op_type != "Constant" or node.domain not in MAIN or [a.name for a in node.attribute] != ["value"]:
        return None
    return tensor_value(node.attribute[0].t)


def is_parameter(value: Any) -> bool:
    """Whether an initializer is state of the model: floats, and quantised weights. Other ints, bools and strings are constants,
    so that shapes made of them are known."""
    if isinstance(value, np.ndarray):
        return value.dtype.kind == "f" or (value.dtype.itemsize == 1 and value.dtype.kind in "iu")
    return isinstance(value, Tensor)


def spec_of(v: onnx.ValueInfoProto) -> Spec:
    kind = v.type.WhichOneof("value")
    if kind != "tensor_type":
        return Spec(v.name, (kind or "anything").removesuffix("_type"), None)
    t = v.type.tensor_type
    shape = None
    if t.HasField("shape"):
        shape = tuple([d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in t.shape.dim])
    known = values.ELEMENTS.get(t.elem_type)
    return Spec(v.name, known if known is not None else values.element_name(t.elem_type), shape)


def _checked(x: Any, s: Spec) -> Any:
    """An input as a value. TypeError for the wrong dtype, ValueError for the wrong shape."""
    if not isinstance(s.dtype, dtypes.DType):
        if isinstance(x, np.ndarray):
            x = values.from_array(x)
        elif s.dtype == "string" and isinstance(x, (str, list)):
            x = np.array(x, object)
        elif isinstance(x, (list, tuple)):
            x = [_sequence_item(v) for v in x]
        elif s.dtype in ("optional", "sequence"):
            return x
        shape = getattr(x, "shape", None)
    else:
        if isinstance(x, np.ndarray):
            x = values.from_array(x)
            x = x if not isinstance(x, np.ndarray) else Tensor(x)
        elif not isinstance(x, Tensor):
            x = Tensor(x, dtype=s.dtype)
        if isinstance(x, Tensor) and x.dtype is not s.dtype and x.dtype is dtypes.int32 and s.dtype is dtypes.int64:
            x = x.cast(dtypes.int64)  # the engine's default integer; ONNX's is wider
        got = x.dtype if isinstance(x, Tensor) else values.element_name(values.element_of(x))
        if got is not s.dtype:
            raise TypeError(f"input {s}: got {got}\n  at {user_line()}")
        shape = x.shape
    fits = (
        s.shape is None
        or shape is None
        or (len(shape) == len(s.shape) and all(not isinstance(b, int) or a == b for a, b in zip(shape, s.shape, strict=True)))
    )
    if not fits:
        raise ValueError(f"input {s}: got shape {list(shape or ())}\n  at {user_line()}")
    return x


def _sequence_item(v: Any) -> Any:
    if isinstance(v, np.ndarray):
        v = values.from_array(v)
        return Tensor(v) if isinstance(v, np.ndarray) and v.dtype.kind in "biuf" else v
    return v


def _result(v: Any) -> Any:
    """What the caller gets: a Tensor whose memory is no parameter's."""
    if isinstance(v, list):
        return [_result(x) for x in v]
    v = values.as_recorded(v)
    if isinstance(v, Tensor):
        return core.same(v) if v.viewed is not None or v.node.op == "buffer" else v
    return v


def read(source: Any) -> onnx.ModelProto:
    """The ModelProto of a path, of bytes, or itself. ImportError without the package onnx."""
    try:
        import onnx
    except ImportError:
        raise ImportError(f"reading ONNX models needs the package onnx: pip install onnx\n  at {user_line()}") from None
    if isinstance(source, onnx.ModelProto):
        return source
    if isinstance(source, (bytes, bytearray, memoryview)):
        return onnx.load_model_from_string(bytes(source))
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if not path.exists():
            raise FileNotFoundError(f"no file {str(path)!r}\n  at {user_line()}")
        return onnx.load_model(str(path))
    raise TypeError(f"load takes a path, bytes or a ModelProto, not {type(source).__name__}\n  at {user_line()}")


def load(source: Any) -> Model:
    """An ONNX model from a path, bytes or a ModelProto, as a callable. External data beside the file is read. NotImplementedError
    names the operators, attributes or operator set that there is no support for; ImportError without the package onnx."""
    try:
        proto = read(source)
    except Exception as e:
        if type(e).__name__ != "DecodeError":
            raise
        raise ValueError(f"this is no ONNX model: {e}\n  at {user_line()}") from None
    return Model(proto)


__all__ = ["Model", "Spec", "load", "read"]
