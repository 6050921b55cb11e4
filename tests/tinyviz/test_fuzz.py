"""Recordings from elsewhere, damaged at random: each is refused with a sentence, or every form of every view can be made of it.

Nothing is executed, nothing hangs, nothing leaves markup of the file in what a browser reads."""

from __future__ import annotations

import base64
import contextlib
import copy
import gzip
import html
import json
import re
import signal
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinyviz import codec, export, frames, links, perfetto, query, tvz, views, wire
from tinyviz.dot import dot
from tinyviz.explore import make, page
from tinyviz.recording import Recording, compare
from tinyviz.validate import validate
from tinyviz.wire import Selection

SAMPLE = json.loads((Path(__file__).parent / "sample.json").read_text(encoding="utf-8"))["recording"]
COPY = json.dumps(SAMPLE)  # reading it again is several times as fast as copy.deepcopy
HANGS = 60  # seconds for everything that is done with one recording; it takes about one

NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(1)>'\"`${alert(1)}\u2028\x00\x1b]0;x\x07"
STRANGE: list[Any] = [
    None, True, False, -1, 0, 1, 2**31, 2**62, -(2**62), 1 << 80, 0.5, -1e308, 1e308, 1e-320, "", " ", NASTY, "../../etc/passwd",
    "__proto__", "constructor", "\ud7ff\U0010ffff", "a" * 5000, [], [[]], [-1], [0], [2**40] * 3, {}, {"a": 1}, {"__proto__": []},
]  # fmt: skip


