"""One colour, one letter, one meaning, in every view. Colours after Okabe & Ito (2008), safe for colour-blind people."""

from __future__ import annotations

from collections.abc import Iterable

from tinyviz.viewdata import Category

CATEGORIES = {
    c.name: c
    for c in (
        Category("forward", "forward", "#0072b2", "#56a9e0", "F"),
        Category("backward", "backward (gradients)", "#d55e00", "#f08a3c", "B"),
        Category("optimizer", "optimizer", "#009e73", "#2fc79b", "O"),
        Category("host", "host: outside of kernels", "#6b7280", "#9ca3af", "H"),
        Category("inline", "inline: computed where it is used", "#56b4e9", "#8fd0f5", "i"),
        Category("at loop", "at loop: computed once per iteration of a loop of its user", "#b8860b", "#e6b94d", "l"),
        Category("whole", "whole: stored in memory", "#b0508a", "#e08fc0", "w"),
        Category("new", "new in this step", "#8a7a00", "#f0e442", "+"),
        Category("removed", "gone after this step", "#4b4b4b", "#c0c0c0", "−"),
    )
}


SIGNS = {
    "float64": "D", "float32": "S", "float16": "H", "bfloat16": "b", "int64": "L", "int32": "I", "int16": "s", "int8": "c",
    "uint64": "U", "uint32": "u", "uint16": "t", "uint8": "y", "bool": "?", "fp8e4m3": "4", "fp8e5m2": "5",
}  # fmt: skip


def dtype(name: str, number: int, label: str) -> Category:
    """The `number`th of the dtypes that occur together: colours of the palette in their order, a sign of its own."""
    of = list(CATEGORIES.values())[number % len(CATEGORIES)]
    return Category(f"dtype {name}", label, of.light, of.dark, SIGNS.get(name, "x"))


def legend(names: Iterable[str]) -> list[Category]:
    return [CATEGORIES[n] for n in names]


def verdict(text: str) -> str:
    """The category of a fusion verdict: 'at loop i0, i1' is 'at loop'; 'whole, forwarded in a register' is 'whole'."""
    return next((n for n in ("inline", "at loop", "whole") if text.startswith(n)), "host")
