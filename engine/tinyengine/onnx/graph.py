"""A graph of ONNX nodes, ready to be recorded: `Graph.run` walks the nodes in their order and records what each means.

What does not depend on the inputs (constants, shapes, and all arithmetic on them) is computed by NumPy on the way, so shapes that
a model computes from shapes are static. Nodes belong to the module path that their name says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tinyengine import origin
from tinyengine.onnx import registry, sizes, values
from tinyengine.onnx.names import module_path, node_label

if TYPE_CHECKING:
    import onnx

MAIN = ("", "ai.onnx")  # the two names of the default domain


class Scope(NamedTuple):
    """What the nodes of a graph are read with: `functions` of the model by (domain, name, overload); `given`: the attributes (as
    protos) of the function call that the graph is the body of; `missing` collects what nobody can compute."""

    opsets: Mapping[str, int]
    functions: Mapping[tuple[str, str, str], Any]
    given: Mapping[str, Any]
    missing: list[str]

    def opset(self, domain: str) -> int:
        return next((v for d in (MAIN if domain in MAIN else (domain,)) if (v := self.opsets.get(d)) is not None), 1)


Run = Callable[[list[Any], dict[str, Any]], Any]


class Call(NamedTuple):
    """What a node's operator may want to know: how many results are there, how many of them are used, in which operator set it
    stands."""

    results: int
    outputs: int
    opset: int


class Body:
    """A graph that stands as an attribute of a node: a function of its inputs, which sees the values around it."""

    __slots__ = ("graph", "outer")

    def __init__(self, graph: Graph, outer: dict[str, Any]) -> None:
        self.graph, self.outer = graph, outer

    def __call__(self, *inputs: Any) -> list[Any]:
        return self.graph.run({**self.outer, **dict(zip(self.graph.inputs, inputs, strict=False))})


class Step:
    """One node: `run` gives its results from its operands."""

    __slots__ = ("attributes", "call", "inputs", "label", "name", "outputs", "path", "row", "run")

    def __init__(self, node: onnx.NodeProto, scope: Scope) -> None:
        node = _concrete(node, scope)
        self.path, self.label = module_path(node), node_label(node)
        self.inputs, self.outputs = list(node.input), list(node.output)
        self.attributes = {a.name: _attribute(a, scope) for a in node.attribute if a.name != "consumed_inputs"}  # a hint of set 1
        self.call = Call(len(self.outputs), sum(bool(o) for o in self.outputs), scope.opset(node.domain))
        self.name, self.row = node.op_type, registry.find(node.op_type, self.call.opset) if node.domain in MAIN else None
        self.run = self._resolve(node, scope)

    def _resolve(self, node: onnx.NodeProto, scope: Scope) -> Run:
        function = scope.functions.get((node.domain, node.op_type, getattr(node, "overload", "")))
        if function is not None:
            return self._function(function, node, scope)
        if self.row is not None:
            unknown = sorted(set(self.attributes) - self.row.attributes)
            lacks = sorted(self.row.required - set(self.attributes))
            if unknown or lacks:
                what = f"attributes {unknown} are unknown" if unknown else f"it has no attribute {', '.join(map(repr, lacks))}"
                scope.missing.append(f"{self.label}: {what}; known: {sorted(self.row.attributes)}")
            return self._operator
        body = _schema_function(node, self.call.opset)
        if body is None:
            what = f"{node.domain or 'ai.onnx'}.{node.op_type}, operator set {self.call.opset}"
            why = registry.REFUSED.get(node.op_type, "") if node.domain in MAIN else ""
            scope.missing.append(f"{self.label}: there is no {what}" + (f": {why}" if why else ""))
            return lambda xs, env: None
        return body if callable(body) else self._function(body, node, scope)

    def _function(self, function: onnx.FunctionProto, node: onnx.NodeProto, scope: Scope) -> Run:
        """A call of a function that is given as nodes."""
        given = {a.name: a for a in (*function.attribute_proto, *node.attribute)}
        opsets = {o.domain: o.version for o in function.opset_import} or scope.opsets
        graph = Graph(function.node, function.input, _asked(function, node), scope._replace(opsets=opsets, given=given))

        def run(xs: list[Any], env: dict[str, Any]) -> Any:
            xs += [None] * (len(graph.inputs) - len(xs))
            return graph.run(dict(zip(graph.inputs, xs, strict=True)))

        return run

    def _operator(self, xs: list[Any], env: dict[str, Any]) -> Any:
        row = self.row
        assert row is not None
        symbolic = any(isinstance(x, values.Sizes) for x in xs)
        if symbolic:
            found = sizes.computed(row.name, xs, self.attributes)
            if found is not None:
                return [found]
        extra = {k: Body(v, env) if isinstance(v, Graph) else v for k, v in self.attributes.items()}
        if row.wants_call:
            extra["call"] = self.call
        held = next((x.element for x in xs if isinstance(x, values.Held)), None)
        if held is not None and not row.held and not row.raw:
            if not row.moves:
                raise TypeError(f"{row.name} of {values.element_name(held)}: the engine has no arithmetic for it; cast it first")
            xs = [x.values if isinstance(x, values.Held) else x for x in xs]
        out = row.f(*[_operand(row, k, x) for k, x in enumerate(xs)], **extra)
        out = list(out) if isinstance(out, tuple) and not isinstance(out, (values.Held, values.Sizes)) else [out]
        if held is not None and row.moves:
            return [values.Held(v, held) for v in out]
        if not row.random and not row.raw and not symbolic and all(x is None or values.known(x) for x in xs):
            return [values.folded(v) for v in out]
        return out

    def reads(self) -> set[str]:
        """Names of the values that it takes, or that graphs inside it may see."""
        inside = [v.reads() for v in self.attributes.values() if isinstance(v, Graph)]
        return set(self.inputs).union(*inside)

    def __call__(self, env: dict[str, Any]) -> None:
        """Put the results of this node into `env`."""
        try:
            xs = [env[i] if i else None for i in self.inputs]
            while xs and xs[-1] is None and not self.inputs[len(xs) - 1]:
                xs.pop()
            out = self.run(xs, env)
        except Exception as e:
            e.add_note(f"in {self.label} of the ONNX model" + (f", module {self.path}" if self.path else ""))
            raise
        for name, value in zip(self.outputs, out, strict=False):
            if name:
                env[name] = value


class Graph:
    """Nodes in order, with the names of what goes in and comes out. `constants`: values that stand in the graph itself;
    `declared`: ONNX's element type and the shape of each output of a subgraph, None where it is free."""

    __slots__ = ("constants", "declared", "inputs", "outputs", "steps")

    def __init__(self, nodes: Sequence[Any], inputs: Sequence[str], outputs: Sequence[str], scope: Scope) -> None:
        self.inputs, self.outputs = list(inputs), list(outputs)
        self.steps = [Step(n, scope) for n in nodes]
        self.constants: dict[str, Any] = {}
        self.declared: list[tuple[int, tuple[int | None, ...] | None]] = []

    def run(self, env: dict[str, Any], outputs: Sequence[str] | None = None) -> list[Any]:
        """The values called `outputs` (those of the graph, unless others are asked for) from those in `env`; only nodes that they
        need are looked at."""
        env = {**self.constants, **env}
        around = origin.current_module()
        for step in self.steps if outputs is None else self._needed(outputs):
            path = f"{around}.{step.path}" if around and step.path else around or step.path
            origin.enter(path)
            try:
                step(env)
            finally:
                origin.enter(around)
        return [env[o] if o else None for o in (self.outputs if outputs is None else outputs)]

    def _needed(self, outputs: Sequence[str]) -> list[Step]:
        needed, steps = set(outputs), []
        for step in reversed(self.steps):
            if not needed.isdisjoint(step.outputs):
                steps.append(step)
                needed |= step.reads()
        return steps[::-1]

    def reads(self) -> set[str]:
        """Names of all values that its nodes take or that it hands out."""
        return set(self.outputs).union(*[step.reads() for step in self.steps])

    def names(self) -> set[str]:
        """Of every value that a node gives."""
        return {o for step in self.steps for o in step.outputs}

    def read_on_host(self) -> set[str]:
        """Names of values that every node that takes them reads on the host: scales, bounds, shapes."""
        uses: dict[str, bool] = {}
        for step in self.steps:
            for k, i in enumerate(step.inputs):
                uses[i] = uses.get(i, True) and step.row is not None and k in step.row.host
        return {i for i, host in uses.items() if host} - set(self.outputs)

    def statistics(self) -> set[str]:
        """Names of the running means and variances of batch norms."""
        return {i for step in self.steps if step.name == "BatchNormalization" for i in step.inputs[3:5]}


