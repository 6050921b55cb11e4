"""Text twins: tables that line up, in plain characters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tinyviz.svg import clean


def table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    """Columns as wide as their widest cell, two blanks between; those in `right` are aligned to the right."""
    cells = [list(map(clean, head)), *([clean(c) for c in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    to_right = set(right)
    lines = []
    for row in cells:
        done = [c.rjust(w) if i in to_right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(done).rstrip())
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(lines)


def heading(title: str, howto: Iterable[str]) -> str:
    return "\n".join([title, *(f"  {h}" for h in howto), ""])


def bar(share: float | None, width: int = 20) -> str:
    """A bar of block characters; empty where the share is missing."""
    if share is None:
        return ""
    eighths = round(max(0.0, min(share, 1.0)) * width * 8)
    return "█" * (eighths // 8) + (" ▏▎▍▌▋▊▉"[eighths % 8] if eighths % 8 else "")
