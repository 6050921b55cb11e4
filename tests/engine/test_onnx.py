"""`onnx.load`: what a loaded model is, what it refuses, and networks against PyTorch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinyengine import Tensor, backends, dtypes, jit, manual_seed
from tinyengine import onnx as te_onnx
from tinyengine.jit import JitError, lowered
from tinyengine.onnx.names import module_path

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
    held = [
        a if isinstance(a, TensorProto) else onnx.numpy_helper.from_array(np.asarray(a), k) for k, a in (weights or {}).items()
    ]
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
    inner = lowered(lambda t: model.run(t, outputs=["d"]), Tensor(x)).graph
    assert not [o for n in inner for o in n.origin if "fc" in o.module]  # what is not asked for is not recorded


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
    graph.node[0].domain, graph.node[0].op_type = "", "Elu"
    graph.node[0].attribute.add(name="slope", type=onnx.AttributeProto.FLOAT, f=1.0)
    with pytest.raises(NotImplementedError, match=r"attributes \['slope'\] are unknown; known: \['alpha'\]"):
        te_onnx.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))
    graph.node[0].op_type = "Concat"
    del graph.node[0].attribute[:]
    with pytest.raises(NotImplementedError, match=r"'/head/Frobnicate': it has no attribute 'axis'"):
        te_onnx.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))
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


def test_a_condition_that_is_known_leaves_one_branch() -> None:
    """If on a shape: the other branch is no part of the graph. Branches see the values around them."""
    value, info = helper.make_node, helper.make_tensor_value_info
    then = helper.make_graph([value("Mul", ["x", "two"], ["a"], "/wide/Mul")], "then", [], [info("a", TensorProto.FLOAT, None)])
    other = helper.make_graph([value("Neg", ["x"], ["b"], "/narrow/Neg")], "else", [], [info("b", TensorProto.FLOAT, None)])
    nodes = [
        value("Shape", ["x"], ["s"]),
        value("ReduceProd", ["s"], ["n"], keepdims=0),
        value("Greater", ["n", "four"], ["c"]),
        value("If", ["c"], ["y"], "/choice/If", then_branch=then, else_branch=other),
    ]
    m = model_of(
        nodes,
        [("x", TensorProto.FLOAT, ["n"])],
        [("y", TensorProto.FLOAT, ["n"])],
        {"four": np.array(4, np.int64), "two": np.array(2, np.float32)},
    )
    model = te_onnx.load(m)
    step = jit(model)
    for x in (np.arange(3, dtype=np.float32), np.arange(6, dtype=np.float32)):
        np.testing.assert_array_equal(step(Tensor(x)).numpy(), 2 * x if x.size > 4 else -x)
    paths = [{o.module for n in p.graph for o in n.origin} for p in step.lowered]
    assert "model.choice.narrow" in paths[0] and "model.choice.wide" in paths[1]
    assert not any("wide" in p for p in paths[0])


def loop_model(condition: bool, times: int = 3) -> Any:
    """x doubled: so many times, or as long as its sum is below 100. Each step is collected."""
    value, info = helper.make_node, helper.make_tensor_value_info
    body = helper.make_graph(
        [
            value("Mul", ["v", "two"], ["w"]),
            value("ReduceSum", ["w"], ["sum"], keepdims=0),
            value("Less", ["sum", "limit"], ["small"]) if condition else value("Identity", ["going"], ["small"]),
            value("Identity", ["w"], ["seen"]),
        ],
        "body",
        [info("i", TensorProto.INT64, []), info("going", TensorProto.BOOL, []), info("v", TensorProto.FLOAT, None)],
        [info("small", TensorProto.BOOL, []), info("w", TensorProto.FLOAT, None), info("seen", TensorProto.FLOAT, [4])],
    )
    return model_of(
        [value("Loop", ["" if condition else "times", "", "x"], ["y", "all"], "/steps/Loop", body=body)],
        [("x", TensorProto.FLOAT, ["n"])],
        [("y", TensorProto.FLOAT, ["n"]), ("all", TensorProto.FLOAT, ["k", "n"])],
        {"times": np.array(times, np.int64), "two": np.array(2, np.float32), "limit": np.array(100, np.float32)},
    )


def test_a_loop_of_known_length_unrolls() -> None:
    x = np.arange(4, dtype=np.float32)
    y, every = jit(te_onnx.load(loop_model(False)))(Tensor(x))
    np.testing.assert_array_equal(y.numpy(), 8 * x)
    np.testing.assert_array_equal(every.numpy(), np.stack([2 * x, 4 * x, 8 * x]))
    y, every = te_onnx.load(loop_model(False, 0))(x)
    np.testing.assert_array_equal(y.numpy(), x)
    assert every.shape == (0, 4)


def test_a_condition_that_depends_on_data_is_computed_at_once_and_refused_in_jit() -> None:
    x = np.arange(4, dtype=np.float32)
    model = te_onnx.load(loop_model(True))
    y, every = model(x)
    np.testing.assert_array_equal(y.numpy(), 32 * x)
    assert every.shape == (5, 4)
    with pytest.raises(JitError) as e:
        jit(model)(Tensor(x))
    assert "Loop node '/steps/Loop'" in e.value.__notes__[0]


def test_functions_of_the_model_are_parts_of_it() -> None:
    """A local function with an attribute of its own, as exporters write for modules."""
    value = helper.make_node
    scaled = value("Elu", ["x"], ["y"], "/act/Elu")
    scaled.attribute.add(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="slope")
    function = helper.make_function("local", "Layer", ["x"], ["y"], [scaled], [helper.make_opsetid("", 18)], ["slope"])
    io = [("x", TensorProto.FLOAT, [3])], [("y", TensorProto.FLOAT, [3])]
    graph = helper.make_graph(
        [value("Layer", ["x"], ["h"], "layer_0", domain="local", slope=2.0), value("Neg", ["h"], ["y"])],
        "g",
        *[[helper.make_tensor_value_info(*v) for v in side] for side in io],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    m = helper.make_model(graph, opset_imports=opsets, functions=[function])
    model = te_onnx.load(m)
    x = np.array([-1.0, 0.0, 2.0], np.float32)
    y = model(x)
    np.testing.assert_allclose(y.numpy(), -np.where(x > 0, x, 2 * np.expm1(x)), rtol=1e-6)
    paths = {o.module for n in lowered(model, Tensor(x)).graph for o in n.origin}
    assert "model.layer_0.act" in paths


def test_weights_in_a_file_of_their_own(tmp_path: Path) -> None:
    m, _ = conv_net()
    onnx.save(m, str(tmp_path / "net.onnx"), save_as_external_data=True, location="net.bin", size_threshold=0)
    assert (tmp_path / "net.bin").exists()
    expected = te_onnx.load(conv_net()[0])(image()).numpy()
    np.testing.assert_array_equal(te_onnx.load(tmp_path / "net.onnx")(image()).numpy(), expected)


def test_ints_of_four_bits_are_held_in_eight() -> None:
    """A weight of int4 with a scale for each row: exact, and what cannot be computed with it says so."""
    w = np.array([[-8, 7, 1], [3, -2, 0]], np.int8)
    held = helper.make_tensor("w", TensorProto.INT4, w.shape, w.reshape(-1))
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=0),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    m = model_of(nodes, [("x", TensorProto.FLOAT, ["n", 2])], [("y", TensorProto.FLOAT, ["n", 3])],
                 {"s": np.array([0.5, 2.0], np.float32), "w": held}, opset=21)  # fmt: skip
    x = np.array([[1.0, 2.0]], np.float32)
    np.testing.assert_array_equal(te_onnx.load(m)(x).numpy(), x @ (w * np.array([[0.5], [2.0]], np.float32)))
    m.graph.node[0].op_type = "Neg"
    del m.graph.node[0].input[1], m.graph.node[0].attribute[:]
    with pytest.raises(TypeError, match="Neg of int4"):
        te_onnx.load(m)(x)


def test_random_operators_draw_from_the_engines_counter() -> None:
    """Dropout in training and Bernoulli: as often as they should, new at each call of a jitted function, again after a seed."""
    n = 4000
    nodes = [
        helper.make_node("Dropout", ["x", "ratio", "training"], ["y", "mask"]),
        helper.make_node("Bernoulli", ["p"], ["b"]),
    ]
    m = model_of(
        nodes,
        [("x", TensorProto.FLOAT, [n]), ("p", TensorProto.FLOAT, [n])],
        [("y", TensorProto.FLOAT, [n]), ("mask", TensorProto.BOOL, [n]), ("b", TensorProto.FLOAT, [n])],
        {"ratio": np.array(0.25, np.float32), "training": np.array(True)},
    )
    step = jit(te_onnx.load(m))
    x, p = Tensor.ones(n).realize(), Tensor.full((n,), 0.7).realize()
    manual_seed(3)
    y, mask, b = (t.numpy() for t in step(x, p))
    np.testing.assert_allclose(y, mask / 0.75, rtol=1e-6)
    assert abs(mask.mean() - 0.75) < 0.03 and abs(b.mean() - 0.7) < 0.03 and set(np.unique(b)) == {0.0, 1.0}
    again = step(x, p)[1].numpy()
    assert (again != mask).any()
    manual_seed(3)
    np.testing.assert_array_equal(step(x, p)[1].numpy(), mask)


def test_results_are_no_views_of_parameters() -> None:
    m = model_of([helper.make_node("Identity", ["w"], ["y"])], [], [("y", TensorProto.FLOAT, [2])], {"w": np.ones(2, np.float32)})
    model = te_onnx.load(m)
    y = model()
    y += 1
    np.testing.assert_array_equal(y.numpy(), [2, 2])
    np.testing.assert_array_equal(model().numpy(), [1, 1])


def test_regions_are_pooled_by_the_largest() -> None:
    """MaxRoiPool has no case of its own: against a loop over its bins."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2, 3, 9, 11)).astype(np.float32)
    rois = np.array([[0, 0, 0, 10, 8], [1, 2, 1, 7, 6], [1, 4, 4, 4, 4], [0, 9, 7, 30, 20]], np.float32)
    node = helper.make_node("MaxRoiPool", ["x", "r"], ["y"], pooled_shape=[3, 2], spatial_scale=0.5)
    io = [("x", TensorProto.FLOAT, x.shape), ("r", TensorProto.FLOAT, rois.shape)], [("y", TensorProto.FLOAT, (4, 3, 3, 2))]
    m = model_of([node], *io)
    expected = np.zeros((4, 3, 3, 2), np.float32)
    for r, (b, x1, y1, x2, y2) in enumerate(rois):
        left, top, right, bottom = (int(np.floor(v * 0.5 + 0.5)) for v in (x1, y1, x2, y2))
        for i in range(3):
            for j in range(2):
                h, w = max(bottom - top + 1, 1) / 3, max(right - left + 1, 1) / 2
                part = x[int(b), :, int(np.floor(i * h)) + top : int(np.ceil((i + 1) * h)) + top,
                         int(np.floor(j * w)) + left : int(np.ceil((j + 1) * w)) + left]  # fmt: skip
                expected[r, :, i, j] = part.max((1, 2)) if part.size else 0
    np.testing.assert_array_equal(te_onnx.load(m)(x, rois).numpy(), expected)


@pytest.mark.parametrize(
    ("name", "op_type", "path"),
    [
        ("/layer1/conv1/Conv", "Conv", "layer1.conv1"),
        ("/layer1/layer1.0/Conv_3", "Conv", "layer1.0"),
        ("/Add_1", "Add", ""),
        ("Conv_0", "Conv", "Conv_0"),
        ("model/dense/MatMul", "MatMul", "model.dense"),
        ("conv1", "Conv", "conv1"),
        ("", "Conv", ""),
    ],
)
def test_names_of_nodes_as_module_paths(name: str, op_type: str, path: str) -> None:
    assert module_path(helper.make_node(op_type, ["x"], ["y"], name)) == path


def test_scopes_that_the_newer_exporter_of_pytorch_writes() -> None:
    n = helper.make_node("Conv", ["x"], ["y"], "node_conv2d")
    n.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'layer1', 'layer1.0', 'conv2d']")
    assert module_path(n) == "layer1.0"
    n.metadata_props[0].value = "['', 'add']"
    assert module_path(n) == ""
    n.metadata_props[0].value = "no list"
    assert module_path(n) == "node_conv2d"


def test_without_the_package_an_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match="pip install onnx"):
        te_onnx.load(b"")
