"""From a recording to the screen: pages for the widget, and text and SVG where there is none. A view that fails shows its
error in its place; the user's cell goes on."""

from __future__ import annotations

import base64
import html
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyviz import viewdata, views, wire
from tinyviz.codec import to_json
from tinyviz.svg import Svg, clean
from tinyviz.wire import Selection

if TYPE_CHECKING:
    from tinyviz.recording import Recording


#: what `compare` compares with: a recording, and which program of it (None: the likest)
Before = tuple[wire.Recording, int | None]


#: of all other programs together whose views a page carries too; of a larger one a live view asks when it is chosen
MORE_NODES = 6000


#: characters of each view's text that a page carries
TEXT_MOST = 20_000


@dataclass
class Made:
    """One view, made: its data, its text and its SVG; `error` when it failed, then text and SVG say so."""

    data: Any
    text: str
    svg: str
    error: str = ""


def make(
    r: wire.Recording,
    name: str,
    program: int | None = None,
    selection: Selection | None = None,
    before: Before | None = None,
    drawing: bool = True,
) -> Made:
    """Make one view; `before`: what `compare` compares with; without `drawing` its SVG is left out. Never raises for what is in
    the recording; raises ValueError for an unknown view."""
    view: Any = views.get(name)
    try:
        data = view.data(r, program, selection, *(before or () if name == "compare" else ()))
        text = "\n".join(clean(line) for line in view.text(r, data).split("\n"))  # no control characters for a terminal
        return Made(data, text, view.svg(r, data) if drawing else "")
    except Exception as e:
        error = f"{name}: {e}" if isinstance(e, ValueError) else f"the view {name!r} failed: {type(e).__name__}: {e}"
        return Made(viewdata.ViewData(name, name, [], [], -1, error), error, str(Svg(600, error, [], [])), error)


def page(
    r: wire.Recording,
    names: tuple[str, ...],
    shown: str,
    program: int | None = None,
    selection: Selection | None = None,
    before: Before | None = None,
) -> Any:
    """The wire form of a `viewdata.Page` with these views, as JSON values: of one program, and of others that are small."""
    texts, data = _views(r, names, program, selection, before)
    out = to_json(viewdata.Page(shown, r, viewdata.Views(), texts, selection))
    out["views"] |= data
    shown_program = next((d["program"] for d in data.values()), -1)
    left = MORE_NODES
    for i in sorted(range(len(r.programs)), key=lambda i: views.weight(r.programs[i]), reverse=True):
        left -= len(r.programs[i].nodes) if i != shown_program else 0
        if i == shown_program or before is not None or left < 0:
            continue
        out["more"].append(program_page(r, names, i))
    return out


def program_page(r: wire.Recording, names: tuple[str, ...], program: int) -> Any:
    """The wire form of a `viewdata.ProgramPage`, as JSON values."""
    texts, data = _views(r, names, program, None, None)
    out = to_json(viewdata.ProgramPage(program, viewdata.Views(), texts))
    out["views"] |= data
    return out


def _views(
    r: wire.Recording, names: tuple[str, ...], program: int | None, selection: Selection | None, before: Before | None
) -> tuple[dict[str, str], dict[str, Any]]:
    """The texts and, as JSON values, the data of these views."""
    made = {name: make(r, name, program, selection, before, drawing=False) for name in names}
    return {name: _short(name, m.text) for name, m in made.items()}, {name: to_json(m.data) for name, m in made.items()}


def _short(name: str, text: str) -> str:
    """What a page carries of a text: it stands in for a view that fails, and need not be whole."""
    if len(text) <= TEXT_MOST:
        return text
    return text[:TEXT_MOST].rpartition("\n")[0] + f'\n… and more: print(rec.view("{name}"))'


@dataclass
class Explorer:
    """What a notebook shows: one view, or all behind tabs (`view` None). Assign `selection` to select; read it to follow.
    `before`: an earlier recording with which `compare` compares, and which of its programs (None: the likest)."""

    recording: Recording
    view: str | None = None
    program: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    before: tuple[Recording, int | None] | None = None

    @property
    def name(self) -> str:
        """The view shown first."""
        return self.view or ("overview" if self.before is None else "compare")

    @property
    def names(self) -> tuple[str, ...]:
        """The views behind tabs."""
        return (self.view,) if self.view else views.NAMES if self.before is None else ("compare", *views.NAMES)

    def _arguments(self) -> tuple[int | None, Selection | None, Before | None]:
        before = None if self.before is None else (self.before[0].data, self.before[1])
        return self.program, self.options.get("selection"), before

    @cached_property
    def made(self) -> Made:
        return make(self.recording.data, self.name, *self._arguments())

    @property
    def text(self) -> str:
        return self.made.text

    @property
    def svg(self) -> str:
        return self.made.svg

    @property
    def data(self) -> Any:
        """The view's data: a dataclass of `tinyviz.viewdata`."""
        return self.made.data

    @property
    def page(self) -> Any:
        """The data of the whole page, as JSON values."""
        return page(self.recording.data, self.names, self.name, *self._arguments())

    @cached_property
    def widget(self) -> Any:
        """The live widget (`tinyviz.widget.ViewWidget`); raises ImportError or FileNotFoundError where it cannot be had."""
        from tinyviz.answers import Answers
        from tinyviz.widget import ViewWidget

        selection = self.options.get("selection")
        data = self.page
        chosen: Any = None if selection is None else {"kind": selection.kind, "id": selection.id}
        name = self.view or "explorer"
        r = self.recording
        answers = r.answers or Answers(r.data, [None] * len(r.programs))  # a loaded recording shows its other programs too
        return ViewWidget(
            name, data, text=self.text, svg=self.svg, recording=r.data.id, selection=chosen, answers=answers,
            editable=r.answers is not None,
        )  # fmt: skip

    @property
    def selection(self) -> Selection | None:
        """What is selected on screen."""
        chosen = self.widget.selection
        return None if chosen is None else Selection(chosen["kind"], chosen["id"])

    @selection.setter
    def selection(self, value: Selection | tuple[str, str] | None) -> None:
        kind, id = (value.kind, value.id) if isinstance(value, Selection) else value or ("", "")
        self.widget.selection = {"kind": kind, "id": id} if kind else None

    def html(self, path: str | os.PathLike[str]) -> Path:
        """Write one self-contained interactive page of this. Returns its path."""
        from tinyviz.export import write

        return write(self, path)

    def __repr__(self) -> str:
        return self.text

    __str__ = __repr__

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        try:
            return self.widget._repr_mimebundle_(**kwargs)
        except Exception as e:  # without a widget the drawing and the text remain
            forms = {"text/plain": self.text}
            try:
                forms |= still(self.svg, self.text)
            except Exception as drawing:
                forms["text/plain"] += f"\n(no drawing: {type(drawing).__name__}: {drawing})"
            if not isinstance(e, (ImportError, FileNotFoundError)):
                forms["text/plain"] += f"\n(no live view: {type(e).__name__}: {e})"
            return forms, {}


def still(svg: str, text: str) -> dict[str, str]:
    """The forms that need no front end of ours."""
    source = base64.b64encode(svg.encode()).decode()
    alt = html.escape(text.strip().partition("\n")[0])
    image = f'<img alt="{alt}" style="max-width:100%" src="data:image/svg+xml;base64,{source}">'
    return {"text/html": image, "image/svg+xml": svg}
