"""Casts: the same values, or the same bits, as another dtype."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tinyengine import dtypes
from tinyengine.origin import here, user_line
from tinyengine.stages import record
from tinyengine.tensor import core
from tinyengine.tensor.core import make
from tinyengine.tensor.elementwise import Elementwise
from tinyengine.tensor.views import derive

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor


def _backend_of(device: str) -> None:
    from tinyengine.device import Device

    Device.backend(device)


_WHERE = ("device", "non_blocking", "copy", "memory_format")  # keywords of `to` that change no value


def target(what: str, targets: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The dtype among the arguments of `to`, or None. BackendError for an unknown device, TypeError for other keywords."""
    unknown = next((k for k in kwargs if k not in ("dtype", *_WHERE)), None)
    if unknown is not None:
        raise TypeError(f"{what} takes a dtype or a device, no argument {unknown!r}\n  at {user_line()}")
    dtype = kwargs.get("dtype")
    for t in (*targets, kwargs.get("device")):
        if isinstance(t, core.Base):
            dtype = t.dtype
        elif isinstance(t, str) and not dtypes.known(t):
            _backend_of(t)
        elif t is not None and not isinstance(t, bool):
            dtype = t
    return None if dtype is None else core.dtype_of(dtype)


class Casting(Elementwise):
    """Cast methods."""

    __slots__ = ()

    def cast(self, dtype: Any) -> Tensor:
        """The same values as `dtype` (a DType, a name, a NumPy dtype or bool/int/float). Float to int truncates; out of
        range gives the nearest integer, NaN 0. Ints wrap. The 8-bit floats saturate, infinities included."""
        d = core.dtype_of(dtype)
        flow, n = core.operand(self)
        if n.dtype is d:
            return derive(self, n, n, flow)
        return make(record.cast(n, d, here(2)), flow if d.is_float else core.NO_FLOW)

    def bitcast(self, dtype: Any) -> Tensor:
        """The same bits read as another dtype; no gradient. To another size the last axis grows or shrinks, low bytes first
        (torch.Tensor.view(dtype)). RuntimeError when the last axis does not divide, or there is none."""
        d = core.dtype_of(dtype)
        o = here(2)
        n, a, b = self.node, self.dtype.itemsize, d.itemsize
        if a == b:
            return make(record.bitcast(n, d, o), core.NO_FLOW)
        if not n.shape or n.shape[-1] * a % b:
            raise RuntimeError(
                f"bitcast from {self.dtype}{list(n.shape)} to {d}: {a} and {b} bytes, so the last axis must exist and its bytes"
                f" divide by {b}\n  at {user_line()}"
            )
        small, large = dtypes.by_name(f"uint{8 * min(a, b)}"), dtypes.by_name(f"uint{8 * max(a, b)}")
        parts = max(a, b) // min(a, b)
        n = record.bitcast(n, small if a < b else large, o)
        lead = n.shape[:-1]
        wide = (*lead, n.shape[-1] * a // max(a, b), parts)
        shift = record.iota(len(wide) - 1, large, wide, o)
        shift = record.binary("mul", shift, record.const(8 * min(a, b), large, wide, o), o)
        if a < b:
            pieces = record.binary("shl", record.cast(record.reshape(n, wide, o), large, o), shift, o)
            n = record.reshape(record.reduce("sum", pieces, (len(wide) - 1,), o), wide[:-1], o)
        else:
            n = record.expand(record.reshape(n, (*n.shape, 1), o), wide, o)
            mask = record.const(small.max, large, wide, o)
            n = record.cast(record.binary("and", record.binary("shr", n, shift, o), mask, o), small, o)
            n = record.reshape(n, (*lead, wide[-2] * parts), o)
        return make(record.bitcast(n, d, o), core.NO_FLOW)

    def to(self, *targets: Any, **kwargs: Any) -> Tensor:
        """Cast to a dtype, given as such, by name, or as that of a tensor. Names of devices change nothing: memory is the host's
        whatever computes. Keywords as in PyTorch: dtype, device. BackendError for a device that there is not, TypeError for other
        keywords."""
        dtype = target("to", targets, kwargs)
        return derive(self, self.node, self.node, self.flow) if dtype is None else self.cast(dtype)

    def to_(self, *targets: Any, **kwargs: Any) -> Tensor:
        """`to` in place: this tensor becomes the result."""
        new = self.to(*targets, **kwargs)
        if new.dtype is not self.dtype:
            self.flow, self.viewed = new.flow, None
            core.become(self, new.node)
        return self  # type: ignore[return-value]

    def float(self) -> Tensor:
        """As float32."""
        return self.cast(dtypes.float32)

    def double(self) -> Tensor:
        """As float64."""
        return self.cast(dtypes.float64)

    def half(self) -> Tensor:
        """As float16."""
        return self.cast(dtypes.float16)

    def bfloat16(self) -> Tensor:
        """As bfloat16."""
        return self.cast(dtypes.bfloat16)

    def int(self) -> Tensor:
        """As int32."""
        return self.cast(dtypes.int32)

    def long(self) -> Tensor:
        """As int64."""
        return self.cast(dtypes.int64)

    def short(self) -> Tensor:
        """As int16."""
        return self.cast(dtypes.int16)

    def bool(self) -> Tensor:
        """True where not zero."""
        return core.same(self) if self.dtype is dtypes.bool_ else self.ne(0)

    def is_floating_point(self) -> Any:
        """Whether the dtype is a float."""
        return self.dtype.is_float

    def element_size(self) -> Any:
        """Bytes of one element."""
        return self.dtype.itemsize
