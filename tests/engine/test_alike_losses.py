"""Losses and attention: what PyTorch gives, at the edges too. See `alike` for how forms are read."""

from __future__ import annotations

import pytest

from tests.engine.alike import EVERY, LAYOUTS, Operand, agree, forms_of, on_backends

O = Operand

# {A}: what stands in both calls
LOSSES = """
    x.cross_entropy({A}) :: F.cross_entropy(x, {A}) @ t
    x.cross_entropy({A}) :: F.cross_entropy(x, {A}) @ t, w.detach()
    x.cross_entropy({A}) :: F.cross_entropy(x, {A}) @ t, ignore_index=1
    x.cross_entropy({A}) :: F.cross_entropy(x, {A}) @ t, label_smoothing=0.1
    x.cross_entropy({A}) :: F.cross_entropy(x, {A}) @ t, w.detach(), label_smoothing=0.1
    x.cross_entropy({A}) :: F.cross_entropy(x, {A}) @ t, w.detach(), ignore_index=2, label_smoothing=0.1
    x.cross_entropy({A}) :: F.cross_entropy(x, {A}) @ x.softmax(-1).detach()
    x.cross_entropy({A}) :: F.cross_entropy(x, {A}) @ x.softmax(-1).detach(), w, label_smoothing=0.2
    x.log_softmax(1).nll_loss({A}) :: F.nll_loss(x.log_softmax(1), {A}) @ t
    x.log_softmax(1).nll_loss({A}) :: F.nll_loss(x.log_softmax(1), {A}) @ t, w.detach()
    x.log_softmax(1).nll_loss({A}) :: F.nll_loss(x.log_softmax(1), {A}) @ t, w.detach(), ignore_index=0
    x.sigmoid().binary_crossentropy({A}) :: F.binary_cross_entropy(x.sigmoid(), {A}) @ (x > 0).to(x.dtype)
    x.binary_crossentropy_logits({A}) :: F.binary_cross_entropy_with_logits(x, {A}) @ (x > 0.5).to(x.dtype)
    x.binary_crossentropy_logits({A}) :: F.binary_cross_entropy_with_logits(x, {A}) @ (x > 0).to(x.dtype), pos_weight=x.detach()
    x.mse_loss({A}) :: F.mse_loss(x, {A}) @ x * 2
    x.l1_loss({A}) :: F.l1_loss(x, {A}) @ x * 2
"""
ERRORS = """
    x.cross_entropy(t, label_smoothing=2) :: F.cross_entropy(x, t, label_smoothing=2)
    x.cross_entropy(t.float()) :: F.cross_entropy(x, t.float())
    x.cross_entropy(t[:1]) :: F.cross_entropy(x, t[:1])
    x.cross_entropy(t + 7) :: F.cross_entropy(x, t + 7)
    x.cross_entropy(t - 100) :: F.cross_entropy(x, t - 100)
    x.nll_loss(t - 100) :: F.nll_loss(x, t - 100)
    x.cross_entropy(t, w.detach()[:2]) :: F.cross_entropy(x, t, w.detach()[:2])
"""
LABELS = O((5,), dtype="int64", low=0, high=3)
W = O((4,), low=0.5)
OPERANDS = [
    *[{"x": O((5, 4), k), "t": LABELS, "w": W} for k in LAYOUTS],
    {"x": O((4,)), "t": O((), dtype="int64", low=0, high=3), "w": W},
    {"x": O((2, 4, 3)), "t": O((2, 3), dtype="int64", low=0, high=3), "w": W},
    {"x": O((2, 4, 3, 2)), "t": O((2, 3, 2), dtype="int64", low=0, high=3), "w": W},
    {"x": O((0, 4)), "t": O((0,), dtype="int64", low=0, high=3), "w": W},
    {"x": O((5, 4), dtype="float64"), "t": LABELS, "w": O((4,), low=0.5, dtype="float64")},
]


def loss(form: str, reduction: str) -> str:
    calls, args = form.split(" @ ")
    return calls.replace("{A}", f"{args}, reduction='{reduction}'")


@pytest.mark.parametrize("form", forms_of(LOSSES))
def test_losses(form: str) -> None:
    agree("\n".join(loss(form, r) for r in ("mean", "sum", "none", "foo")), OPERANDS, rtol=2e-5)


@pytest.mark.parametrize("form", forms_of(ERRORS))
def test_wrong_labels(form: str) -> None:
    agree(form, OPERANDS[:1])


# {A}: query, key and value, and what stands in both calls
ATTENTION = """
    k, v
    k, v, is_causal=True
    k, v, m
    k, v, m.float()
    k, v, m, is_causal=True
    k, v, scale=0.3
    k, v, m & False
    k, v, enable_gqa=True
    k, v, is_causal=True, enable_gqa=True
"""
M = O((5, 7), dtype="bool")
HEADS = [
    {"q": O((2, 4, 5, 6)), "k": O((2, 4, 7, 6)), "v": O((2, 4, 7, 3)), "m": M},
    {"q": O((2, 4, 5, 6), "transposed"), "k": O((2, 2, 7, 6), "reversed"), "v": O((2, 2, 7, 3)), "m": M},
    {"q": O((5, 6)), "k": O((7, 6)), "v": O((7, 3)), "m": M},
    {"q": O((2, 4, 5, 6)), "k": O((2, 3, 7, 6)), "v": O((2, 3, 7, 3)), "m": M},
    {"q": O((2, 4, 5, 6)), "k": O((2, 4, 7, 5)), "v": O((2, 4, 7, 3)), "m": M},
]


def attention(args: str) -> str:
    return f"q.scaled_dot_product_attention({args}) :: F.scaled_dot_product_attention(q, {args})"


@pytest.mark.parametrize("args", forms_of(ATTENTION))
def test_attention(args: str) -> None:
    agree(attention(args), HEADS, rtol=2e-5)


def test_on_all_backends() -> None:
    some = [attention(a) for a in forms_of(ATTENTION) if "m, is_causal" not in a and "gqa" not in a]
    on_backends("\n".join(some), HEADS[0])
    on_backends(some[2], HEADS[0], EVERY[2:])
    on_backends("\n".join(loss(f, "mean") for f in forms_of(LOSSES)), OPERANDS[1])


def test_attention_of_nothing() -> None:
    """Queries and keys of no elements: every score is 0, and every row the mean of the values."""
    empty = O((2, 3, 0))
    agree(attention(""), [{"q": empty, "k": empty, "v": O((2, 3, 4))}])
