"""Static drawings: self-contained SVG text, for light and dark, with a title, how to read it, and a legend."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

from tinyviz.palette import CATEGORIES
from tinyviz.viewdata import Category

LINE = 17.0  # height of a line of text
_FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
_CONTROL = re.compile("[\x00-\x08\n-\x1f]")  # all but the tab
_MONO = "ui-monospace, 'SFMono-Regular', 'DejaVu Sans Mono', Menlo, monospace"


def _style() -> str:
    light = "".join(f".{css(c.name)}{{--c:{c.light}}}" for c in CATEGORIES.values())
    dark = "".join(f".{css(c.name)}{{--c:{c.dark}}}" for c in CATEGORIES.values())
    return (
        "svg{--back:#ffffff;--ink:#1f2328;--faint:#59636e;--rule:#d1d9e0;--raised:#f3f5f7}"
        + light
        + "@media (prefers-color-scheme:dark){svg{--back:#1b1f24;--ink:#e6edf3;--faint:#9da7b3;--rule:#3d444d;--raised:#262c33}"
        + dark
        + "}"
        + f"text{{font:12px {_FONT};fill:var(--ink)}}.mono{{font:11px {_MONO};white-space:pre}}.faint{{fill:var(--faint)}}"
        ".title{font-size:15px;font-weight:600}.bold{font-weight:600}.end{text-anchor:end}.mid{text-anchor:middle}"
        ".back{fill:var(--back)}.raised{fill:var(--raised)}.rule{stroke:var(--rule);fill:none}.edge{stroke:var(--faint);fill:none}"
        ".fill{fill:var(--c)}.line{stroke:var(--c);fill:none}.box{fill:var(--back);stroke:var(--c);stroke-width:1.5}"
        ".ontop{fill:var(--back);font-weight:600}"
    )


def css(category: str) -> str:
    """The class of a category."""
    return "c-" + category.replace(" ", "-")


class Svg:
    """Collects parts; `str()` gives the document. `y` is where the body starts, below title and explanation."""

    def __init__(self, width: float, title: str, howto: Iterable[str], legend: Iterable[Category]) -> None:
        self.width = max(width, 480.0)
        self.parts: list[str] = []
        self.title = title
        self.y = 26.0
        self.text(12, self.y, title, "title")
        for sentence in howto:
            for row in wrap(sentence, int((self.width - 24) / 6.2)):
                self.y += LINE
                self.text(12, self.y, row, "faint")
        self._legend(legend)
        self.y += 12
        self.height = self.y

    def _legend(self, legend: Iterable[Category]) -> None:
        x = 12.0
        legend = list(legend)
        if legend:
            self.y += LINE + 4
        for c in legend:
            width = 26 + 6.6 * len(c.label)
            if x > 12 and x + width > self.width:
                x, self.y = 12.0, self.y + LINE + 2
            self.mark(x, self.y - 11, c.name)
            self.text(x + 19, self.y, c.label)
            x += width + 10

    def mark(self, x: float, y: float, category: str, size: float = 14) -> None:
        """The square of a category with its letter."""
        self.rect(x, y, size, size, f"fill {css(category)}", rx=3)
        mark = CATEGORIES[category].mark if category in CATEGORIES else "?"
        at = f'x="{x + size / 2:.1f}" y="{y + size - 3:.1f}"'
        self.parts.append(f'<text {at} class="mid ontop" style="font-size:10px">{escape(mark)}</text>')

    def text(self, x: float, y: float, text: str, classes: str = "", tip: str = "") -> None:
        attributes = f' class="{classes}"' if classes else ""
        title = f"<title>{escape(clean(tip))}</title>" if tip else ""
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}"{attributes}>{escape(clean(text))}{title}</text>')
        self.reach(y + 6)

    def rect(
        self, x: float, y: float, width: float, height: float, classes: str, rx: float = 0, tip: str = "", dash: str = ""
    ) -> None:
        title = f"<title>{escape(clean(tip))}</title>" if tip else ""
        round_, dashed = (f' rx="{rx:g}"' if rx else ""), (f' stroke-dasharray="{dash}"' if dash else "")
        place = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}"'
        self.parts.append(f'<rect {place}{round_}{dashed} class="{classes}">{title}</rect>')
        self.reach(y + height)

    def path(self, d: str, classes: str, dash: str = "", arrow: bool = False) -> None:
        extra = (f' stroke-dasharray="{dash}"' if dash else "") + (' marker-end="url(#tip)"' if arrow else "")
        self.parts.append(f'<path d="{d}" class="{classes}"{extra}/>')

    def reach(self, y: float) -> None:
        self.height = max(getattr(self, "height", 0.0), y)

    def __str__(self) -> str:
        w, h = f"{self.width:.0f}", f"{self.height + 10:.0f}"
        arrow = (
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
            '<path d="M0 0L8 4L0 8z" fill="var(--faint)"/></marker></defs>'
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" role="img" '
            f'aria-label="{escape(clean(self.title), quote=True)}"><style>{_style()}</style>{arrow}'
            f'<rect width="{w}" height="{h}" class="back"/>' + "".join(self.parts) + "</svg>"
        )


def clean(text: str) -> str:
    """Without characters that XML has no form for."""
    return _CONTROL.sub("�", text)


def wrap(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, max(width, 20)) or [""]


def cut(text: str, width: int) -> str:
    """At most `width` characters; an ellipsis shows the cut."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"
