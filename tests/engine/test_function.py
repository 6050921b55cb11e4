"""Functions with a backward of their own: results, gradients of gradients, jit, what is recorded, and what is refused."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from tests.engine.peer import draw, torch, value
from tinyengine import Function, Tensor, autograd, enable_grad, jit, no_grad
from tinyengine.node import Graph, toposort
from tinyengine.spec import check
from tinyengine.stages import differentiate, simplify


class Scaled(Function):
    """exp(k x), its result saved."""

    @staticmethod
    def forward(ctx: Any, x: Any, k: float) -> Any:
        y = (x * k).exp()
        ctx.save_for_backward(y)
        ctx.k = k
        return y

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        (y,) = ctx.saved_tensors
        return g * y * ctx.k, None


class Both(Function):
    """(a b, a + b), arguments and an intermediate saved."""

    @staticmethod
    def forward(ctx: Any, a: Any, b: Any) -> Any:
        half = a * 0.5
        ctx.save_for_backward(a, b, None, half)
        return a * b, a + b

    @staticmethod
    def backward(ctx: Any, gp: Any, gs: Any) -> Any:
        a, b, nothing, half = ctx.saved_tensors
        assert nothing is None and half.shape == a.shape
        return gp * b + gs, gp * a + gs if ctx.needs_input_grad[1] else None


class Straight(Function):
    """round, with the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x.round()

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g


def theirs(cls: type) -> Any:
    """The same class for PyTorch."""
    parts = {name: cls.__dict__[name] for name in ("forward", "backward")}
    return type(cls.__name__, (torch.autograd.Function,), parts)


def test_values_and_gradients_of_both_orders_agree_with_torch() -> None:
    a, b = draw((3, 4), 0.2, 1.0, 1), draw((3, 4), 0.2, 1.0, 2)
    mine, peer = (Scaled, Both, Straight), tuple(theirs(c) for c in (Scaled, Both, Straight))

    def f(fs: Any, x: Any, y: Any) -> Any:
        p, s = fs[1].apply(fs[0].apply(x, 2.0), y)
        return (p * s.sin() + fs[2].apply(y * 3) * x).sum()

    x, y = Tensor(a), Tensor(b)
    tx, ty = torch.tensor(a, requires_grad=True), torch.tensor(b, requires_grad=True)
    loss, peer_loss = f(mine, x, y), f(peer, tx, ty)
    assert value(loss) == pytest.approx(peer_loss.item(), rel=1e-5)
    gs = loss.gradient(x, y)
    ts = torch.autograd.grad(peer_loss, (tx, ty), create_graph=True)
    for g, t in zip(gs, ts, strict=True):
        np.testing.assert_allclose(value(g), t.detach().numpy(), rtol=1e-4)
    seconds = sum((g * g).sum() for g in gs).gradient(x, y)
    peers = torch.autograd.grad(sum((t * t).sum() for t in ts), (tx, ty))
    for g, t in zip(seconds, peers, strict=True):
        np.testing.assert_allclose(value(g), t.numpy(), rtol=1e-3)


