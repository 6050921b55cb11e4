"""The arguments of a compiled function: a hashable form of their structure, and their tensors in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tinyengine import origin
from tinyengine.size import Size, SizeError


class JitError(RuntimeError):
    """The traced function did what a compiled program cannot do; the message says what, and on which line."""


def signature(x: Any, leaves: list[Any], tensor: type, sizes: list[Size]) -> Any:
    """A hashable form of an argument; its tensors go to `leaves` in order, its symbolic sizes, of which only the variables count,
    to `sizes`."""
    if isinstance(x, tensor):
        leaves.append(x)
        sizes += [d for d in x.shape if type(d) is not int]  # type: ignore[attr-defined]
        return ("tensor", x.shape, x.dtype.name)  # type: ignore[attr-defined]
    if isinstance(x, (tuple, list)):
        return (type(x).__name__, *(signature(i, leaves, tensor, sizes) for i in x))
    if isinstance(x, dict):
        return ("dict", *((k, signature(v, leaves, tensor, sizes)) for k, v in x.items()))
    if isinstance(x, Size):
        sizes.append(x)
        return ("size", x)
    try:
        hash(x)
    except TypeError:
        raise JitError(
            f"an argument of a jitted function is neither a tensor nor hashable: {type(x).__name__}; on {origin.user_line()}. "
            "Make a Tensor of an array: its numbers may then differ from call to call."
        ) from None
    return (type(x).__name__, x)


def changed(old: Any, new: Any, path: str = "arguments") -> tuple[str, Any, Any]:
    """The first difference of two signatures."""
    if isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new):
        for i, (a, b) in enumerate(zip(old, new, strict=True)):
            if a != b:
                if old[0] == "tensor":
                    return f"{('kind', 'shape', 'dtype')[i]} of {path}", a, b
                return changed(a, b, f"{path}[{i}]")
    return path, old, new


def paths(x: Any, path: str, out: list[str], tensor: type) -> None:
    """What the tensors of an argument are called, in the order of `_signature`."""
    if isinstance(x, tensor):
        out.append(path)
    elif isinstance(x, (tuple, list)):
        for i, v in enumerate(x):
            paths(v, f"{path}[{i}]", out, tensor)
    elif isinstance(x, dict):
        for k, v in x.items():
            paths(v, f"{path}.{k}", out, tensor)


def rebuilt(kind: Any, items: Iterable[Any]) -> Any:
    """A list or tuple of this type; one with names for its items (NamedTuple) takes them one by one."""
    return getattr(kind, "_make", kind)(items)


def substitute(x: Any, placeholders: Iterator[Any], tensor: type) -> Any:
    """The same arguments with the next placeholder for each tensor, in the order of `_signature`: a tensor given twice is two
    inputs."""
    if isinstance(x, tensor):
        return next(placeholders)
    if isinstance(x, (tuple, list)):
        return rebuilt(type(x), (substitute(i, placeholders, tensor) for i in x))
    if isinstance(x, dict):
        return {k: substitute(v, placeholders, tensor) for k, v in x.items()}
    return x


def values(sizes: Iterable[Size]) -> dict[str, int]:
    """The values of the variables in the arguments of a call. SizeError where one has none, or two."""
    out: dict[str, int] = {}
    for size in sizes:
        if len(size._bound) < len(size.symbols):
            name = next(s.name for s in size.symbols if s.name not in size.bound)
            raise SizeError(f"{name} has no value in this call; expected {name}.bind(...), on {origin.user_line()}")
        for name, v in size._bound:
            if out.setdefault(name, v) != v:
                raise SizeError(
                    f"{name} is {out[name]} in one argument and {v} in another; expected one value, on {origin.user_line()}"
                )
    return out


__all__ = ["JitError", "changed", "paths", "signature", "substitute", "values"]
