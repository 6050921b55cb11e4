"""Differentiation: second order, ties to forward nodes, rules for every op, accumulation, detach, no_grad, and what is
refused."""

from __future__ import annotations

import numpy as np
import pytest

from tests.engine.peer import Case, F, draw, torch, value
from tinyengine import Tensor, hooks, no_grad
from tinyengine.node import Graph, toposort
from tinyengine.ops import OPS
from tinyengine.spec import check
from tinyengine.stages import differentiate

SECOND = [
    Case("cube", lambda x: (x**3).sum(), lambda x: (x**3).sum()),
    Case("exp2", lambda x: (x.exp2() * x).sum(), lambda x: (x.exp2() * x).sum()),
    Case("exp sin", lambda x: (x.exp() * x.sin()).sum(), lambda x: (x.exp() * x.sin()).sum()),
    Case("tanh", lambda x: x.tanh().sum(), lambda x: x.tanh().sum()),
    Case("sigmoid", lambda x: x.sigmoid().sum(), lambda x: x.sigmoid().sum()),
    Case("softmax", lambda x: (x.softmax(-1) ** 2).sum(), lambda x: (x.softmax(-1) ** 2).sum()),
    Case("division", lambda x: (1 / (x * x + 1)).sum(), lambda x: (1 / (x * x + 1)).sum()),
    Case("gelu", lambda x: x.gelu().sum(), lambda x: F.gelu(x).sum()),
    Case("matmul", lambda x: ((x @ x.T) ** 2).sum(), lambda x: ((x @ x.T) ** 2).sum()),
    Case("prod", lambda x: x.prod(1).sum(), lambda x: x.prod(1).sum()),
    Case("slices", lambda x: (x[:, ::2] * x[:, 1:3]).square().sum(), lambda x: (x[:, ::2] * x[:, 1:3]).square().sum()),
    Case("layernorm", lambda x: (x.layernorm() ** 3).sum(), lambda x: (F.layer_norm(x, x.shape[-1:]) ** 3).sum()),
    Case(
        "conv",
        lambda x: (x.reshape(1, 1, 3, 4).conv2d(x[:2, :2].reshape(1, 1, 2, 2), padding=1, stride=2) ** 2).sum(),
        lambda x: (F.conv2d(x.reshape(1, 1, 3, 4), x[:2, :2].reshape(1, 1, 2, 2), padding=1, stride=2) ** 2).sum(),
    ),
    Case(
        "gather",
        lambda x: (x.gather(1, Tensor([[0, 0], [1, 2]])) ** 3).sum(),
        lambda x: (x.gather(1, torch.tensor([[0, 0], [1, 2]])) ** 3).sum(),
    ),
]