def _operand(row: registry.Operator, k: int, x: Any) -> Any:
    """What an operator gets: see `registry`."""
    if row.raw or x is None or k in row.either:
        return x
    if k in row.host:
        return values.on_host(x)
    return values.as_recorded(x)


def subgraph(g: onnx.GraphProto, scope: Scope) -> Graph:
    """A graph with what it holds itself."""
    graph = Graph(g.node, [v.name for v in g.input], [v.name for v in g.output], scope)
    graph.constants = dict(initializers(g))
    for v in g.output:
        t = v.type.tensor_type
        dims = [d.dim_value if d.HasField("dim_value") else None for d in t.shape.dim]
        graph.declared.append((t.elem_type, tuple(dims) if t.HasField("shape") else None))
    return graph


def initializers(g: onnx.GraphProto) -> Iterator[tuple[str, Any]]:
    """(name, value) of the constants that a graph lists."""
    for t in g.initializer:
        yield t.name, tensor_value(t)
    for s in g.sparse_initializer:
        yield s.values.name, _dense(s)


def tensor_value(t: onnx.TensorProto) -> Any:
    """A TensorProto as a value."""
    from onnx import numpy_helper

    return values.from_array(np.asarray(numpy_helper.to_array(t)))


def _dense(s: onnx.SparseTensorProto) -> Any:
    from onnx import numpy_helper

    held, at = numpy_helper.to_array(s.values), numpy_helper.to_array(s.indices)
    out = np.zeros(tuple(s.dims), held.dtype)
    if at.ndim == 2:
        out[tuple(at.T)] = held
    else:
        out.reshape(-1)[at] = held
    return values.from_array(out)


