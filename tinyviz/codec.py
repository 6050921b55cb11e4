"""Wire dataclasses to JSON values and back. Reading trusts nothing: every value is checked against the declared type."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from functools import cache
from typing import Any, TypeVar, Union

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """Dicts, lists, strings, numbers, booleans and None. A float without a JSON form (NaN, infinity) becomes None: missing."""
    if isinstance(value, float):
        return _number(value)
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, list):
        return [v if v.__class__ is int or v.__class__ is str else to_json(v) for v in value]
    if isinstance(value, dict):
        return {k: to_json(v) for k, v in value.items()}
    return {k: to_json(v) for k, v in vars(value).items()}


def _number(x: float) -> float | None:
    """Six significant digits are more than any clock gives, and keep files small."""
    return float(f"{x:.6g}") if math.isfinite(x) else None


@cache
def fields(cls: Any) -> dict[str, tuple[Any, bool]]:
    """Field name -> (resolved type, whether it may be missing)."""
    hints = typing.get_type_hints(cls, vars(__import__(cls.__module__, fromlist=["*"])))
    no = dataclasses.MISSING
    return {f.name: (hints[f.name], f.default is not no or f.default_factory is not no) for f in dataclasses.fields(cls)}


@cache
def _form(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """list[int] -> (list, (int,))."""
    return typing.get_origin(kind), typing.get_args(kind)


def from_json(kind: Any, value: Any, path: str = "recording") -> Any:
    """`value` as the type `kind` (a wire dataclass, list[...], dict[str, ...], str, int, float, bool, or X | None).

    Raises ValueError that names the place, what was expected and what stood there."""
    if kind is int:
        if value.__class__ is int and abs(value) < 1 << 62:
            return value
    elif kind is float:
        if value.__class__ in (int, float) and math.isfinite(value):
            return float(value)
    elif kind is str or kind is bool:
        if value.__class__ is kind:
            return value
    elif dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return _dataclass(kind, value, path)
    origin, inner = _form(kind)
    if origin is list:
        if isinstance(value, list):
            (item,) = inner
            if item is float and all([v.__class__ is float and math.isfinite(v) for v in value]):
                return value
            plain = (int, str) if item == int | str else (item,) if item in (int, str) else ()
            if plain and all([v.__class__ in plain for v in value]):
                return value
            return [from_json(item, v, f"{path}[{i}]") for i, v in enumerate(value)]
    elif origin is dict:
        if isinstance(value, dict):
            return {k: from_json(inner[1], v, f"{path}[{k[:40]!r}]") for k, v in value.items()}
    elif origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        fits = [k for k in inner if value.__class__ is k]
        return from_json(fits[0] if fits else next(k for k in inner if k is not type(None)), value, path)
    raise ValueError(f"{path}: expected {type_name(kind)}, found {_short(value)}")


def _dataclass(cls: Any, value: dict[str, Any], path: str) -> Any:
    known = fields(cls)
    strange = [k for k in value if k not in known]
    if strange:
        raise ValueError(f"{path}: {cls.__name__} has no field {strange[0][:40]!r}")
    args = {}
    for name, (kind, optional) in known.items():
        if name in value:
            args[name] = from_json(kind, value[name], f"{path}.{name}")
        elif not optional:
            raise ValueError(f"{path}: the field {name!r} of {cls.__name__} is missing")
    from tinyviz.wire import Columns

    if issubclass(cls, Columns):
        sizes = {name: len(v) for name, v in args.items()}
        if len(args) not in (0, len(known)) or len(set(sizes.values())) > 1:
            raise ValueError(f"{path}: the columns of {cls.__name__} differ in length: {sizes}")
    return cls(**args)


def type_name(kind: Any) -> str:
    return str(kind.__name__) if isinstance(kind, type) and not typing.get_args(kind) else str(kind).replace("tinyviz.wire.", "")


def _short(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) < 60 else text[:57] + '...'}"