def test_backward_is_called_once_and_gets_zeros_for_what_is_unused() -> None:
    calls: list[Any] = []

    class Three(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Any:
            return x * 2, x * 3, "word"

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            calls.append(grads)
            return grads[0] * 2 + grads[1] * 3

    x = Tensor([1.0, 2.0], requires_grad=True)
    a, b, word = Three.apply(x)
    assert word == "word"
    (a * a + b.exp() * 0).sum().backward()
    np.testing.assert_allclose(value(x.grad), 4 * np.array([2.0, 4.0]))  # type: ignore[arg-type]
    assert len(calls) == 1 and calls[0][2] is None
    x.grad = None
    b.sum().backward()
    np.testing.assert_array_equal(value(x.grad), [3, 3])  # type: ignore[arg-type]
    np.testing.assert_array_equal(value(calls[1][0]), [0, 0])


def test_without_materialized_gradients_there_is_none() -> None:
    seen: list[Any] = []

    class Two(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Any:
            ctx.set_materialize_grads(False)
            return x * 2, x * 3

        @staticmethod
        def backward(ctx: Any, g: Any, h: Any) -> Any:
            seen.append(h)
            return g * 2

    x = Tensor([1.0], requires_grad=True)
    Two.apply(x)[0].sum().backward()
    assert seen == [None]


def test_setup_context_non_differentiable_results_and_needs_input_grad() -> None:
    class Top(Function):
        @staticmethod
        def forward(x: Tensor, y: Tensor) -> Any:
            return x * y, x * 1.0, x > 0

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            assert ctx.needs_input_grad == (True, False)
            ctx.save_for_backward(*inputs)
            ctx.mark_non_differentiable(output[1])

        @staticmethod
        def backward(ctx: Any, g: Any, h: Any, m: Any) -> Any:
            assert ctx.needs_input_grad == (True, False)
            return g * ctx.saved_tensors[1], None

    x, y = Tensor([1.0, -2.0], requires_grad=True), Tensor([3.0, 4.0])
    p, same, positive = Top.apply(x, y)
    assert p.requires_grad and not same.requires_grad and not positive.requires_grad
    (p + same * 5).sum().backward()
    np.testing.assert_array_equal(value(x.grad), [3, 4])  # type: ignore[arg-type]


def test_forward_may_leave_the_graph() -> None:
    class Numpy(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return Tensor(np.sinc(x.numpy()))

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return g * Tensor(x.numpy() * 7)

    x = Tensor([0.5, 1.5], requires_grad=True)
    Numpy.apply(x * 2).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [14, 42])  # type: ignore[union-attr]


def test_inside_jit_with_a_training_step() -> None:
    a = draw((4, 3), -1, 1, 3)
    w = Tensor(np.ones((3, 3), np.float32), requires_grad=True)

    @jit
    def step(x: Tensor) -> Tensor:
        w.grad = None
        loss = Scaled.apply(x @ w, 0.5).mean()
        loss.backward()
        with no_grad():
            w.assign(w - w.grad * 0.1)  # type: ignore[operator]
        return loss

    t = torch.ones((3, 3), requires_grad=True)
    for _ in range(3):
        loss = (torch.tensor(a) @ t * 0.5).exp().mean()
        (g,) = torch.autograd.grad(loss, t)
        assert step(Tensor(a)).item() == pytest.approx(loss.item(), rel=1e-5)
        t = (t - 0.1 * g).detach().requires_grad_()
    np.testing.assert_allclose(w.numpy(), t.detach().numpy(), rtol=1e-5)


def test_what_was_saved_is_not_changed_by_an_update() -> None:
    w = Tensor([1.0, 2.0], requires_grad=True)
    y = Scaled.apply(w, 1.0)
    p = Both.apply(w, Tensor([1.0, 1.0]))[0]
    with no_grad():
        w += 1
    w.realize()
    np.testing.assert_allclose(y.numpy(), np.exp([1.0, 2.0]), rtol=1e-6)
    np.testing.assert_allclose(p.numpy(), [1, 2])


def test_the_stage_shows_the_class_its_lines_and_the_call() -> None:
    x = Tensor([0.5, 1.0])
    y = Scaled.apply(x, 2.0)
    (g,) = y.sum().gradient(x)
    graph = Graph([y.node, g.node])
    check("differentiate", differentiate.SPEC, graph)
    mine = [n for n in graph if n.origin[0].derivative == "d-Scaled"]
    assert mine and all(n.origin[0].forward.op == "function" for n in mine)
    lines = [f.text for f in mine[0].origin[0].frames]
    assert "return g * y * ctx.k, None" in lines and "y = Scaled.apply(x, 2.0)" in lines
    assert os.path.basename(mine[0].origin[0].file) == "test_function.py"
    assert "d-Scaled of function" in differentiate.explain(graph) and "the backward of Scaled" in differentiate.explain(graph)
    assert "function(" in graph.text() and "Scaled" in graph.text()
    assert "function" not in {n.op for n in simplify.run(graph)[0]}, "it costs nothing"


def test_what_is_refused() -> None:
    class Wrong(Function):
        answer: Any = None

        @staticmethod
        def forward(ctx: Any, x: Tensor, k: int) -> Tensor:
            return x * k

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return Wrong.answer(g)

    class NoBackward(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 1

    x = Tensor([1.0, 2.0], requires_grad=True)
    for answer, error, text in (
        (lambda g: g, RuntimeError, "returned 1 gradients for 2 arguments"),
        (lambda g: (g, g), RuntimeError, "argument 1, which is no tensor"),
        (lambda g: (g.reshape(2, 1).expand(2, 3), None), RuntimeError, r"shape \[2, 3\] for argument 0 of shape \[2\]"),
        (lambda g: (3.0, None), TypeError, "returned float for argument 0"),
    ):
        Wrong.answer = answer
        with pytest.raises(error, match=rf"{text}(.|\n)*Wrong.apply"):
            Wrong.apply(x, 2).sum().backward()
    Wrong.answer = lambda g: (g.reshape(1, 2).expand(3, 2), None, None)  # summed to the shape; more Nones are allowed
    Wrong.apply(x, 2).sum().backward()
    np.testing.assert_array_equal(value(x.grad), [3, 3])  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError, match=r"static method backward(.|\n)*test_function.py"):
        NoBackward.apply(x).sum().backward()
    with pytest.raises(NotImplementedError, match="static method forward"):
        Function.apply(x)


# ---- grad modes, accumulation, ends of the way


def test_grad_modes_nest_and_decorate() -> None:
    x = Tensor([1.0], requires_grad=True)

    @no_grad
    def plain(t: Tensor) -> Tensor:
        return t * 2

    with no_grad():
        assert not (x * 2).requires_grad
        with enable_grad():
            assert (x * 2).requires_grad
        assert not (x * 2).requires_grad
    assert not plain(x).requires_grad and (x * 2).requires_grad
    with pytest.raises(TypeError, match="cannot decorate the generator"):

        @no_grad()
        def numbers() -> Any:
            yield 1


def test_graphs_are_kept_and_gradients_add_up() -> None:
    x = Tensor([2.0, 3.0], requires_grad=True)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_array_equal(value(x.grad), [8, 12])  # type: ignore[arg-type]
    x.grad = None
    (x**3).sum().backward(create_graph=True)
    g = x.grad
    x.grad = None
    assert g is not None and g.requires_grad
    g.sum().backward()
    np.testing.assert_allclose(value(x.grad), [12, 18], rtol=1e-5)  # type: ignore[arg-type]
    z = Tensor([1.0, 1.0], requires_grad=True)
    x.grad = None
    (x * z).sum().backward(inputs=[z])
    assert x.grad is None and z.grad is not None


def test_grad_as_a_function() -> None:
    x, unused = Tensor([2.0], requires_grad=True), Tensor([1.0], requires_grad=True)
    (g,) = autograd.grad((x**3).sum(), x, create_graph=True)
    (h,) = autograd.grad(g, [x], grad_outputs=Tensor([2.0]))
    assert value(h) == pytest.approx(24) and not h.requires_grad
    with pytest.raises(RuntimeError, match="input 1 is not part of the outputs"):
        autograd.grad(x.sum(), [x, unused])
    assert autograd.grad(x.sum(), [x, unused], allow_unused=True)[1] is None


def test_an_end_of_the_way_is_named() -> None:
    x = Tensor([2.0, 3.0], requires_grad=True)
    with pytest.raises(RuntimeError, match=r"ends at lt \(test_function.py:\d+ forward: y = \(x > 1\)\.float\(\)\)"):
        y = (x > 1).float()
        y.sum().backward()


def test_a_leaf_is_not_updated_in_place_outside_no_grad() -> None:
    w = Tensor([1.0, 2.0], requires_grad=True)
    for wrong in (lambda: w.__iadd__(1), lambda: w.__setitem__(0, 5.0), lambda: w.__imul__(2)):
        with pytest.raises(RuntimeError, match="in place: a leaf that requires a gradient"):
            wrong()
    with no_grad():
        w += 1
        w[0] = 7
    np.testing.assert_array_equal(w.numpy(), [7, 3])
    assert w.requires_grad and w.is_leaf


def test_an_update_in_place_is_differentiated() -> None:
    a = draw((3, 4), 0.5, 1.0, 5)
    x, t = Tensor(a, requires_grad=True), torch.tensor(a, requires_grad=True)

    def f(x: Any) -> Any:
        y = x * 2
        y += x
        y[0] = y[1].clone() * x[2]
        y[:, 1:3] *= x[:, :2]
        row = y[2]
        row += x[0].sin()
        y.T[1] *= 3
        return (y * y).sum()

    f(x).backward()
    f(t).backward()
    np.testing.assert_allclose(value(x.grad), t.grad.numpy(), rtol=1e-5)  # type: ignore[arg-type]


def test_an_update_of_a_computed_value_is_differentiated() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    y = (x * 2).realize()
    y += x
    (y * y).sum().backward()
    np.testing.assert_allclose(value(x.grad), 2 * 3 * np.array([3.0, 6.0]))  # type: ignore[arg-type]


CHAIN: dict[str, Any] = {
    "exp": lambda x: (x * 0.3).exp(), "log": lambda x: (x * x + 1).log(), "sin": lambda x: x.sin(), "tanh": lambda x: x.tanh(),
    "sqrt": lambda x: (x * x + 1).sqrt(), "div": lambda x: x / (x * x + 2), "recip": lambda x: 1 / (x * x + 1),
    "matmul": lambda x: x @ x.transpose(0, 1) @ x * 0.1, "softmax": lambda x: x.softmax(-1) * x,
    "prod": lambda x: x * x.prod(1, True),
    "sum": lambda x: x * x.sum(0, True), "slice": lambda x: x[:, ::2].sum(1, True) * x, "pow": lambda x: (x * x + 1) ** 1.5,
    "where": lambda x: (x.tanh() * (x > 0) + x.sin() * (x <= 0)) * x, "flip": lambda x: x.flip((0,)) * x,
    "sigmoid": lambda x: x.sigmoid(),
    "max": lambda x: x * x.amax(1, True), "permute": lambda x: x.transpose(0, 1).reshape(x.shape) * x,
}  # fmt: skip


@pytest.mark.parametrize("seed", range(16))
def test_gradients_of_gradients_of_compositions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = rng.choice(list(CHAIN), 3)

    def f(x: Any) -> Any:
        for n in names:
            x = CHAIN[str(n)](x)
        return x.sum()

    a = draw((3, 4), 0.3, 1.2, seed)
    x, t = Tensor(a), torch.tensor(a, dtype=torch.float64, requires_grad=True)
    (g,) = f(x).gradient(x)
    (h,) = (g * g).sum().gradient(x)
    (tg,) = torch.autograd.grad(f(t), t, create_graph=True)
    (th,) = torch.autograd.grad((tg * tg).sum(), t)
    for got, want in ((g, tg), (h, th)):
        w = want.detach().numpy()
        np.testing.assert_allclose(value(got), w, rtol=2e-3, atol=2e-4 * max(1, np.abs(w).max()), err_msg=" ".join(names))


def test_a_used_operand_gets_no_gradient_through_a_closure() -> None:
    """What forward takes from outside is no argument: no gradient flows to it, as in PyTorch."""
    w = Tensor([2.0], requires_grad=True)

    class Closed(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * w

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return g * 2

    x = Tensor([1.0], requires_grad=True)
    y = Closed.apply(x)
    (g,) = y.sum().gradient(x)
    assert value(g) == 2 and "function" in {n.op for n in toposort([y.node])}
