"""The reference page, from the docstrings: `python -m tinyengine.reference` writes docs/reference.md."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tinyengine
from tinyengine import Tensor, dtypes
from tinyengine.device import SETTINGS
from tinyengine.onnx import supported
from tinyengine.onnx.registry import REFUSED as NO_OPERATORS
from tinyengine.tensor import core, keywords
from tinyengine.tensor.refused import REFUSED, Refused

PAGE = Path(__file__).parents[2] / "docs" / "reference.md"

INTRODUCTION = """\
# Reference

Written by `python -m tinyengine.reference` from the docstrings; edit those.

Names, defaults, results, dtypes and kinds of exceptions are PyTorch's, and where PyTorch has no such name, the field's. What
differs everywhere:

"""

# heading -> modules whose __all__ it lists
MODULES = {
    "nn": "tinyengine.nn",
    "nn.functional": "tinyengine.nn.functional",
    "nn.init": "tinyengine.nn.init",
    "optim": "tinyengine.optim",
    "optim.lr_scheduler": "tinyengine.optim.lr_scheduler",
    "state": "tinyengine.state",
    "data": "tinyengine.data",
    "onnx": "tinyengine.onnx",
}


def first_paragraph(thing: Any) -> str:
    """Of the docstring, as one line."""
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


def signature(thing: Any, method: bool = False) -> str:
    """The arguments with their defaults, without types; those that are left out by a value of their own without it."""
    try:
        found = inspect.signature(thing)
    except (TypeError, ValueError):
        return ""
    parameters = [p.replace(annotation=inspect.Parameter.empty) for p in found.parameters.values()]
    if method and parameters and parameters[0].name == "self":
        parameters = parameters[1:]
    shown = [
        p.replace(default=inspect.Parameter.empty) if repr(p.default).startswith("<") and p.kind is p.KEYWORD_ONLY else p
        for p in parameters
    ]
    text = str(inspect.Signature(shown)) if _ordered(shown) else f"({', '.join(_plain(p) for p in shown)})"
    return re.sub(r"<[^<>]*>", "…", text)


def _ordered(parameters: list[inspect.Parameter]) -> bool:
    try:
        inspect.Signature(parameters)
    except ValueError:
        return False
    return True


def _plain(p: inspect.Parameter) -> str:
    return p.name if p.default is p.empty else f"{p.name}={p.default!r}"


def methods() -> Iterator[tuple[type, list[tuple[str, Any]]]]:
    """(class that gives a family, its public names with what they are), in the order in which the classes stand on each other."""
    seen: set[str] = set()
    for c in reversed(Tensor.__mro__[:-1]):
        own = [(n, Tensor.__dict__.get(n, v)) for n, v in c.__dict__.items() if not n.startswith("_") and n not in seen]
        seen.update(n for n, _ in own)
        own = [(n, v) for n, v in own if n not in ("node", "flow", "grad")]
        if own and c is not Refused:
            yield c, own


def _entry(name: str, thing: Any) -> str:
    if isinstance(thing, property):
        return f"- `{name}` — {first_paragraph(thing.fget)}"
    f = thing.__func__ if isinstance(thing, staticmethod) else thing
    if not callable(f):
        return f"- `{name} = {thing!r}`"
    also = keywords.keywords(name)
    more = f" Also: {', '.join(f'`{k}`' for k in also)}." if also else ""
    return f"- `{'Tensor.' if isinstance(thing, staticmethod) else ''}{name}{signature(f, True)}` — {first_paragraph(f)}{more}"


def _module(name: str) -> Iterator[str]:
    module = importlib.import_module(name)
    public = getattr(module, "__all__", None) or [
        n for n, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == name and not n.startswith("_")
    ]
    for n in sorted(public, key=str.lower):
        thing = getattr(module, n)
        if inspect.ismodule(thing):
            continue
        if name == "tinyengine.nn.functional" and thing.__module__ != name:
            yield f"- `{n}` — The method `Tensor.{thing.__name__}`, as a function."
            continue
        arguments = signature(thing.__init__, True) if inspect.isclass(thing) else signature(thing)
        yield f"- `{n}{arguments.replace(' -> None', '')}` — {first_paragraph(thing)}"


def _operators() -> str:
    """The special methods by which operators, item access and conversions come."""
    names = sorted(
        {n for c in Tensor.__mro__[:-1] for n, v in c.__dict__.items() if n.startswith("__") and inspect.isfunction(v)}
    )
    return ", ".join(f"`{n}`" for n in names if n not in ("__init__", "__repr__", "__class_getitem__"))


def page() -> str:
    """The whole page, as Markdown."""
    import tinyengine.tensor as tensor

    differs = (inspect.getdoc(tensor) or "").split("\n\n")[1].replace("\n", " ").split("everywhere: ")[-1]
    lines = [INTRODUCTION + "\n".join(f"- {part.strip().rstrip('.')}." for part in differs.split("; ")) + "\n"]
    lines += ["## tinyengine", "", f"- `Tensor(data, dtype=None, requires_grad=None)` — {first_paragraph(Tensor)}"]
    for n in sorted(set(tinyengine.__all__) - {"Tensor"}, key=str.lower):
        thing = getattr(tinyengine, n)
        if not inspect.ismodule(thing):
            arguments = signature(thing) if inspect.isfunction(thing) or inspect.isclass(thing) else ""
            lines.append(f"- `{n}{arguments.split(' -> ')[0]}` — {first_paragraph(thing)}")
    lines += ["", "Settings of `Context`:", "", *[f"- `{n}` — {what}" for n, (_, what) in SETTINGS.items()], ""]
    lines += ["## dtypes", "", ", ".join(f"`{d}`" for d in dtypes.ALL) + ". " + first_paragraph(dtypes), ""]
    for c, names in methods():
        lines += [
            f"## Tensor: {c.__name__.lower() if c is not core.Base else 'what every tensor is'}",
            "",
            first_paragraph(c),
            "",
        ]
        lines += [_entry(n, v) for n, v in sorted(names, key=lambda item: item[0].lower())] + [""]
    lines += ["## Tensor: operators, items and conversions", "", _operators() + ". Each stands for the method of its name.", ""]
    lines += ["- `grad` — What `backward` left here: a tensor, or None.", ""]
    for heading, module in MODULES.items():
        lines += [f"## {heading}", "", *_module(module), ""]
        if heading == "onnx":
            lines += [f"Operators: {', '.join(f'`{n}`' for n in supported())}.", ""]
            lines += [*[f"- Refused: `{n}` — {why}." for n, why in NO_OPERATORS.items()], ""]
    lines += ["## Refused", "", "These names of the field raise NotImplementedError:", ""]
    lines += [f"- `Tensor.{n}` — {why}" for n, why in REFUSED.items()]
    return re.sub(r" at 0x[0-9a-f]+", "", "\n".join(lines).rstrip() + "\n").replace(" -> None`", "`")


def main() -> None:
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())
    print(f"{PAGE}: {len(page().splitlines())} lines")


if __name__ == "__main__":
    main()
