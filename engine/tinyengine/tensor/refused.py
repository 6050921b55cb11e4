"""Names of this vocabulary that the engine does not have: each raises NotImplementedError with the reason and a way round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinyengine.origin import user_line

# method -> why not, and what to do
REFUSED: dict[str, str] = {
    "from_blob": "a tensor's memory belongs to the engine; give Tensor() a numpy.ctypeslib.as_array of the address",
    "qr": "its dependent steps grow with the matrix, too many for a static program; use numpy.linalg.qr(x.numpy())",
    "shard": "there is one device, and nothing to spread over",
    "shard_": "there is one device, and nothing to spread over",
    "shard_like": "there is one device, and nothing to spread over",
    "svd": "it iterates until it converges, and a static program has no such loop; use numpy.linalg.svd(x.numpy())",
}


def _method(name: str, why: str) -> Callable[..., Any]:
    def refuse(self: Any = None, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"Tensor.{name} is not supported: {why}\n  at {user_line()}")

    refuse.__name__ = name
    refuse.__qualname__ = f"Tensor.{name}"
    refuse.__doc__ = f"Raises NotImplementedError: {why}."
    return refuse


class Refused:
    """One method for each entry of REFUSED."""

    __slots__ = ()

    from_blob, qr, shard, shard_, shard_like, svd = (_method(n, w) for n, w in REFUSED.items())


__all__ = ["REFUSED", "Refused"]
