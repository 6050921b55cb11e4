"""Losses. Formulas, defaults and the dtypes that they take are PyTorch's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tinyengine.origin import user_line
from tinyengine.tensor import core
from tinyengine.tensor.elementwise import choose
from tinyengine.tensor.sorting import Sorting
from tinyengine.tensor.symbolic import valued, whole

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
    return None if values is None else valued(values.reshape(whole(t.shape)), t.shape)


class Losses(Sorting):
    """Losses: `reduction` is 'mean', 'sum' or 'none' (ValueError for others)."""

    __slots__ = ()

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
        if weight is not None and weight.shape != x.shape[-1:]:
            raise RuntimeError(
                f"nll_loss: weights are one for each of the {x.shape[-1]} classes, got {list(weight.shape)}\n  at {user_line()}"
            )
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
            return reduced(loss, reduction)
        loss = logp.nll_loss(target, weight, ignore_index, reduction)
        if not label_smoothing:
            return loss
        # the smooth part: the mean over all classes, weighted, of every label that counts
        terms = logp if weight is None else logp * weight.reshape([-1 if d == channel else 1 for d in range(self.ndim)])
        smooth = terms.sum(channel).neg() * float(1 / self.shape[channel])
        if ignore_index is not None:
            smooth = choose(target != ignore_index, smooth, 0.0)
        if reduction == "mean" and (weight is not None or ignore_index is not None):
            counted = smooth.detach().full_like(1.0)
            if ignore_index is not None:
                counted = choose(target != ignore_index, counted, 0.0)
            if weight is not None:
                safe = target if ignore_index is None else choose(target != ignore_index, target, 0)
                counted = counted * weight.take(safe.flatten(), 0).reshape(target.shape)
            smooth = smooth.sum() / counted.sum()
        else:
            smooth = reduced(smooth, reduction)
        return loss * (1 - label_smoothing) + smooth * label_smoothing

    def sparse_categorical_crossentropy(
        self, labels: Any, ignore_index: int = -1, label_smoothing: float = 0.0, reduction: str = "mean"
    ) -> Tensor:
        """`cross_entropy` of class numbers along the last axis; those equal to `ignore_index` do not count."""
        y: Any = labels if isinstance(labels, core.Base) else core._cls(labels)
        loss = self.reshape(-1, self.shape[-1]).cross_entropy(y.flatten(), None, ignore_index, reduction, label_smoothing)
        return loss.reshape(y.shape) if reduction == "none" else loss

    def binary_crossentropy(self, target: Any, reduction: str = "mean") -> Tensor:
        """-(y log p + (1 - y) log(1 - p)), each logarithm at least -100. ValueError when the shapes differ."""
        self._same_shape("binary_crossentropy", target)
        if isinstance(target, core.Base) and target.dtype is not self.dtype:
            raise RuntimeError(
                f"binary_crossentropy: labels of {target.dtype} for input of {self.dtype}; cast one of them\n  at {user_line()}"
            )
        a, b = self.log().maximum(-100.0), (1 - self).log().maximum(-100.0)
        return reduced((target * a + (1 - target) * b).neg(), reduction)

    def binary_crossentropy_logits(self, target: Any, reduction: str = "mean", pos_weight: Any = None) -> Tensor:
        """The same of logits, without overflow: max(x, 0) - x y + log(1 + exp(-|x|)). `pos_weight`: the factor of y = 1."""
        self._same_shape("binary_crossentropy_logits", target)
        if pos_weight is None:
            return reduced(self.softplus() - self * target, reduction)
        factor = (pos_weight - 1) * target + 1
        return reduced((1 - target) * self + factor * self.neg().softplus(), reduction)

    def _same_shape(self, what: str, target: Any) -> None:
        if isinstance(target, core.Base) and target.shape != self.shape:
            raise ValueError(f"{what}: labels {list(target.shape)} for input {list(self.shape)}\n  at {user_line()}")

    def mse_loss(self, target: Any, reduction: str = "mean") -> Tensor:
        """The squared difference: its mean, its sum, or with reduction 'none' one for each element."""
        d = self - target
        return reduced(d * d, reduction)

    def l1_loss(self, target: Any, reduction: str = "mean") -> Tensor:
        """The absolute difference: its mean, its sum, or with reduction 'none' one for each element."""
        return reduced((self - target).abs(), reduction)


__all__ = ["Losses"]
