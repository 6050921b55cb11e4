"""One view as a Jupyter widget: live where a kernel answers, drawn from the saved notebook where none does.

An output carries the same view in five forms, and each front end takes the best one that it can show:

- ``application/vnd.tinyviz+json``: the data, drawn by tinyviz's JupyterLab extension even after reopening without a kernel;
- a widget view: JupyterLab and Notebook without the extension, VS Code, Colab;
- ``text/html`` with the SVG in an ``<img>``: survives in notebooks that are not trusted, and in nbconvert;
- ``image/svg+xml``;
- ``text/plain``.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any, TypedDict

import anywidget
import traitlets as t

MIME = "application/vnd.tinyviz+json"
WIDGET_MIME = "application/vnd.jupyter.widget-view+json"

#: of the bundle; extension/src/bundle.ts refuses any other
VERSION = 1

#: compressed bytes that may travel in the widget's state; a larger payload goes in parts, when a view asks for it
PAYLOAD_LIMIT_BYTES = 8 * 2**20
PART_BYTES = 4 * 2**20

#: bytes of JSON that a notebook keeps readable; more is saved compressed
READABLE_BYTES = 16 * 2**10


#: see `tinyviz.answers.Answers`
Answers = Callable[[dict[str, Any], Callable[[str], None]], Any]


class Selection(TypedDict):
    """What is selected: ``kind`` (node, kernel, line, …) and which ``id`` of that kind."""

    kind: str
    id: str


class ViewWidget(anywidget.AnyWidget):
    """A view on screen.

    Args:
        view: name of the view, as in ``extension/src/views/``.
        data: its wire form: dicts, lists, strings, finite numbers, booleans and None.
        text: its text twin, for terminals and for a front end in which the view fails.
        svg: its SVG twin (a complete ``<svg>`` document), or None where there is none.
        recording: content id of the recording shown. Views of one recording on one page share one selection.
        answers: called with each question of the page and a function that tells it how far things are; gives JSON values.
            The page sends {"type": "ask", "id": n, ...}; it gets {"type": "progress", "id": n, "text": ...} now and then, and at
            the end {"type": "answer", "id": n, "data": ...}, or "error" in place of "data".
        editable: whether the answers reach beyond what the recording holds; None: where there are answers.

    Raises:
        ValueError: ``data`` holds something that JSON has no form for, such as NaN.
    """

    #: what is selected on the page, or None. Set it to select there; observe it to follow the reader's clicks.
    selection = t.Dict(allow_none=True, default_value=None).tag(sync=True)
    #: gzipped JSON of the bundle; empty where it exceeds PAYLOAD_LIMIT_BYTES and is sent in parts
    payload = t.Bytes().tag(sync=True)
    #: whether the programs are there that what-ifs and measurements need
    editable = t.Bool().tag(sync=True)
    _esm = t.Unicode().tag(sync=True)

    def __init__(
        self, view: str, data: Any, *, text: str, svg: str | None = None, recording: str = "",
        selection: Selection | None = None, answers: Answers | None = None, editable: bool | None = None,
    ) -> None:  # fmt: skip
        bundle = {"view": view, "recording": recording, "data": data, "text": text}
        try:
            encoded = json.dumps(bundle, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise ValueError(f"the data of the view {view!r} cannot be written as JSON: {error}") from error
        # No time stamp: the same view gives the same bytes, and a saved notebook no idle changes.
        compressed = gzip.compress(encoded, compresslevel=6, mtime=0)
        self.view, self.recording, self.text, self.svg, self.answers = view, recording, text, svg, answers
        self._saved: dict[str, Any] = {"tinyviz": VERSION}
        if len(encoded) <= READABLE_BYTES:
            self._saved["bundle"] = bundle
        else:
            self._saved["gzip"] = base64.b64encode(compressed).decode()
        self._compressed = compressed
        payload = compressed if len(compressed) <= PAYLOAD_LIMIT_BYTES else b""
        ready = answers is not None if editable is None else editable
        super().__init__(payload=payload, selection=selection, editable=ready, _esm=bundle_source())
        self.on_msg(self._answer)

    @t.validate("selection")
    def _check_selection(self, proposal: dict[str, Any]) -> Selection | None:
        value = proposal["value"]
        if value is None:
            return None
        if set(value) != {"kind", "id"} or not all(isinstance(part, str) for part in value.values()):
            raise t.TraitError(f"a selection is None or {{'kind': str, 'id': str}}, not {value!r}")
        return Selection(kind=value["kind"], id=value["id"])

    def _answer(self, _widget: object, content: Any, _buffers: object) -> None:
        if not isinstance(content, dict):
            return
        if content.get("type") == "ask":
            self._asked(content)
        if content.get("type") != "payload":
            return
        parts = range(0, len(self._compressed), PART_BYTES)
        for part, start in enumerate(parts):
            chunk = self._compressed[start : start + PART_BYTES]
            self.send({"type": "payload", "part": part, "parts": len(parts)}, buffers=[chunk])

    def _asked(self, question: dict[str, Any]) -> None:
        """Answer one question of the page; what goes wrong is an answer too."""
        at = {"id": question.get("id")}
        try:
            if self.answers is None:
                raise ValueError("this view has no program behind it: it was loaded or saved")
            data = self.answers(question, lambda text: self.send({"type": "progress", **at, "text": text}))
            self.send({"type": "answer", **at, "data": data})
        except (Exception, KeyboardInterrupt) as error:
            told = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
            self.send({"type": "answer", **at, "error": told})

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, Any], dict[str, Any]]:
        forms: dict[str, Any] = {
            MIME: self._saved,
            WIDGET_MIME: {"version_major": 2, "version_minor": 0, "model_id": self.model_id},
            "text/plain": self.text,
        }
        if self.svg is not None:
            source = base64.b64encode(self.svg.encode()).decode()
            alt = html.escape(self.text.strip().partition("\n")[0])
            forms["text/html"] = f'<img alt="{alt}" style="max-width:100%" src="data:image/svg+xml;base64,{source}">'
            forms["image/svg+xml"] = self.svg
        return forms, {}


@cache
def bundle_source() -> str:
    """The widget's ES module: for a widget, and for an exported page.

    Raises:
        FileNotFoundError: in a source tree where ``make bundles`` has not run.
    """
    path = files("tinyviz") / "static" / "widget.js"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run `make bundles` in the source tree, or install tinyviz from a wheel")
    return path.read_text(encoding="utf-8")
