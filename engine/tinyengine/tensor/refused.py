"""Names of this vocabulary that the engine does not have: each raises NotImplementedError with the reason and a way round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinyengine.origin import user_line

# method -> why not, and what to do
REFUSED: dict[str, str] = {
    "shard": "the engine computes on one device, so there is nothing to spread a tensor over; leave the call out",
    "shard_": "the engine computes on one device, so there is nothing to spread a tensor over; leave the call out",
    "shard_like": "the engine computes on one device, so there is nothing to spread a tensor over; leave the call out",
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

    shard, shard_, shard_like = (_method(n, w) for n, w in REFUSED.items())


__all__ = ["REFUSED", "Refused"]
