"""The widget without a browser: its traits, its messages and the forms of its output."""

from __future__ import annotations

import base64
import gzip
import json
import math

import pytest
import traitlets

from tinyviz import widget as module
from tinyviz.widget import MIME, WIDGET_MIME, ViewWidget

DATA = {"title": "µ", "items": [{"kind": "kernel", "id": "k0", "label": "k0"}]}


def make(**changes: object) -> ViewWidget:
    arguments = {"text": "one kernel\nand more", "svg": "<svg>&</svg>", "recording": "r"} | changes
    return ViewWidget("outline", arguments.pop("data", DATA), **arguments)  # type: ignore[arg-type]


def test_the_payload_is_the_bundle() -> None:
    bundle = json.loads(gzip.decompress(make().payload))
    assert bundle == {"view": "outline", "recording": "r", "data": DATA, "text": "one kernel\nand more"}


def test_the_same_view_gives_the_same_bytes() -> None:
    assert make().payload == make().payload


def test_an_output_has_every_form_that_a_front_end_may_want() -> None:
    widget = make()
    forms, metadata = widget._repr_mimebundle_()
    assert metadata == {}
    assert list(forms) == [MIME, WIDGET_MIME, "text/plain", "text/html", "image/svg+xml"]
    assert forms[MIME]["bundle"]["data"] == DATA
    assert forms[WIDGET_MIME]["model_id"] == widget.model_id
    assert forms["text/plain"] == "one kernel\nand more"
    assert base64.b64encode(b"<svg>&</svg>").decode() in forms["text/html"]
    assert 'alt="one kernel"' in forms["text/html"]


def test_without_an_svg_there_is_no_picture() -> None:
    forms, _ = make(svg=None)._repr_mimebundle_()
    assert list(forms) == [MIME, WIDGET_MIME, "text/plain"]


def test_a_large_bundle_is_saved_compressed() -> None:
    data = {"items": ["kernel"] * 10_000}
    forms, _ = make(data=data)._repr_mimebundle_()
    saved = forms[MIME]
    assert set(saved) == {"tinyviz", "gzip"}
    assert json.loads(gzip.decompress(base64.b64decode(saved["gzip"])))["data"] == data
    assert len(saved["gzip"]) < len(json.dumps(data)) / 10


def test_a_payload_too_large_for_one_message_goes_in_parts_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make().payload
    monkeypatch.setattr(module, "PAYLOAD_LIMIT_BYTES", 50)
    monkeypatch.setattr(module, "PART_BYTES", 50)
    widget = make()
    assert widget.payload == b""
    sent: list[tuple[dict[str, object], bytes]] = []
    monkeypatch.setattr(widget, "send", lambda content, buffers: sent.append((content, *buffers)))
    widget._handle_custom_msg({"type": "something else"}, [])
    assert sent == []
    widget._handle_custom_msg({"type": "payload"}, [])
    assert b"".join(part for _, part in sent) == whole
    assert [content["part"] for content, _ in sent] == list(range(len(sent)))
    assert {content["parts"] for content, _ in sent} == {len(sent)}


def test_a_selection_is_a_kind_and_an_id() -> None:
    widget = make(selection={"kind": "kernel", "id": "k0"})
    assert widget.selection == {"kind": "kernel", "id": "k0"}
    seen: list[object] = []
    widget.observe(lambda change: seen.append(change["new"]), "selection")
    widget.selection = None
    widget.selection = {"kind": "node", "id": "3"}
    assert seen == [None, {"kind": "node", "id": "3"}]
    for wrong in ({"kind": "node"}, {"kind": "node", "id": 3}, {"kind": "node", "id": "3", "more": "x"}):
        with pytest.raises(traitlets.TraitError, match="a selection is None or"):
            widget.selection = wrong
    assert widget.selection == {"kind": "node", "id": "3"}


@pytest.mark.parametrize("wrong", [math.nan, math.inf, object(), {1j}])
def test_data_without_a_json_form_is_refused_by_name(wrong: object) -> None:
    with pytest.raises(ValueError, match="the data of the view 'outline' cannot be written as JSON"):
        make(data={"x": wrong})


def test_the_module_that_every_widget_carries_stays_small() -> None:
    assert len(module.bundle_source()) < 400_000


def test_a_missing_module_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(module, "files", lambda _: tmp_path)
    with pytest.raises(FileNotFoundError, match="make bundles"):
        module.bundle_source.__wrapped__()