def _attribute(a: onnx.AttributeProto, scope: Scope) -> Any:
    """The value of an attribute."""
    from onnx import AttributeProto as A
    from onnx.helper import get_attribute_value

    if a.type == A.GRAPH:
        return subgraph(a.g, scope)
    if a.type == A.TENSOR:
        return tensor_value(a.t)
    if a.type == A.SPARSE_TENSOR:
        return _dense(a.sparse_tensor)
    value: Any = get_attribute_value(a)
    if a.type == A.STRING:
        return value.decode()
    if a.type == A.STRINGS:
        return [s.decode() for s in value]
    return list(value) if a.type in (A.INTS, A.FLOATS) else value


def _concrete(node: onnx.NodeProto, scope: Scope) -> onnx.NodeProto:
    """The node with the attributes of the call in the place of those that refer to them."""
    if not any(a.ref_attr_name for a in node.attribute):
        return node
    new = _copied(node)
    del new.attribute[:]
    for a in node.attribute:
        found = scope.given.get(a.ref_attr_name) if a.ref_attr_name else a
        if found is not None:  # else the operator's default holds
            kept = new.attribute.add()
            kept.CopyFrom(found)
            kept.name = a.name
    return new


def _copied(node: onnx.NodeProto) -> onnx.NodeProto:
    """A node by itself: one that is a part of a model keeps all of the model's bytes in memory."""
    from onnx import NodeProto

    new = NodeProto()
    new.CopyFrom(node)
    return new


def _schema_function(node: onnx.NodeProto, opset: int) -> Any:
    """The function by which ONNX defines an operator: a FunctionProto, a function of the operands when it depends on their types,
    or None."""
    from onnx import FunctionProto, defs

    try:
        schema: Any = defs.get_schema(node.op_type, opset, node.domain)
    except defs.SchemaError:
        return None
    if schema.has_function:
        body = FunctionProto()
        body.CopyFrom(schema.function_body)
        body.attribute_proto.extend(_defaults(schema))
        return body
    if schema.has_context_dependent_function:
        node = _copied(node)
        return lambda xs, env: _by_types(schema, node, opset, xs)
    return None


def _asked(function: Any, node: Any) -> list[str]:
    """The results of a function that the calling node uses; the others have no name."""
    return [name if used else "" for name, used in zip(function.output, node.output, strict=False)]


def _defaults(schema: Any) -> list[Any]:
    return [a.default_value for a in schema.attributes.values() if a.default_value.name]


def _by_types(schema: Any, node: onnx.NodeProto, opset: int, xs: list[Any]) -> Any:
    from onnx import FunctionProto, helper

    types = [
        helper.make_tensor_type_proto(values.element_of(x), x.shape).SerializeToString() if x is not None else b"" for x in xs
    ]
    body = FunctionProto.FromString(schema.get_context_dependent_function(node.SerializeToString(), types))
    given = {a.name: a for a in (*_defaults(schema), *node.attribute)}
    scope = Scope({o.domain: o.version for o in body.opset_import} or {"": opset}, {}, given, [])
    graph = Graph(body.node, body.input, _asked(body, node), scope)
    if scope.missing:
        raise NotImplementedError("; ".join(scope.missing))
    return graph.run(dict(zip(graph.inputs, [*xs, *[None] * (len(graph.inputs) - len(xs))], strict=True)))


__all__ = ["MAIN", "Body", "Call", "Graph", "Scope", "Step", "initializers", "subgraph", "tensor_value"]
