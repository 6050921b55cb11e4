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
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tinyviz import codec, export, frames, links, perfetto, query, tvz, views, wire
from tinyviz.dot import dot
from tinyviz.explore import make, page
from tinyviz.recording import Recording, compare
from tinyviz.validate import validate
from tinyviz.wire import Selection

LINES = 12  # of source and of assembly that are kept of each kernel


def rich() -> Any:
    """The sample with all that is in a recording only when it was asked for: values, faults, traces, what was measured."""
    page = json.loads((Path(__file__).parent / "sample.json").read_text(encoding="utf-8"))
    r: wire.Recording = codec.from_json(wire.Recording, page["recording"])
    p = r.programs[0]
    figures = {"run": [0, 2], "dead": [1, None], "nonfinite": [0, 3], "histogram": [[1, 0, 3], []], "zeros": [0.5, 0.0]}
    for name, column in (("low", -1.0), ("high", 2.0), ("mean", 0.1), ("std", 1.0), ("norm", 3.0), ("subnormal", 0.0)):
        figures[name] = [column, None if name != "subnormal" else 0.0]
    samples = wire.Samples(**figures)  # type: ignore[arg-type]
    tiles = wire.Tiles(2, 2, -1.0, 2.0, [[0, 255, -1, 7]] * 2)
    kinds = ("input", "activation", "softmax", "weight", "gradient", "update")
    p.values = [wire.Series("fc1.weight", kind, "model.fc1", 3, [2, 2, 2], samples, tiles) for kind in kinds]
    p.faults = [wire.Fault(2, "NaN", 5, 0, [1, 0], "run 2: log made the first NaN"), wire.Fault(3, "", -1, -1, [], "given")]
    p.traces = [wire.Trace(f"input {i}", 0, a, [0, 1, 2 + i], 3) for i in (1, 2) for a in range(2)]
    p.bisection = wire.Bisection("simplify", "x + 0 -> x", 0, None, 1e-5, 7, "it is wrong from here on")
    spread = wire.Spread(1e-5, 9e-6, 2e-5, 12)
    p.recomputed = [
        wire.Recomputed(
            [0], ["t17"], {"t18": "an input"}, 8, 9, 100, 120, 4096, 2048, 4000, None, 1e-5, 2e-5, spread, spread, spread, 1.5,
            "loss", ['tv.pin("maximum 90c1fe3a77.1", "recompute")'],
        )
    ]  # fmt: skip
    for k in p.kernels:  # a few lines stand for all: they are most of a recording, and each is like the others
        for code in (k.source, k.assembly):
            first = next((i for i, link in enumerate(code.link) if link >= 0), 0)
            code.text, code.link = code.text[first : first + LINES], code.link[first : first + LINES]
    k = p.kernels[0]
    k.attempts = [wire.Attempt(["vectorize(j, 8)"], "width", v, "because", 1e-6, 9e-7, 2e-6, 0.0) for v in ("default", "slower")]
    k.tuned, k.counted = "2026-11-01T12:00:00+00:00", wire.Counted(100, 64, 32, 128)
    k.ablation = wire.Ablation(spread, spread, spread, spread, "memory", "compute", "memory traffic holds it up")
    p.peak_bytes, p.missing, p.certificate.formulas = 5000, ["1 of 9 values were not sampled"], {"flops": "12 * n"}
    r.missing, r.waits, r.observer_apart = ["something"], [wire.Wait("data.batches", 0.1, 0.2, 3)], {"looking at values": 0.01}
    r.realized = [wire.Realized("item", 0, 0, 0.1, 2), wire.Realized("print", -1, -1, 0.2)]
    validate(r)
    return codec.to_json(r)


SAMPLE = rich()
COPY = json.dumps(SAMPLE)  # reading it again is several times as fast as copy.deepcopy
MANY, PARTS = 3000, 2  # examples of the longest test; the processes that share them
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


def many(part: int) -> None:
    """One part of the examples of the test below, in a process of its own."""

    @seed(part)
    @settings(max_examples=MANY // PARTS, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(damaged())
    def refused_or_shown(data: Any) -> None:
        with no_hang():
            r = read(data)
            if r is not None:
                look(r)

    refused_or_shown()


@pytest.mark.slow
@pytest.mark.timeout(900)  # the alarm of a hang belongs to the processes
def test_many_damaged_recordings_are_refused_or_shown() -> None:
    with ProcessPoolExecutor(PARTS, get_context("spawn")) as pool:
        list(pool.map(many, range(PARTS)))


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
            return {k: v if v == "emit" else spoil(v, k) for k, v in value.items()}  # it says which text its steps begin with
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
    data["programs"][0]["values"][0]["picture"]["rows"] = 10**9
    with pytest.raises(ValueError, match="another number of elements"):
        validate(codec.from_json(wire.Recording, data))


@pytest.mark.parametrize(("part", "field"), [("values", "node"), ("faults", "line"), ("faults", "kernels"), ("traces", "access")])
def test_ids_of_what_was_asked_for_are_in_range(part: str, field: str) -> None:
    data = copy.deepcopy(SAMPLE)
    row = data["programs"][0][part][0]
    row[field] = [10**6] if isinstance(row[field], list) else 10**6
    with pytest.raises(ValueError, match=rf"{part}\[0\].{field}: 1000000 is not one of"):
        validate(codec.from_json(wire.Recording, data))