@contextlib.contextmanager
def no_hang() -> Iterator[None]:
    def ring(number: int, frame: Any) -> None:
        raise TimeoutError(f"it took more than {HANGS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(HANGS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every container, the outermost first."""
    if isinstance(value, (dict, list)) and value:
        yield path
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


PLACES = list(places(SAMPLE))
#: one way of each form: positions in lists do not count, so that rare fields are hit as often as long columns
FORMS: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
for found in PLACES:
    FORMS.setdefault(tuple("*" if isinstance(k, int) else k for k in found), []).append(found)
NAMES = sorted(FORMS)


def reached(data: Any, path: tuple[Any, ...]) -> Any:
    """What stands there; None where earlier damage took the way to it."""
    for key in path:
        if not isinstance(data, (dict, list)) or (isinstance(data, list) and not (isinstance(key, int) and key < len(data))):
            return None
        if isinstance(data, dict) and key not in data:
            return None
        data = data[key]
    return data


def damage(data: Any, draw: Any) -> None:
    """One change somewhere: another value, one value less, one twice, two exchanged; a whole row of a table less, twice or at
    another place; or a part in the place of another one of its kind."""
    form = FORMS[draw(st.sampled_from(NAMES))]
    path = form[draw(st.integers(0, len(form) - 1))]
    at = reached(data, path)
    if not isinstance(at, (dict, list)) or not at:
        return
    lengths = {len(column) if isinstance(column, list) else -1 for column in at.values()} if isinstance(at, dict) else set()
    kind = draw(st.sampled_from(["value", "value", "row", "graft"]))
    if kind == "graft" and path:
        other, home = reached(data, form[draw(st.integers(0, len(form) - 1))]), reached(data, path[:-1])
        if other is not None:
            home[path[-1]] = copy.deepcopy(other)
        return
    if kind == "row" and len(lengths) == 1 and min(lengths) > 0:
        i, j = (draw(st.integers(0, min(lengths) - 1)) for _ in range(2))
        how = draw(st.sampled_from(["drop", "twice", "move"]))
        for column in at.values():
            row = column[i] if how == "twice" else column.pop(i)
            if how != "drop":
                column.insert(j, copy.deepcopy(row))
        return
    keys = list(at) if isinstance(at, dict) else range(len(at))
    key = keys[draw(st.integers(0, len(keys) - 1))]
    what = draw(st.sampled_from(["strange", "alike", "alike", "alike", "drop", "twice", "exchange", "exchange"]))
    old = at[key]
    if what == "drop":
        del at[key]
    elif what == "twice" and isinstance(at, list):
        at.insert(key, copy.deepcopy(old))
    elif what == "exchange":
        other = keys[draw(st.integers(0, len(keys) - 1))]
        at[key], at[other] = at[other], old
    elif what == "alike" and isinstance(old, (int, float)) and not isinstance(old, bool):
        at[key] = draw(st.sampled_from([old + 1, old - 1, -old, old * 1000, int(old) >> 1, 0, -1, 2**40, 1e-300 * old]))
    elif what == "alike" and (old is None or isinstance(old, (str, list, dict))):
        kind = (int, float) if old is None else type(old)
        at[key] = draw(st.sampled_from([v for v in STRANGE if isinstance(v, kind) and not isinstance(v, bool)]))
    else:
        at[key] = draw(st.sampled_from(STRANGE))


@st.composite
def damaged(draw: Any) -> Any:
    data = json.loads(COPY)
    for _ in range(draw(st.integers(1, 4))):
        damage(data, draw)
    return data


def clean_markup(text: str) -> None:
    root = ET.fromstring(text)
    for e in root.iter():
        assert e.tag.rpartition("}")[2] in ("svg", "style", "defs", "marker", "path", "rect", "text", "title", "g"), e.tag
        assert not any(name.startswith("on") or "javascript:" in value for name, value in e.attrib.items()), e.attrib


def look(r: wire.Recording) -> None:
    """Everything that can be done with a recording without the engine."""
    rec = Recording(r)
    for name in views.NAMES:
        for at in range(len(r.programs)) or (None,):
            made = make(r, name, at)
            assert "failed" not in made.error.partition(":")[0], made.error
            assert not re.search(r"[\x00-\x08\x0b-\x1f]", made.text)
            clean_markup(made.svg)
    for name in query.TABLES if r.programs else ():
        json.dumps(codec.to_json([dict(row) for row in query.rows(r, name)]), allow_nan=False)
    for at, p in enumerate(r.programs):
        for n in (0, len(p.nodes) - 1):
            if 0 <= n < len(p.nodes):
                links.related(r, Selection("node", f"{at}.{n}"))
                frames.blame(p, n), frames.became(p, n)
        for s, stage in enumerate(p.stages):
            frames.graph_at(p, s, len(stage.frames) // 2)
        for i in range(min(len(p.kernels), 3)):
            links.related(r, Selection("kernel", f"{at}.{i}"))
    for i in range(min(len(r.lines), 3)):
        links.related(r, Selection("line", str(i)))
    json.dumps({"traceEvents": list(perfetto.events(r))}, allow_nan=False)
    if r.programs:
        dot(r, 0)
        assert not make(r, "compare", before=(r, None)).error.startswith("the view")
    document(rec)


def document(rec: Recording) -> None:
    """The exported page holds the data only where nothing reads it as markup."""
    shown = rec.view("overview")
    bundle = json.dumps({"view": "explorer", "data": page(rec.data, ("overview",), "overview")}, allow_nan=False)
    packed = base64.b64encode(gzip.compress(bundle.encode(), 1)).decode()
    assert not set("<>&\"'") & set(packed)
    forms = shown.svg + html.escape(shown.text)
    assert "<script" not in forms.replace("&lt;script", "")


def read(data: Any) -> wire.Recording | None:
    """The recording, or None where it is refused: with a ValueError that says where."""
    try:
        r: wire.Recording = codec.from_json(wire.Recording, data)
        validate(r)
    except ValueError as e:
        assert str(e).startswith("recording"), str(e)
        assert len(str(e)) < 600
        return None
    return r


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(damaged())
def test_a_damaged_recording_is_refused_or_shown(data: Any) -> None:
    with no_hang():
        r = read(data)
        if r is not None:
            look(r)


@pytest.mark.slow
@settings(max_examples=3000, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(damaged())
def test_many_damaged_recordings_are_refused_or_shown(data: Any) -> None:
    with no_hang():
        r = read(data)
        if r is not None:
            look(r)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_damaged_bytes_are_refused_or_harmless(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp()
    good = (folder / "good.tvz") if (folder / "good.tvz").exists() else tvz.save(read(copy.deepcopy(SAMPLE)), folder / "good.tvz")  # type: ignore[arg-type]
    raw = bytearray(good.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(raw) - 1))
        what = data.draw(st.sampled_from(["flip", "cut", "insert", "zero"]))
        if what == "flip":
            raw[at] ^= data.draw(st.integers(1, 255))
        elif what == "cut":
            del raw[at : at + data.draw(st.integers(1, 2000))]
        elif what == "insert":
            raw[at:at] = data.draw(st.binary(min_size=1, max_size=40))
        else:
            raw[at : at + 64] = bytes(64)
        if not raw:
            break
    bad = folder / "bad.tvz"
    bad.write_bytes(raw)
    with no_hang():
        try:
            tvz.load(bad)
        except ValueError as e:
            assert "bad.tvz is no recording, or is damaged: " in str(e)


def test_markup_everywhere_stays_text(tmp_path: Path) -> None:
    """Every text of a recording replaced by markup: no form of any view and no page holds it as such."""

    def spoil(value: Any, key: str = "") -> Any:
        if isinstance(value, str):
            return value if key in ("index", "mask", "phase") else NASTY
        if isinstance(value, list):
            return [spoil(v, key) for v in value]
        if isinstance(value, dict):
            return {k: spoil(v, k) for k, v in value.items()}
        return value

    r = read(spoil(copy.deepcopy(SAMPLE)))
    assert r is not None
    look(r)
    made = export.document(Recording(r).view())
    assert "<script>alert(1)" not in made and "<img src=x" not in made
    clean_markup(compare(Recording(r), Recording(r)).svg)


def test_absurd_sizes_of_buffers_and_pictures_are_refused() -> None:
    for extent in (-1, 1 << 60):
        data = copy.deepcopy(SAMPLE)
        kernel = next(k for k in data["programs"][0]["kernels"] if k["space"] and k["space"]["operands"][0]["shape"])
        kernel["space"]["operands"][0]["shape"][0] = extent
        with pytest.raises(ValueError, match="is no shape"):
            validate(codec.from_json(wire.Recording, data))
    data = copy.deepcopy(SAMPLE)
    samples = codec.to_json(wire.Samples())
    picture = {"rows": 10**9, "columns": 2, "low": 0.0, "high": 1.0, "tiles": [[1, 2]]}
    data["programs"][0]["values"] = [
        {"name": "x", "kind": "input", "module": "", "node": -1, "shape": [2, 2], "samples": samples, "picture": picture}
    ]
    with pytest.raises(ValueError, match="another number of elements"):
        validate(codec.from_json(wire.Recording, data))