@pytest.mark.parametrize("case", SECOND, ids=lambda c: c.name)
def test_second_order(case: Case) -> None:
    a = draw((3, 4), 0.3, 1.5, 1)
    x, t = Tensor(a), torch.tensor(a, requires_grad=True)
    (g,) = case.ours(x).gradient(x)
    (h,) = (g * g).sum().gradient(x)
    (g2,) = torch.autograd.grad(case.theirs(t), t, create_graph=True)
    (h2,) = torch.autograd.grad((g2 * g2).sum(), t)
    np.testing.assert_allclose(value(g), g2.detach().numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(value(h), h2.numpy(), rtol=2e-3, atol=2e-4)


def test_every_op_has_a_rule_or_is_a_source() -> None:
    sources = {o.name for o in OPS.values() if o.family in ("source", "kernel")} | {"function"}  # which brings its own
    assert set(differentiate.RULES) == set(OPS) - sources
    names = [d.name for d in differentiate.RULES.values()]
    assert len(set(names)) == len(names) and all(n.startswith("d-") for n in names)
    assert all(0 < len(d.reason) <= 90 for d in differentiate.RULES.values())


def test_backward_nodes_are_tied_to_forward_node_line_and_rule() -> None:
    x, w = Tensor(draw((4, 3), -1, 1, 1)), Tensor(draw((3, 2), -1, 1, 2), requires_grad=True)
    loss = (x @ w).relu().sum()
    loss.backward()
    assert w.grad is not None
    graph = Graph([loss.node, w.grad.node])
    check("differentiate", differentiate.SPEC, graph)
    backward = [n for n in graph if n.phase == "backward"]
    assert backward and all(
        n.origin[0].forward in graph.number and n.origin[0].line == loss.node.origin[0].line for n in backward
    )
    rules = {n.origin[0].derivative for n in backward}
    assert {"d-seed", "d-maximum", "d-mul", "d-expand"} <= rules
    assert "d(a b) = b da + a db" in differentiate.explain(graph)
    broken = w.grad.node._replace(origin=(w.grad.node.origin[0]._replace(forward=None),))
    with pytest.raises(AssertionError, match="A backward node names its forward node"):
        check("differentiate", differentiate.SPEC, Graph([broken]))


def test_gradients_accumulate_and_fan_out() -> None:
    x = Tensor([2.0, 3.0], requires_grad=True)
    y = x * x + x
    y.sum().backward()
    y.sum().backward()
    assert x.grad is not None
    np.testing.assert_array_equal(value(x.grad), [10, 14])
    x.grad = None
    (x * 3).backward(Tensor([1.0, 10.0]))
    np.testing.assert_array_equal(value(x.grad), [3, 30])


def test_detach_and_no_grad_stop_gradients() -> None:
    x = Tensor([2.0, 3.0], requires_grad=True)
    (x.detach() * x).sum().backward()
    assert x.grad is not None
    np.testing.assert_array_equal(value(x.grad), [2, 3])
    with no_grad():
        frozen = x * x
        assert not frozen.requires_grad
    x.grad = None
    (frozen * x).sum().backward()
    np.testing.assert_array_equal(value(x.grad), [4, 9])

    @no_grad()
    def inference() -> Tensor:
        return (x * 2).relu()

    y = inference()
    assert not y.requires_grad and "bitcast" not in {
        n.op for n in toposort([y.node])
    }  # a graph of inference only has no extra nodes
    with pytest.raises(RuntimeError, match="detached or made under no_grad"):
        y.sum().backward()


def test_results_without_gradient() -> None:
    x = Tensor([0.5, 1.5], requires_grad=True)
    x.floor().sum().backward()  # piecewise constant: zeros, as in PyTorch
    assert x.grad is not None
    np.testing.assert_array_equal(value(x.grad), [0, 0])
    assert not (x > 1).requires_grad and not x.cast("int32").requires_grad
    with pytest.raises(RuntimeError, match="does not depend on a tensor that requires a gradient"):
        (x > 1).sum().backward()


def test_what_is_refused() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(RuntimeError, match=r"start from a scalar, this has shape \[2\](.|\n)*test_grad.py, line"):
        (x * 2).backward()
    with pytest.raises(RuntimeError, match="does not depend on the target"):
        (x * 2).sum().gradient(Tensor([1.0]))
    with pytest.raises(RuntimeError, match="only float tensors can require gradients, this one is int32"):
        Tensor([1, 2], requires_grad=True)
    with pytest.raises(RuntimeError, match="gradients need a float loss, not int32"):
        i = Tensor([1, 2])
        i.sum().gradient(i)
    with pytest.raises(RuntimeError, match=r"a gradient of shape \[3\]"):
        (x * 2).backward(Tensor([1.0, 1.0, 1.0]))


def test_the_stage_publishes_its_start_and_end() -> None:
    seen: list[hooks.Event] = []
    x = Tensor([1.0, 2.0], requires_grad=True)
    with hooks.subscribed(seen.append, hooks.StageStarted, hooks.StageFinished):
        (x * x).sum().backward()
    assert [(type(e).__name__, e.stage) for e in seen] == [("StageStarted", "differentiate"), ("StageFinished", "differentiate")]  # type: ignore[attr-defined]
    (x * x).sum().backward()
    assert len(seen) == 2


def test_only_what_is_asked_for_is_differentiated() -> None:
    """The gradient by w alone makes no node for the gradient by x."""
    x, w = Tensor(draw((4, 3), -1, 1, 1)), Tensor(draw((3, 2), -1, 1, 2))
    loss = (x @ w).sum()
    (g,) = loss.gradient(w)
    assert sum(n.op == "mul" and n.phase == "backward" for n in toposort([g.node])) == 1


@pytest.mark.parametrize("name", ["sigmoid", "silu", "gelu"])
def test_inside_a_sigmoid_the_exponential_is_not_kept(name: str) -> None:
    """Its gradient needs r alone: exp(a) r^2 is r (1 - r), finite where exp(a) is not."""
    x = Tensor(np.array([-200.0, -3.0, 0.0, 2.0, 200.0], np.float32), requires_grad=True)
    y = x.gelu("tanh") if name == "gelu" else getattr(x, name)()
    y.sum().backward()
    assert x.grad is not None
    readers = [n for n in toposort([x.grad.node]) for s in n.src if s.op in ("exp", "exp2")]
    assert [n.op for n in readers] == ["add"]
    assert np.isfinite(x.grad.numpy()).all()
