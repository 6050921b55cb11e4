"""The node test cases of the package onnx: which of them count, and whether what a model gives is what a case says."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinyengine import Tensor
from tinyengine.onnx import values
from tinyengine.onnx.graph import MAIN

onnx = pytest.importorskip("onnx")

# The least relative tolerance for a result of this dtype, beside what the case asks for.
TOLERANCE = {"float16": 2e-3, "bfloat16": 2e-2}
ROUNDING = {"float16": 2.0**-11, "float32": 2.0**-24, "float64": 2.0**-53}


@functools.cache
def cases() -> list[Any]:
    """All of them, as onnx makes them."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(load_model_tests(kind="node"))


def nodes(body: Sequence[Any]) -> Iterator[Any]:
    """Nodes, those of subgraphs too."""
    for n in body:
        yield n
        for a in n.attribute:
            for g in (a.g, *a.graphs):
                yield from nodes(g.node)


def in_default_domain(model: Any) -> bool:
    """Whether every operator that the model uses, in its functions too, is of the default operator set."""
    return all(n.domain in MAIN for body in (model.graph, *model.functions) for n in nodes(body.node))


@functools.cache
def counted() -> list[Any]:
    """The cases in the default domain."""
    return [c for c in cases() if in_default_domain(c.model)]


def _array(x: Any) -> Any:
    if isinstance(x, (list, tuple)):
        return [_array(v) for v in x]
    return onnx.numpy_helper.to_array(x) if isinstance(x, onnx.TensorProto) else x


def data_sets(case: Any) -> list[tuple[list[Any], list[Any]]]:
    """(inputs, expected outputs) as arrays, lists of them, or None."""
    return [([_array(i) for i in ins], [_array(o) for o in outs]) for ins, outs in case.data_sets]


def tensors(got: Any) -> Iterator[Tensor]:
    """Those in a result that have yet to be computed."""
    if isinstance(got, values.Held):
        yield got.values
    elif isinstance(got, list):
        for x in got:
            yield from tensors(x)
    elif isinstance(got, Tensor):
        yield got


def differs(got: Any, want: Any, case: Any, array: Any) -> str:
    """What is wrong with one result, or nothing. `array` gives the elements of a Tensor."""
    if want is None or isinstance(want, (list, tuple)):
        if want is None or not isinstance(got, list) or len(got) != len(want):
            return "" if want is None and got is None else f"{got!r} where {want!r} is expected"
        return next((s for a, b in zip(got, want, strict=True) if (s := differs(a, b, case, array))), "")
    want = np.asarray(want)
    kind = values.STRING if want.dtype.kind in "OUS" else onnx.helper.np_dtype_to_tensor_dtype(want.dtype)
    if values.element_of(got) != kind:
        return f"dtype {values.element_name(values.element_of(got))}, expected {values.element_name(kind)}"
    held = got.values if isinstance(got, values.Held) else got
    a = array(held) if isinstance(held, Tensor) else held
    if a.shape != want.shape:
        return f"shape {list(a.shape)}, expected {list(want.shape)}"
    if kind == values.STRING or want.dtype.kind in "biu":
        return "" if np.array_equal(a, want) else f"{_first(a, want, a != want)}"
    wide, expected = np.asarray(a, np.float64), want.astype(np.float32 if want.dtype.kind == "V" else want.dtype)
    rtol = max(case.rtol, TOLERANCE.get(want.dtype.name, 0))
    with np.errstate(invalid="ignore"):
        size = np.max(np.abs(expected.astype(np.float64)), where=np.isfinite(expected), initial=0.0)
        atol = max(case.atol, 4 * ROUNDING.get(want.dtype.name, 0) * size)  # what cancels leaves what was rounded
        ok = np.isclose(wide, expected.astype(np.float64), rtol, atol, equal_nan=True)
    return "" if ok.all() else _first(wide, expected, ~ok)


def _first(a: Any, want: Any, wrong: Any) -> str:
    at = tuple(np.argwhere(np.asarray(wrong))[0])
    return f"{a[at]} at {list(map(int, at))}, expected {want[at]} ({np.sum(wrong)} of {want.size})"


# Models that come with onnx as files: single layers and operators that PyTorch's exporter wrote for operator set 6, sequences,
# and whole networks with weights that are constants.
FOLDERS = ("simple", "pytorch-converted", "pytorch-operator")
NETWORKS = ("densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet", "zfnet512")


def files() -> list[Any]:
    """Cases whose model and data lie in a folder, in the default domain; as `counted` gives those of nodes."""
    from onnx.backend.test.loader import load_model_tests

    out = []
    for kind in FOLDERS:
        for c in load_model_tests(kind=kind):
            model = c.model if c.model is not None else onnx.load(str(Path(c.model_dir) / "model.onnx"))
            if in_default_domain(model):
                folders = sorted(Path(c.model_dir).glob("test_*")) if c.data_sets is None else []
                sets = c.data_sets or [_folder(p, model) for p in folders]
                out.append(dataclasses.replace(c, model=model, data_sets=sets))
    return out


def _folder(path: Path, model: Any) -> tuple[list[Any], list[Any]]:
    """(inputs, outputs) of one set of data."""
    sides = []
    for side, infos in (("input", model.graph.input), ("output", model.graph.output)):
        sides.append([_content(path / f"{side}_{k}.pb", v) for k, v in enumerate(infos) if (path / f"{side}_{k}.pb").exists()])
    return sides[0], sides[1]


def _content(path: Path, info: Any) -> Any:
    raw = path.read_bytes()
    if info.type.HasField("sequence_type"):
        return onnx.numpy_helper.to_list(onnx.SequenceProto.FromString(raw))
    return onnx.numpy_helper.to_array(onnx.TensorProto.FromString(raw))


def network(name: str) -> tuple[Any, dict[str, Any], Any]:
    """(model, inputs by name, expected output) of one of NETWORKS."""
    data = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    model = onnx.load(str(data / f"light_{name}.onnx"))
    held = {t.name for t in model.graph.initializer}
    inputs = {}
    for v in model.graph.input:
        if v.name not in held:
            shape = [d.dim_value for d in v.type.tensor_type.shape.dim]
            inputs[v.name] = (np.arange(np.prod(shape)).reshape(shape) / np.prod(shape)).astype(np.float32)
    return model, inputs, _content(data / f"light_{name}_output_0.pb", model.graph.output[0])
