"""Whole networks through ONNX: values against PyTorch on the same weights, layers by their names, as many kernels as by hand."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import pytest

from tests.engine.test_onnx import VALUED, backend, conv_net, conv_net_by_torch, image, model_of
from tinyengine import Tensor, Variable, backends, hooks, jit, machine, nn, optim
from tinyengine import onnx as te_onnx
from tinyengine.jit import lowered

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
F = torch.nn.functional
WIDTH, HEADS = 16, 2


def block() -> tuple[Any, dict[str, Any]]:
    """A causal transformer block on embedded tokens, as exporters write one: shapes and the mask are computed in the graph."""
    rng = np.random.default_rng(3)
    shapes = {
        "embed": (11, WIDTH), "ln1.weight": (WIDTH,), "ln1.bias": (WIDTH,), "attn.qkv": (WIDTH, 3 * WIDTH),
        "attn.out": (WIDTH, WIDTH), "ln2.weight": (WIDTH,), "ln2.bias": (WIDTH,), "mlp.up": (WIDTH, 4 * WIDTH),
        "mlp.up_bias": (4 * WIDTH,), "mlp.down": (4 * WIDTH, WIDTH),
    }  # fmt: skip
    w = {k: rng.normal(0, 0.3, s).astype(np.float32) for k, s in shapes.items()}
    ints = {
        "heads": np.array([0, 0, 3, HEADS, WIDTH // HEADS]), "i0": np.array(0), "i1": np.array(1), "i2": np.array(2),
        "a0": np.array([0]), "merged": np.array([0, 0, WIDTH]), "one": np.array(1),
    }  # fmt: skip
    floats = {"scale": np.array(np.sqrt(WIDTH // HEADS), np.float32), "low": np.array(-1e9, np.float32)}

    def n(kind: str, inputs: str, outputs: str, name: str, **attributes: Any) -> Any:
        return onnx.helper.make_node(kind, inputs.split(), outputs.split(), name, **attributes)

    value = onnx.numpy_helper.from_array(np.ones(1, np.float32))
    nodes = [
        n("Gather", "embed ids", "x", "/embed/Gather"),
        n("LayerNormalization", "x ln1.weight ln1.bias", "h", "/ln1/LayerNormalization"),
        n("MatMul", "h attn.qkv", "qkv", "/attn/MatMul"),
        n("Reshape", "qkv heads", "qkv5", "/attn/Reshape"),
        n("Transpose", "qkv5", "parts", "/attn/Transpose", perm=[2, 0, 3, 1, 4]),
        *[n("Gather", f"parts i{k}", name, f"/attn/Gather_{k}") for k, name in enumerate("qkv")],
        n("Transpose", "k", "kt", "/attn/Transpose_1", perm=[0, 1, 3, 2]),
        n("MatMul", "q kt", "raw", "/attn/MatMul_1"),
        n("Div", "raw scale", "scores", "/attn/Div"),
        n("Shape", "ids", "s", "/attn/Shape"),
        n("Gather", "s one", "t", "/attn/Gather_3"),
        n("Unsqueeze", "t a0", "tv", "/attn/Unsqueeze"),
        n("Concat", "tv tv", "square", "/attn/Concat", axis=0),
        n("ConstantOfShape", "square", "ones", "/attn/ConstantOfShape", value=value),
        n("Trilu", "ones", "tri", "/attn/Trilu", upper=0),
        n("Cast", "tri", "seen", "/attn/Cast", to=onnx.TensorProto.BOOL),
        n("Where", "seen scores low", "masked", "/attn/Where"),
        n("Softmax", "masked", "p", "/attn/Softmax", axis=-1),
        n("MatMul", "p v", "y", "/attn/MatMul_2"),
        n("Transpose", "y", "yt", "/attn/Transpose_2", perm=[0, 2, 1, 3]),
        n("Reshape", "yt merged", "ym", "/attn/Reshape_1"),
        n("MatMul", "ym attn.out", "o", "/attn/out/MatMul"),
        n("Add", "x o", "x1", "/Add"),
        n("LayerNormalization", "x1 ln2.weight ln2.bias", "h2", "/ln2/LayerNormalization"),
        n("MatMul", "h2 mlp.up", "u", "/mlp/MatMul"),
        n("Add", "u mlp.up_bias", "ub", "/mlp/Add"),
        n("Gelu", "ub", "g", "/mlp/Gelu"),
        n("MatMul", "g mlp.down", "d", "/mlp/MatMul_1"),
        n("Add", "x1 d", "out", "/Add_1"),
    ]
    m = model_of(nodes, [("ids", INT64, ["N", "T"])], [("out", FLOAT, ["N", "T", WIDTH])], w | ints | floats, 20)
    return m, {k: torch.tensor(v) for k, v in w.items()}


def block_by_torch(ids: Any, w: dict[str, Any]) -> Any:
    x = w["embed"][ids]
    n, t = ids.shape
    h = F.layer_norm(x, (WIDTH,), w["ln1.weight"], w["ln1.bias"])
    q, k, v = (h @ w["attn.qkv"]).reshape(n, t, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(n, t, WIDTH)
    x = x + y @ w["attn.out"]
    h = F.layer_norm(x, (WIDTH,), w["ln2.weight"], w["ln2.bias"])
    return x + F.gelu(h @ w["mlp.up"] + w["mlp.up_bias"]) @ w["mlp.down"]


IDS = np.random.default_rng(5).integers(0, 11, (2, 6))


@pytest.mark.parametrize("name", VALUED)
def test_a_transformer_block_is_what_pytorch_computes(name: str) -> None:
    m, w = block()
    with backends.use(backend(name)):
        got = te_onnx.load(m)(IDS).numpy()
    np.testing.assert_allclose(got, block_by_torch(torch.tensor(IDS), w).numpy(), rtol=1e-4, atol=1e-5)


class Block(nn.Module):
    """The same by hand."""

    def __init__(self, w: dict[str, Any]) -> None:
        self.w = {k: Tensor(v.numpy()) for k, v in w.items()}

    def forward(self, ids: Tensor) -> Tensor:
        w = self.w
        x = w["embed"][ids]
        n, t = ids.shape
        h = x.layernorm() * w["ln1.weight"] + w["ln1.bias"]
        parts = (h @ w["attn.qkv"]).reshape(n, t, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        y = parts[0].scaled_dot_product_attention(parts[1], parts[2], is_causal=True)
        x = x + y.transpose(1, 2).reshape(n, t, WIDTH) @ w["attn.out"]
        h = x.layernorm() * w["ln2.weight"] + w["ln2.bias"]
        return x + (h @ w["mlp.up"] + w["mlp.up_bias"]).gelu() @ w["mlp.down"]


def test_no_more_kernels_than_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "current", lambda: machine.FIXTURE)  # a softmax of 6 x 6 scores is a near tie, decided by prices
    m, w = block()
    model, mine = te_onnx.load(m), Block(w)
    ours, theirs = lowered(model, Tensor(IDS)), lowered(mine, Tensor(IDS))
    assert len(ours.kernels) <= len(theirs.kernels)
    assert {"model.ln1", "model.attn", "model.attn.out", "model.mlp"} <= {o.module for n in ours.graph for o in n.origin}


def test_fine_tuning_in_a_jitted_step() -> None:
    """Gradients flow through a loaded model: three steps of SGD give the weights that PyTorch gets. Statistics stay."""
    m, w = conv_net()
    model = te_onnx.load(m).requires_grad_()
    fixed = {"layer1.bn.running_mean", "layer1.bn.running_var"}
    names = {k for k, t in model.state_dict().items() if t.requires_grad}
    assert names == set(w) - fixed
    sgd = optim.SGD(list(model.parameters()), lr=0.01)

    @jit
    def step(x: Tensor) -> Tensor:
        sgd.zero_grad()
        loss = (model(x) ** 2).mean()
        loss.backward()
        sgd.step()
        return loss

    theirs = {k: v.clone().requires_grad_(k in names) for k, v in w.items()}
    other = torch.optim.SGD([theirs[k] for k in names], lr=0.01)
    for _ in range(3):
        ours = step(Tensor(image()))
        other.zero_grad()
        loss = (conv_net_by_torch(torch.tensor(image()), theirs) ** 2).mean()
        loss.backward()
        other.step()
        np.testing.assert_allclose(ours.item(), loss.item(), rtol=1e-4)
    for k, t in model.state_dict().items():
        np.testing.assert_allclose(t.numpy(), theirs[k].detach().numpy(), rtol=1e-3, atol=1e-5, err_msg=k)


def heard(f: Any) -> list[Any]:
    """The events of a call."""
    events: list[Any] = []
    with hooks.subscribed(events.append):
        f()
    return events


def test_one_program_for_every_batch() -> None:
    """A symbolic extent goes through what the model computes from shapes."""
    n = Variable("n", 1, 32)
    m, w = conv_net()
    step = jit(te_onnx.load(m))
    for size in (3, 7, 1, 32):
        x = image(size)
        got = step(Tensor(x).reshape(n.bind(size), 3, 8, 8))
        np.testing.assert_allclose(got.numpy(), conv_net_by_torch(torch.tensor(x), w).numpy(), rtol=1e-4, atol=1e-5)
    assert len(step.entries) == 1
    x = Tensor(image(5)).reshape(n.bind(5), 3, 8, 8)
    assert not [e for e in heard(lambda: step(x)) if isinstance(e, (hooks.CacheMiss, hooks.KernelEmitted))]


def test_one_program_for_every_length_of_a_sequence() -> None:
    """A causal mask that the model makes of its shape included."""
    t = Variable("t", 1, 24)
    m, w = block()
    step = jit(te_onnx.load(m))
    for size in (6, 3, 1, 24):
        ids = np.random.default_rng(size).integers(0, 11, (2, size))
        got = step(Tensor(ids).reshape(2, t.bind(size))).numpy()
        np.testing.assert_allclose(got, block_by_torch(torch.tensor(ids), w).numpy(), rtol=1e-4, atol=1e-5)
    assert len(step.entries) == 1


def test_decoding_with_a_growing_cache_is_one_program() -> None:
    """The operator Attention with past keys and values, whose length is symbolic."""
    heads, width = 2, 8
    one, past, total = ([1, heads, t, width] for t in (1, "past", "total"))
    node = onnx.helper.make_node("Attention", ["q", "k", "v", "", "pk", "pv"], ["y", "nk", "nv"], "/attn/Attention", is_causal=1)
    inputs = [("q", FLOAT, one), ("k", FLOAT, one), ("v", FLOAT, one), ("pk", FLOAT, past), ("pv", FLOAT, past)]
    outputs = [("y", FLOAT, one), ("nk", FLOAT, total), ("nv", FLOAT, total)]
    step, p = jit(te_onnx.load(model_of([node], inputs, outputs, opset=23))), Variable("p", 1, 64)
    q, k, v = np.random.default_rng(4).standard_normal((3, 1, heads, 40, width)).astype(np.float32)
    for t in (3, 7, 1, 30):
        cache = [Tensor(x[:, :, :t]).reshape(1, heads, p.bind(t), width) for x in (k, v)]
        y, keys, _ = step(*[Tensor(x[:, :, t : t + 1]) for x in (q, k, v)], *cache)
        seen = [torch.tensor(x) for x in (q[:, :, t : t + 1], k[:, :, : t + 1], v[:, :, : t + 1])]
        np.testing.assert_allclose(y.numpy(), F.scaled_dot_product_attention(*seen).numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(keys.numpy(), k[:, :, : t + 1])
    assert len(step.entries) == 1


# What PyTorch's own exporter writes.


def exported(module: Any, *args: Any, **options: Any) -> Any:
    """The ModelProto of a PyTorch module, by the exporter that needs nothing but onnx."""
    f = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), args, f, dynamo=False, opset_version=18, **options)
    return onnx.load_from_string(f.getvalue())


class Residual(torch.nn.Module):
    def __init__(self, n: int, stride: int) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(n, 2 * n, 3, stride, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(2 * n)
        self.down = torch.nn.Sequential(torch.nn.Conv2d(n, 2 * n, 1, stride), torch.nn.BatchNorm2d(2 * n))

    def forward(self, x: Any) -> Any:
        return torch.relu(self.bn1(self.conv1(x)) + self.down(x))


class Vision(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2))
        self.layers = torch.nn.ModuleList([Residual(4, 2), Residual(8, 1)])
        self.up = torch.nn.Upsample(scale_factor=2, mode="bilinear")
        self.fc = torch.nn.Linear(16, 5)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x)
        return self.fc(self.up(x).mean((2, 3)))


class Language(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(20, 8)
        self.lstm = torch.nn.LSTM(8, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.attn = torch.nn.MultiheadAttention(12, 3, batch_first=True)
        self.norm = torch.nn.LayerNorm(12)
        self.head = torch.nn.Linear(12, 20)

    def forward(self, ids: Any) -> Any:
        x, _ = self.lstm(self.embed(ids))
        return self.head(self.norm(x + self.attn(x, x, x, need_weights=False)[0]))


@pytest.mark.parametrize("kind", [Vision, Language])
def test_what_pytorch_exports_gives_what_pytorch_computes(kind: Any) -> None:
    torch.manual_seed(0)
    module = kind()
    x = torch.randn(2, 3, 16, 16) if kind is Vision else torch.randint(0, 20, (2, 5))
    m = exported(module, x, input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "N"}})
    model = te_onnx.load(m)
    step, n = jit(model), Variable("n", 1, 8)
    for batch in (x, torch.cat([x, x[:1]])):
        with torch.no_grad():
            expected = module(batch).numpy()
        rows = Tensor(batch.numpy()).reshape(n.bind(len(batch)), *batch.shape[1:])
        np.testing.assert_allclose(step(rows).numpy(), expected, rtol=1e-4, atol=1e-5)
    assert len(step.entries) == 1
    graph = lowered(model, Tensor(x.numpy())).graph
    paths = {o.module for n in graph for o in n.origin}
    leaves = {f"model.{k}" for k, v in module.named_modules() if list(v.parameters(recurse=False))}
    merged = {
        "model.layers.0.bn1",
        "model.layers.1.bn1",
        "model.layers.0.down.1",
        "model.layers.1.down.1",
        "model.attn.out_proj",
    }  # the exporter folds batch norms into convolutions, and calls no module for this one
    assert leaves - merged <= paths, sorted(leaves - merged - paths)
