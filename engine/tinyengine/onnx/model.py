"""`load`: an ONNX file as a callable."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tinyengine import dtypes
from tinyengine.nn.module import Module
from tinyengine.onnx import registry, values
from tinyengine.onnx.graph import MAIN, Graph, Scope, initializers
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


class Model(Module):
    """What `load` returns: `model(x)`, `model(image=x)` or `model({"image.1": x})` records the model's graph on these inputs and
    returns its output, a tuple when there are several; nothing is computed before a value is read. Its parameters have the names
    that the file gives them (`state_dict`, `load_state_dict`, `parameters`). Nodes belong to the layers that the
    exporter named, under the name that the caller's code has for the model: model.layer1.conv1."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        opsets = {o.domain: o.version for o in proto.opset_import}
        version = next((opsets[d] for d in MAIN if d in opsets), None)
        if version is not None and not registry.OLDEST <= version <= registry.NEWEST:
            raise NotImplementedError(
                f"the model is of operator set {version}; there are {registry.OLDEST} to {registry.NEWEST}\n  at {user_line()}"
            )
        functions = {(f.domain, f.name): f for f in proto.functions}
        scope = Scope(opsets, functions, {}, [])
        g = proto.graph
        self._constants: Any = _Hidden()
        held = dict(initializers(g))
        self._inputs = tuple([_spec(v) for v in g.input if v.name not in held])
        self._defaults = tuple([_spec(v) for v in g.input if v.name in held])
        self._outputs = tuple([_spec(v) for v in g.output])
        self._graph = Graph(g.node, [s.name for s in self._inputs], [s.name for s in self._outputs], scope)
        if scope.missing:
            raise NotImplementedError("this model cannot be loaded:\n  " + "\n  ".join(scope.missing) + f"\n  at {user_line()}")
        self._opset = version
        for name, value in held.items():
            if is_parameter(value):
                vars(self)[name] = t = values.as_tensor_parameter(value)
                t.node.arg.name = name
            else:
                self._constants[name] = value

    @property
    def inputs(self) -> tuple[Spec, ...]:
        """What the model takes, in order."""
        return self._inputs

    @property
    def outputs(self) -> tuple[Spec, ...]:
        """What the model gives, in order."""
        return self._outputs

    @property
    def opset(self) -> int | None:
        """The version of the default operator set that the model is written in."""
        return self._opset

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        out = list(self.run(*args, **kwargs).values())
        return out[0] if len(out) == 1 else tuple(out)

    def run(self, *args: Any, outputs: Sequence[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        """Results by name: the model's outputs, or any values of the graph that `outputs` names."""
        wanted = [s.name for s in self._outputs] if outputs is None else list(outputs)
        env = {**self._constants, **{k: v for k, v in vars(self).items() if isinstance(v, Tensor)}, **self._bind(args, kwargs)}
        try:
            found = self._graph.run(env, wanted)
        except KeyError as e:
            if outputs is None or e.args[0] not in wanted:
                raise
            raise ValueError(f"the model has no value called {e.args[0]!r}\n  at {user_line()}") from None
        return {k: _result(v) for k, v in zip(wanted, found, strict=True)}

    def _bind(self, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Name -> value of the inputs, checked."""
        if len(args) == 1 and isinstance(args[0], dict):
            kwargs, args = {**args[0], **kwargs}, []
        takes = "the model takes " + ("nothing" if not self._inputs else ", ".join(map(str, self._inputs)))
        if len(args) > len(self._inputs):
            raise TypeError(f"{len(args)} inputs were given; {takes}\n  at {user_line()}")
        given = dict(zip([s.name for s in self._inputs], args, strict=False))
        for k, v in kwargs.items():
            if k in given or k not in [s.name for s in (*self._inputs, *self._defaults)]:
                raise TypeError(f"{'input twice' if k in given else 'no input'} {k!r}; {takes}\n  at {user_line()}")
            given[k] = v
        missing = [s for s in self._inputs if s.name not in given]
        if missing:
            raise TypeError(f"missing {', '.join(repr(s.name) for s in missing)}; {takes}\n  at {user_line()}")
        specs = {s.name: s for s in (*self._inputs, *self._defaults)}
        return {k: _checked(v, specs[k]) for k, v in given.items()}

    def extra_repr(self) -> str:
        return f"{', '.join(map(str, self._inputs))} -> {', '.join(map(str, self._outputs))}, operator set {self._opset}"

    def __repr__(self) -> str:
        return f"Model({self.extra_repr()})"


class _Hidden(dict[str, Any]):
    """Constants that are no part of the state."""


def is_parameter(value: Any) -> bool:
    """Whether an initializer is state of the model: floats, and quantised weights. Other ints, bools and strings are constants,
    so that shapes made of them are known."""
    if isinstance(value, np.ndarray):
        return value.dtype.kind == "f" or (value.dtype.itemsize == 1 and value.dtype.kind in "iu")
    return isinstance(value, Tensor)


def _spec(v: onnx.ValueInfoProto) -> Spec:
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
