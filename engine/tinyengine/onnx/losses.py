"""Losses."""

from __future__ import annotations

from typing import Any

from tinyengine.onnx.registry import op


@op("NegativeLogLikelihoodLoss")
def nll(x: Any, target: Any, weight: Any = None, *, ignore_index: int | None = None, reduction: str = "mean") -> Any:
    counted = target.full_like(1, dtype=x.dtype) if ignore_index is None else (target != ignore_index).cast(x.dtype)
    at = target if ignore_index is None else (target == ignore_index).where(0, target)
    loss = -x.gather(1, at.unsqueeze(1)).squeeze(1)
    factor = counted if weight is None else counted * weight.take(at.flatten()).reshape(at.shape)
    loss = loss * factor
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / factor.sum()


@op("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy(
    scores: Any, labels: Any, weight: Any = None, *, ignore_index: int | None = None, reduction: str = "mean"
) -> Any:
    logs = scores.log_softmax(1)
    return nll(logs, labels, weight, ignore_index=ignore_index, reduction=reduction), logs
