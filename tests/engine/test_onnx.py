"""`onnx.load`: what a loaded model is, what it refuses, and networks against PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinyengine import Tensor, backends, dtypes, jit
from tinyengine import onnx as te_onnx
from tinyengine.jit import lowered

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

helper, TensorProto = onnx.helper, onnx.TensorProto
F = torch.nn.functional
VALUED = ("llvm", "reference", "opencl")


def backend(name: str) -> str:
    try:
        backends.get(name)
    except backends.BackendError as e:
        pytest.skip(str(e))
    return name


def model_of(
    nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: dict[str, Any] | None = None, opset: int = 18
) -> Any:
    """A ModelProto; inputs and outputs are (name, element type, shape)."""
    infos = [[helper.make_tensor_value_info(*v) for v in side] for side in (inputs, outputs)]
    held = [onnx.numpy_helper.from_array(np.asarray(a), k) for k, a in (weights or {}).items()]
    graph = helper.make_graph(nodes, "g", *infos, initializer=held)
    m = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(m)
    return m


def conv_net() -> tuple[Any, dict[str, Any]]:
    """Two convolutions and a classifier; the shape of the flat features is computed from shapes, as exporters do."""
    rng = np.random.default_rng(0)
    w = {
        "layer1.conv1.weight": rng.normal(0, 0.2, (8, 3, 3, 3)), "layer1.conv1.bias": rng.normal(0, 0.2, 8),
        "layer1.bn.weight": rng.uniform(0.5, 1.5, 8), "layer1.bn.bias": rng.normal(0, 0.2, 8),
        "layer1.bn.running_mean": rng.normal(0, 0.2, 8), "layer1.bn.running_var": rng.uniform(0.5, 1.5, 8),
        "layer2.weight": rng.normal(0, 0.2, (6, 8, 3, 3)), "fc.weight": rng.normal(0, 0.2, (5, 96)),
        "fc.bias": rng.normal(0, 0.2, 5),
    }  # fmt: skip
    w = {k: v.astype(np.float32) for k, v in w.items()}
    n = helper.make_node
    nodes = [
        n("Conv", ["x", "layer1.conv1.weight", "layer1.conv1.bias"], ["a"], "/layer1/conv1/Conv", pads=[1] * 4),
        n("BatchNormalization", ["a", *[f"layer1.bn.{k}" for k in ("weight", "bias", "running_mean", "running_var")]], ["b"],
          "/layer1/bn/BatchNormalization"),
        n("Relu", ["b"], ["c"], "/layer1/Relu"),
        n("MaxPool", ["c"], ["d"], "/layer1/pool/MaxPool", kernel_shape=[2, 2], strides=[2, 2]),
        n("Conv", ["d", "layer2.weight"], ["e"], "/layer2/Conv", auto_pad="SAME_UPPER"),
        n("Relu", ["e"], ["f"], "/Relu_1"),
        n("Shape", ["f"], ["s"], "/Shape"),
        n("Gather", ["s", "zero"], ["batch"], "/Gather", axis=0),
        n("Unsqueeze", ["batch", "axes"], ["row"], "/Unsqueeze"),
        n("Concat", ["row", "rest"], ["flat"], "/Concat", axis=0),
        n("Reshape", ["f", "flat"], ["g"], "/Reshape"),
        n("Gemm", ["g", "fc.weight", "fc.bias"], ["y"], "/fc/Gemm", transB=1),
    ]  # fmt: skip
    ints = {"zero": np.array(0, np.int64), "axes": np.array([0], np.int64), "rest": np.array([-1], np.int64)}
    m = model_of(nodes, [("x", TensorProto.FLOAT, ["N", 3, 8, 8])], [("y", TensorProto.FLOAT, ["N", 5])], w | ints)
    return m, {k: torch.tensor(v) for k, v in w.items()}


def conv_net_by_torch(x: Any, w: dict[str, Any]) -> Any:
    a = F.conv2d(x, w["layer1.conv1.weight"], w["layer1.conv1.bias"], padding=1)
    bn = [w[f"layer1.bn.{k}"] for k in ("running_mean", "running_var", "weight", "bias")]
    d = F.max_pool2d(F.batch_norm(a, *bn).relu(), 2)
    f = F.conv2d(d, w["layer2.weight"], padding="same").relu()
    return F.linear(f.flatten(1), w["fc.weight"], w["fc.bias"])


def image(n: int = 2) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).normal(0, 1, (n, 3, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("name", VALUED)
def test_a_conv_net_is_what_pytorch_computes(name: str) -> None:
    m, w = conv_net()
    model = te_onnx.load(m)
    with backends.use(backend(name)):
        got = model(Tensor(image())).numpy()
    np.testing.assert_allclose(got, conv_net_by_torch(torch.tensor(image()), w).numpy(), rtol=1e-4, atol=1e-5)


def test_nodes_know_the_exporters_layers_and_shapes_are_static() -> None:
    model = te_onnx.load(conv_net()[0])
    graph = lowered(lambda x: model(x), Tensor(image())).graph
    paths = {o.module for n in graph for o in n.origin}
    inner = ("", ".layer1.conv1", ".layer1.bn", ".layer1", ".layer1.pool", ".layer2", ".fc")
    assert {f"model{p}" for p in inner} == paths - {""}
    assert not [n for n in graph if n.dtype is dtypes.int64]  # what is computed from shapes is no part of the program


def test_state_and_gradients() -> None:
    m, w = conv_net()
    model = te_onnx.load(m)
    assert set(model.state_dict()) == set(w)
    model.load_state_dict({k: (v * 2).numpy() for k, v in w.items()})
    got = model(Tensor(image())).numpy()
    expected = conv_net_by_torch(torch.tensor(image()), {k: v * 2 for k, v in w.items()})
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-4, atol=1e-4)
    weight = model.state_dict()["layer1.conv1.weight"]
    weight.requires_grad_()
    model(Tensor(image())).sum().backward()
    theirs = {k: (v * 2).requires_grad_(k == "layer1.conv1.weight") for k, v in w.items()}
    conv_net_by_torch(torch.tensor(image()), theirs).sum().backward()
    assert weight.grad is not None
    np.testing.assert_allclose(weight.grad.numpy(), theirs["layer1.conv1.weight"].grad.numpy(), rtol=1e-3, atol=1e-3)


def test_jitted() -> None:
    m, w = conv_net()
    step = jit(te_onnx.load(m))
    for n in (2, 2, 3):
        got = step(Tensor(image(n))).numpy()
        np.testing.assert_allclose(got, conv_net_by_torch(torch.tensor(image(n)), w).numpy(), rtol=1e-4, atol=1e-5)
    assert len(step.lowered) == 2


def test_inputs_by_name_and_results_by_name(tmp_path: Path) -> None:
    m, _ = conv_net()
    onnx.save(m, str(tmp_path / "net.onnx"))
    model = te_onnx.load(tmp_path / "net.onnx")
    x = image()
    expected = model(x).numpy()
    assert str(model.inputs[0]) == "'x': float32[N, 3, 8, 8]"
    for got in (model(x=x), model({"x": x}), model.run(x)["y"], te_onnx.load(m.SerializeToString())(x)):
        np.testing.assert_array_equal(got.numpy(), expected)
    assert model.run(x, outputs=["d", "y"])["d"].shape == (2, 8, 4, 4)


def test_what_is_wrong_is_named() -> None:
    model = te_onnx.load(conv_net()[0])
    x = image()
    with pytest.raises(TypeError, match=r"missing 'x'; the model takes 'x': float32\[N, 3, 8, 8\]"):
        model()
    with pytest.raises(TypeError, match="no input 'z'"):
        model(x, z=x)
    with pytest.raises(TypeError, match="2 inputs were given"):
        model(x, x)
    with pytest.raises(TypeError, match=r"input 'x': float32.*got float64"):
        model(x.astype(np.float64))
    with pytest.raises(ValueError, match=r"input 'x'.*got shape \[2, 3, 8\]"):
        model(x[..., 0])
    with pytest.raises(ValueError, match=r"got shape \[2, 3, 7, 8\]"):
        model(x[:, :, :7])
    with pytest.raises(ValueError, match="no value called 'nothing'"):
        model.run(x, outputs=["nothing"])
    with pytest.raises(ValueError, match="no ONNX model"):
        te_onnx.load(b"\xff\xff\xff")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.onnx"):
        te_onnx.load("nowhere.onnx")
    with pytest.raises(TypeError, match="not int"):
        te_onnx.load(3)


def test_what_cannot_be_loaded_is_named() -> None:
    n = helper.make_node("Frobnicate", ["x"], ["y"], "/head/Frobnicate", domain="com.example")
    io = [("x", TensorProto.FLOAT, [2])], [("y", TensorProto.FLOAT, [2])]
    graph = helper.make_graph([n], "g", *[[helper.make_tensor_value_info(*v) for v in side] for side in io])
    m = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("com.example", 1)])
    with pytest.raises(NotImplementedError, match=r"'/head/Frobnicate': there is no com\.example\.Frobnicate"):
        te_onnx.load(m)
    m.opset_import[0].version = 99
    with pytest.raises(NotImplementedError, match="operator set 99"):
        te_onnx.load(m)


def test_an_error_inside_names_the_node() -> None:
    m = model_of(
        [helper.make_node("MatMul", ["x", "y"], ["z"], "/attn/MatMul")],
        [("x", TensorProto.FLOAT, ["a", "b"]), ("y", TensorProto.FLOAT, ["c", "d"])],
        [("z", TensorProto.FLOAT, ["a", "d"])],
    )
    with pytest.raises(RuntimeError) as e:
        te_onnx.load(m)(np.ones((2, 3), np.float32), np.ones((2, 3), np.float32))
    assert "'/attn/MatMul'" in e.value.__notes__[0] and "module attn" in e.value.__notes__[0]
