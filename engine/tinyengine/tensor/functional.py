"""What networks are made of beyond products: normalisation, losses, attention. Formulas and defaults are PyTorch's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyengine import dtypes
from tinyengine.origin import user_line
from tinyengine.tensor import core
from tinyengine.tensor.elementwise import choose
from tinyengine.tensor.movement import triangle
from tinyengine.tensor.sorting import Sorting

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor

REDUCTIONS = ("mean", "sum", "none")


def reduced(loss: Tensor, reduction: str) -> Tensor:
    """The mean, the sum, or each loss."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"{reduction!r} is not a reduction: {', '.join(REDUCTIONS)}\n  at {user_line()}")
    return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss


def _known(t: Any) -> np.ndarray[Any, Any] | None:
    """The values of a tensor that is computed already, else None (an input of a jitted function has none while it is traced)."""
    values = t.node.arg.values if t.node.op == "buffer" and t.node.arg.array is not None else None
    return None if values is None else values.reshape(t.shape)


class Functional(Sorting):
    """Layers and losses without state."""

    __slots__ = ()

    def sequential(self, layers: Sequence[Callable[[Any], Any]]) -> Tensor:
        """Each layer applied to the result of the one before."""
        x: Any = self
        for f in layers:
            x = f(x)
        return x  # type: ignore[no-any-return]

    def layernorm(self, dim: Any = -1, eps: float = 1e-5) -> Tensor:
        """(x - mean) / sqrt(variance + eps) over `dim`, with the biased variance."""
        d = self - self.mean(dim, keepdim=True)
        return d * ((d * d).mean(dim, keepdim=True) + eps).rsqrt()

    def batchnorm(self, weight: Any, bias: Any, mean: Tensor, invstd: Tensor, dim: int = 1) -> Tensor:
        """(x - mean) * invstd * weight + bias, per channel `dim`."""
        shape = [s if k == dim else 1 for k, s in enumerate(self.shape)]
        x = (self - mean.reshape(shape)) * invstd.reshape(shape)
        x = x if weight is None else x * weight.reshape(shape)
        return x if bias is None else x + bias.reshape(shape)

    def normalize(self, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
        """x / max(norm, eps)."""
        norm = (self * self).sum(dim, keepdim=True).sqrt() if p == 2 else (self.abs() ** p).sum(dim, keepdim=True) ** (1 / p)
        return self / norm.maximum(eps)

    def scaled_dot_product_attention(
        self,
        key: Tensor,
        value: Tensor,
        attn_mask: Any = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
    ) -> Tensor:
        """softmax(q k^T * scale + mask) v for q (..., L, E), k (..., S, E), v (..., S, V). A bool mask keeps where it is true."""
        scores = self.matmul(key.mT) * (scale if scale is not None else 1 / math.sqrt(self.shape[-1]))
        if is_causal:
            if attn_mask is not None:
                raise RuntimeError(f"attention: give attn_mask or is_causal, not both\n  at {user_line()}")
            attn_mask = triangle(scores.shape[-2], scores.shape[-1], 0, upper=False)
        if attn_mask is not None:
            scores = choose(attn_mask, scores, -math.inf) if attn_mask.dtype is dtypes.bool_ else scores + attn_mask
        return scores.softmax(-1).dropout(dropout_p).matmul(value)

    # Losses.
    def _classes(self, what: str, target: Any) -> tuple[Any, Any]:
        """(self, target) with the class axis last, checked: target holds class numbers, one for each row."""
        if not isinstance(target, core.Base):
            target = core._cls(target)
        x = self if self.ndim <= 2 else self.permute([0, *range(2, self.ndim), 1])
        if not target.dtype.is_int:
            known = _known(target)
            nan = (
                ""
                if known is None or not np.isnan(known).any()
                else f" (element {int(np.isnan(known).reshape(-1).argmax())} is NaN)"
            )
            raise RuntimeError(
                f"{what}: labels are class numbers of an int dtype, got {target.dtype}{list(target.shape)}{nan};"
                f" or probabilities of shape {list(self.shape)}\n  at {user_line()}"
            )
        if target.shape != x.shape[:-1]:
            raise ValueError(
                f"{what}: expected labels of shape {list(x.shape[:-1])} for input of shape {list(self.shape)},"
                f" got {list(target.shape)}\n  at {user_line()}"
            )
        known = _known(target)
        if known is not None and known.size and not (known.min() >= 0 and known.max() < x.shape[-1]):
            bad = int(((known < 0) | (known >= x.shape[-1])).reshape(-1).argmax())
            raise IndexError(
                f"{what}: label {known.reshape(-1)[bad]} at position {bad} is out of range, there are {x.shape[-1]} classes\n"
                f"  at {user_line()}"
            )
        return x, target

    def nll_loss(self, target: Any, weight: Any = None, ignore_index: int | None = None, reduction: str = "mean") -> Tensor:
        """-self[row, label] for log-probabilities (N, C) or (C,) or (N, C, d...) and labels. `weight` (C,): one factor per class;
        the mean divides by the sum of factors. `ignore_index`: labels that do not count (None: there are none; PyTorch's default
        is -100). A label out of range raises IndexError: at once when the labels are computed already, else when the loss is."""
        if reduction not in REDUCTIONS:
            raise ValueError(f"{reduction!r} is not a reduction: {', '.join(REDUCTIONS)}\n  at {user_line()}")
        counts = None
        if ignore_index is not None:
            target = target if isinstance(target, core.Base) else core._cls(target)
            counts = target != ignore_index
            target = choose(counts, target, 0)
        x, target = self._classes("nll_loss", target)
        loss = x.gather(x.ndim - 1, target.unsqueeze(-1)).squeeze(-1).neg()
        factor = None if weight is None else weight.take(target.flatten(), 0).reshape(target.shape)
        if counts is not None:
            ones = counts.cast(loss.dtype)
            factor = ones if factor is None else factor * ones
        if factor is None:
            return reduced(loss, reduction)
        loss = loss * factor
        return loss.sum() / factor.sum() if reduction == "mean" else reduced(loss, reduction)

    def cross_entropy(
        self,
        target: Any,
        weight: Any = None,
        ignore_index: int | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """The loss of logits (N, C), (C,) or (N, C, d...) against class numbers (N,) or probabilities of the same shape as the
        logits. RuntimeError for labels of another dtype, ValueError for a wrong shape, IndexError for a class that does not
        exist."""
        if not 0 <= label_smoothing <= 1:
            raise RuntimeError(f"cross_entropy: label_smoothing is between 0 and 1, not {label_smoothing}\n  at {user_line()}")
        if not self.dtype.is_float or not self.ndim:
            raise RuntimeError(
                f"cross_entropy: logits are floats of shape (N, C), got {self.dtype}{list(self.shape)}\n  at {user_line()}"
            )
        target = target if isinstance(target, core.Base) else core._cls(target)
        channel = 1 if self.ndim > 1 else 0
        logp = self.log_softmax(channel)
        if target.dtype.is_float and target.shape == self.shape:
            known = _known(target)
            if known is not None and np.isnan(known).any():
                at = np.unravel_index(int(np.isnan(known).argmax()), known.shape)
                raise ValueError(f"cross_entropy: the label probability at {tuple(map(int, at))} is NaN\n  at {user_line()}")
            if label_smoothing:
                target = target * (1 - label_smoothing) + label_smoothing / self.shape[channel]
            terms = logp * target
            if weight is not None:
                terms = terms * weight.reshape([-1 if d == channel else 1 for d in range(self.ndim)])
            loss = terms.sum(channel).neg()
            return loss.sum() * (self.shape[channel] / self.numel()) if reduction == "mean" else reduced(loss, reduction)
        loss = logp.nll_loss(target, weight, ignore_index, reduction)
        if not label_smoothing:
            return loss
        if weight is not None or ignore_index is not None:
            raise NotImplementedError(f"cross_entropy: label_smoothing together with weight or ignore_index\n  at {user_line()}")
        smooth = reduced(logp.mean(channel).neg(), reduction)
        return loss * (1 - label_smoothing) + smooth * label_smoothing

    def sparse_categorical_crossentropy(self, labels: Any, label_smoothing: float = 0.0, reduction: str = "mean") -> Tensor:
        """`cross_entropy` of class numbers along the last axis."""
        y: Any = labels if isinstance(labels, core.Base) else core._cls(labels)
        return self.reshape(-1, self.shape[-1]).cross_entropy(y.flatten(), reduction=reduction, label_smoothing=label_smoothing)

    def binary_crossentropy(self, target: Any, reduction: str = "mean") -> Tensor:
        """-(y log p + (1 - y) log(1 - p)), each logarithm at least -100."""
        a, b = self.log().maximum(-100.0), (1 - self).log().maximum(-100.0)
        return reduced((target * a + (1 - target) * b).neg(), reduction)

    def binary_crossentropy_logits(self, target: Any, reduction: str = "mean") -> Tensor:
        """The same of logits, without overflow."""
        return reduced(self.softplus() - self * target, reduction)

    def mse_loss(self, target: Any, reduction: str = "mean") -> Tensor:
        """The squared difference."""
        d = self - target
        return reduced(d * d, reduction)

    def l1_loss(self, target: Any, reduction: str = "mean") -> Tensor:
        return reduced((self - target).abs(), reduction)


__all__ = ["Functional"]
