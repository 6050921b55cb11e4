"""Layers made of a function: they take its arguments, and call it with them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container, Iterable
from typing import Any

from tinyengine.nn.module import Module
from tinyengine.origin import user_line


def layer(
    name: str, takes: Iterable[inspect.Parameter], forward: Callable[..., Any], doc: str, module: str,
    ignored: Container[str] = (), **members: Any,
) -> type[Module]:  # fmt: skip
    """A class of layers whose `options` are what it is given of these parameters, without those that are `ignored`. TypeError,
    with the user's line, for others."""
    form = inspect.Signature([*takes])

    def __init__(self: Any, *args: Any, **options: Any) -> None:
        try:
            given = form.bind(*args, **options).arguments
        except TypeError as e:
            raise TypeError(f"{name}{form}: {e}\n  at {user_line()}") from None
        self.options = {k: v for k, v in given.items() if k not in ignored}

    me = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    __init__.__signature__ = form.replace(parameters=[me, *form.parameters.values()])  # type: ignore[attr-defined]
    return type(name, (Module,), {"__init__": __init__, "forward": forward, "__doc__": doc, "__module__": module, **members})


__all__ = ["layer"]
