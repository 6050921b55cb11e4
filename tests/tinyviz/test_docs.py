"""docs/explorer.md speaks of every view, with one small picture each."""

from __future__ import annotations

import re
from pathlib import Path

from tinyviz import views

DOCS = Path(__file__).parents[2] / "docs"
PICTURE, ALL = 60_000, 600_000  # bytes, at most


def test_every_view_has_a_section_and_a_small_picture() -> None:
    text = (DOCS / "explorer.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\w+)$", text, re.M) == list(views.ALL)
    pictures = re.findall(r"!\[([^\]]+)\]\((explorer/(\w+)\.png)\)", text)
    assert [name for _, _, name in pictures] == list(views.ALL) and all(len(words) > 20 for words, _, _ in pictures)
    sizes = [(DOCS / path).stat().st_size for _, path, _ in pictures]
    assert max(sizes) <= PICTURE and sum(sizes) <= ALL
    assert all((DOCS / path).read_bytes().startswith(b"\x89PNG") for _, path, _ in pictures)
