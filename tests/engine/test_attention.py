"""Attention and the encoder's layer as layers, RMSprop and Adagrad: PyTorch's parameters, values, gradients and steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.engine.peer import draw, torch, value
from tests.engine.test_nn import twin
from tinyengine import Tensor, nn, optim, state

LATER = np.triu(np.ones((3, 3), bool), 1)
CALLS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"batch_first": True}, {"attn_mask": LATER, "average_attn_weights": False}),
    ({"bias": False}, {"attn_mask": draw((8, 3, 3), -1, 1, 5)}),
    ({"batch_first": True}, {"attn_mask": LATER, "need_weights": False, "is_causal": True}),
    ({}, {"key_padding_mask": np.array([[False, False, True]] * 2), "attn_mask": np.eye(3)[::-1] > 0}),
]


def masks(options: dict[str, Any], make: Any) -> dict[str, Any]:
    return {k: make(v.copy()) if isinstance(v, np.ndarray) else v for k, v in options.items()}


def same_gradients(ours: Any, theirs: Any) -> None:
    for p, q in zip(state.get_parameters(ours), theirs.parameters(), strict=True):
        np.testing.assert_allclose(value(p.grad), q.grad.numpy(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("number", range(len(CALLS)))
def test_attention_is_pytorchs(number: int, batched: bool) -> None:
    made, options = CALLS[number]
    if not batched:
        options = {k: v for k, v in options.items() if k != "key_padding_mask"}
        options = {k: v[:4] if np.shape(v) == (8, 3, 3) else v for k, v in options.items()}
    n = 2 if made.get("batch_first") else 3
    shape = (n, 5 - n, 8) if batched else (3, 8)
    ours, theirs = nn.MultiheadAttention(8, 4, **made), torch.nn.MultiheadAttention(8, 4, **made)
    twin(ours, theirs)
    arrays = [draw(shape, -1, 1, k) for k in range(3)]
    y, w = ours(*map(Tensor, arrays), **masks(options, Tensor))
    ty, tw = theirs(*map(torch.tensor, arrays), **masks(options, torch.tensor))
    np.testing.assert_allclose(value(y), ty.detach().numpy(), atol=1e-5)
    assert (w is None) == (tw is None)
    if w is not None:
        np.testing.assert_allclose(value(w), tw.detach().numpy(), atol=1e-5)
    (y * y).sum().backward()
    (ty * ty).sum().backward()
    same_gradients(ours, theirs)


@pytest.mark.parametrize("options", [{}, {"norm_first": True, "batch_first": True, "activation": "gelu"}])
def test_the_encoders_layer_is_pytorchs(options: dict[str, Any]) -> None:
    ours = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, **options)
    theirs = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, **options)
    twin(ours, theirs)
    a = draw((3, 3, 8), -1, 1, 1)
    y, t = ours(Tensor(a), Tensor(LATER)), theirs(torch.tensor(a), torch.tensor(LATER))
    np.testing.assert_allclose(value(y), t.detach().numpy(), atol=1e-5)
    (y * y).sum().backward()
    (t * t).sum().backward()
    same_gradients(ours, theirs)


def test_what_attention_refuses() -> None:
    with pytest.raises(ValueError, match=r"8 features do not divide into 3 heads\n  at .*test_attention"):
        nn.MultiheadAttention(8, 3)
    x = Tensor(np.zeros((2, 3, 7), np.float32))
    with pytest.raises(RuntimeError, match=r"takes \(.., 8\) three times, got \[2, 3, 7\]"):
        nn.MultiheadAttention(8, 2)(x, x, x)
    with pytest.raises(ValueError, match=r"'relu' or 'gelu', not 'tanh'"):
        nn.TransformerEncoderLayer(8, 2, activation="tanh")


OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("RMSprop", {}),
    ("RMSprop", {"alpha": 0.9, "momentum": 0.5, "weight_decay": 0.1}),
    ("Adagrad", {"weight_decay": 0.1}),
]


@pytest.mark.parametrize("name, options", OPTIMIZERS)
def test_optimizers_take_pytorchs_steps(name: str, options: dict[str, Any]) -> None:
    a = draw((3, 4), -1, 1, 1)
    x, t = Tensor(a, requires_grad=True), torch.tensor(a, requires_grad=True)
    ours, theirs = getattr(optim, name)([x], **options), getattr(torch.optim, name)([t], **options)
    for _ in range(3):
        for o, p in ((ours, x), (theirs, t)):
            o.zero_grad()
            (p.sin() * 3).sum().backward()
            o.step()
        np.testing.assert_allclose(x.numpy(), t.detach().numpy(), atol=1e-5)


def test_losses_take_their_arguments_by_place_and_say_which_they_know() -> None:
    a, y, w = draw((4, 3), -1, 1, 1), np.array([0, 2, 1, 1]), np.float32([1, 2, 3])
    ours = nn.CrossEntropyLoss(Tensor(w), label_smoothing=0.1)(Tensor(a), Tensor(y.astype(np.int32)))
    theirs = torch.nn.CrossEntropyLoss(torch.tensor(w), label_smoothing=0.1)(torch.tensor(a), torch.tensor(y))
    np.testing.assert_allclose(value(ours), theirs.numpy(), rtol=1e-5)
    with pytest.raises(TypeError, match=r"CrossEntropyLoss\(.*label_smoothing.*'smoothing'\n  at .*test_attention"):
        nn.CrossEntropyLoss(smoothing=0.1)
