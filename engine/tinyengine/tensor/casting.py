"""Casts: the same values, or the same bits, as another dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinyengine import dtypes
from tinyengine.origin import here, user_line
from tinyengine.stages import record
from tinyengine.tensor import core
from tinyengine.tensor.core import make
from tinyengine.tensor.elementwise import Elementwise

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor


class Casting(Elementwise):
    """Cast methods."""

    __slots__ = ()

    def cast(self, dtype: Any) -> Tensor:
        """The same values as `dtype` (a DType, a name, a NumPy dtype or bool/int/float). Float to int truncates."""
        d = core.dtype_of(dtype)
        flow, n = core.operand(self)
        return make(record.cast(n, d, here(2)), flow if d.is_float else core.NO_FLOW)

    def bitcast(self, dtype: Any) -> Tensor:
        """The same bits read as another dtype of the same size. No gradient. RuntimeError when the sizes differ."""
        d = core.dtype_of(dtype)
        if d.itemsize != self.dtype.itemsize:
            raise RuntimeError(
                f"bitcast from {self.dtype} to {d}: the sizes differ ({self.dtype.itemsize} and {d.itemsize} bytes)\n"
                f"  at {user_line()}"
            )
        return make(record.bitcast(self.node, d, here(2)), core.NO_FLOW)

    def to(self, target: Any) -> Tensor:
        """A dtype casts; a device name is accepted, for there is one device."""
        if isinstance(target, str) and target.split(":")[0].lower() in ("cpu", "llvm", "clang"):
            return make(self.node, self.flow)
        return self.cast(target)

    def float(self) -> Tensor:
        return self.cast(dtypes.float32)

    def double(self) -> Tensor:
        return self.cast(dtypes.float64)

    def half(self) -> Tensor:
        return self.cast(dtypes.float16)

    def int(self) -> Tensor:
        return self.cast(dtypes.int32)

    def long(self) -> Tensor:
        return self.cast(dtypes.int64)

    def short(self) -> Tensor:
        return self.cast(dtypes.int16)

    def bool(self) -> Tensor:
        """True where not zero."""
        return make(self.node, self.flow) if self.dtype is dtypes.bool_ else self.ne(0)

    def is_floating_point(self) -> Any:
        return self.dtype.is_float

    def element_size(self) -> Any:
        """Bytes of one element."""
        return self.dtype.itemsize
