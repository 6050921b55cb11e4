"""Every view: its text as kept in texts/, its drawing as sound SVG, and what it does with missing, hostile and broken data."""

from __future__ import annotations

import copy
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import pytest

from tinyviz import analysis, explore, palette, units, views, wire
from tinyviz.explore import make
from tinyviz.recording import Recording
from tinyviz.svg import Svg
from tinyviz.wire import Selection

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", views.NAMES)
def test_text(name: str, sample: wire.Recording, same_text: Callable[[str, str], None]) -> None:
    made = make(sample, name)
    assert not made.error
    same_text(name, made.text)


@pytest.mark.parametrize("name", views.NAMES)
def test_drawing_is_sound_and_says_what_it_is(name: str, sample: wire.Recording) -> None:
    made = make(sample, name)
    root = ET.fromstring(made.svg)
    texts = [t.text or "" for t in root.iter(f"{SVG}text")]
    assert made.data.title in texts
    said = " ".join(texts)
    assert len(made.data.howto) == 3
    for sentence in made.data.howto:
        assert all(word in said for word in sentence.split())
    for c in made.data.legend:
        assert c.label in texts and c.mark in texts, "never colour alone"
    assert "prefers-color-scheme:dark" in made.svg
    assert not [e.tag for e in root.iter() if e.tag.split("}")[1] in ("script", "foreignObject", "image", "use", "a")]
    width, height = float(root.get("width", "0")), float(root.get("height", "0"))
    for rect in root.iter(f"{SVG}rect"):
        assert float(rect.get("x", "0")) + float(rect.get("width", "0")) <= width + 1, "nothing is drawn outside"
        assert float(rect.get("y", "0")) + float(rect.get("height", "0")) <= height + 1


def test_colours_are_few_and_differ_for_colour_blind_people() -> None:
    """At most nine; any two differ clearly in what protanopes and deuteranopes see, or carry different letters."""
    assert len(palette.CATEGORIES) <= 9
    assert len({c.mark for c in palette.CATEGORIES.values()}) == len(palette.CATEGORIES)

    def channels(color: str) -> tuple[float, ...]:
        return tuple((int(color[i : i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5))

    def luminance(color: str) -> float:
        r, g, b = channels(color)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    def contrast(a: str, b: str) -> float:
        high, low = sorted((luminance(a), luminance(b)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    # WCAG 2.1, 1.4.11: what carries meaning has a contrast of 3 to its ground; sky blue has a letter and a word as well
    for c in palette.CATEGORIES.values():
        assert contrast(c.dark, "#1b1f24") >= 3, c.name
        assert contrast(c.light, "#ffffff") >= (2 if c.name == "inline" else 3), c.name
    for phases in (("forward", "backward"), ("forward", "optimizer"), ("backward", "optimizer")):
        a, b = (channels(palette.CATEGORIES[x].light) for x in phases)
        # blue against yellow survives both red-green deficiencies; so does lightness
        opponent = abs((a[2] - (a[0] + a[1]) / 2) - (b[2] - (b[0] + b[1]) / 2))
        assert opponent > 0.1, phases


def test_shares_of_lines_add_up(sample: wire.Recording) -> None:
    rows, measured = analysis.line_rows(sample.programs[0])
    assert measured
    assert sum(r.share or 0.0 for r in rows) == pytest.approx(1.0)
    assert sum(r.seconds or 0.0 for r in rows) == pytest.approx(sample.programs[0].launches.host_typical)
    assert rows[-1].line == -1, "what belongs to no line stands last"


def _not_run(r: wire.Recording) -> None:
    r.programs[0].launches = wire.Launches()


def _only_graph(r: wire.Recording) -> None:
    p = r.programs[0]
    p.simplified, p.roots, p.decisions, p.kernels, p.calls, p.slots = [], [], [], [], [], []
    p.stages, p.launches, p.certificate = p.stages[:2], wire.Launches(), wire.Certificate()
    p.layouts = {"recorded": p.layouts["recorded"]}


@pytest.mark.parametrize("name", views.NAMES)
@pytest.mark.parametrize("less", [_not_run, _only_graph])
def test_what_was_not_recorded_is_missing_and_never_zero(
    name: str, less: Callable[[wire.Recording], None], sample: wire.Recording
) -> None:
    less(sample)
    made = make(sample, name)
    assert not made.error
    ET.fromstring(made.svg)
    if name in ("timeline", "overview"):
        row = next(line for line in made.text.split("\n") if line.startswith("time of one run"))
        assert units.MISSING in row and " 0 s" not in row


@pytest.mark.parametrize("name", views.NAMES)
def test_a_recording_without_programs_says_why(name: str, sample: wire.Recording) -> None:
    sample.programs, sample.realized, sample.missing = [], [], ["nothing was computed"]
    made = make(sample, name)
    assert "nothing was computed" in made.error
    assert made.text == made.error and "nothing was computed" in made.svg
    assert "failed" not in made.text


NASTY = "<script>alert('&\"')</script>\x00\x1b[31m\n]]>"


@pytest.mark.parametrize("name", views.NAMES)
def test_markup_and_control_characters_in_names_are_harmless(name: str, sample: wire.Recording) -> None:
    p = sample.programs[0]
    p.name = NASTY
    for column in (p.nodes.op, p.nodes.arg, p.nodes.module, p.nodes.dtype, p.origins.module):
        column[:] = [NASTY] * len(column)
    sample.lines.text[:] = [NASTY] * len(sample.lines)
    for f in sample.files:
        f.name = NASTY
    for k in p.kernels:
        k.name = NASTY
        k.scheduled.text[:] = [NASTY] * len(k.scheduled.text)
        k.source.text[:] = [NASTY] * len(k.source.text)
    for d in p.decisions:
        d.reason, d.verdict = NASTY, f"inline {NASTY}"
    for stage in p.stages:
        stage.question = NASTY
    made = make(sample, name)
    assert not made.error
    root = ET.fromstring(made.svg)
    assert not list(root.iter(f"{SVG}script")) and "<script" not in made.svg
    assert "\x1b" not in made.text and "\x00" not in made.text


def test_a_view_that_fails_says_so_in_its_place(sample: wire.Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    from tinyviz.views import fusion

    def broken(*args: Any) -> Any:
        raise RuntimeError("broken on purpose <b>")

    monkeypatch.setattr(fusion, "text", broken)
    made = make(sample, "fusion")
    assert made.error == made.text == "the view 'fusion' failed: RuntimeError: broken on purpose <b>"
    ET.fromstring(made.svg)
    forms, _ = Recording(sample).view("fusion")._repr_mimebundle_()
    assert "broken on purpose" in forms["text/plain"]


def test_an_unknown_view_is_an_error_that_names_the_others(recording: Recording) -> None:
    with pytest.raises(ValueError, match="there is no view 'fusions'; views: overview, graph"):
        recording.view("fusions")


def test_a_selected_kernel_is_shown(recording: Recording) -> None:
    made = recording.view("kernel", selection=("kernel", "0.2"))
    assert made.data.kernel == 2 and recording.kernels[2].name in made.text
    assert "there is no 99" in recording.view("kernel", selection=Selection("kernel", "0.99")).text


def test_a_page_carries_other_programs_too_while_they_are_small(sample: wire.Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    other = copy.deepcopy(sample.programs[0])
    other.launches.count = 1
    sample.programs.append(other)
    data = explore.page(sample, ("overview", "lines"), "lines")
    (more,) = data["more"]
    assert more["program"] == 1 and more["views"]["lines"]["program"] == 1 and more["views"]["graph"] is None
    assert data["views"]["lines"]["program"] == 0 and set(more["texts"]) == {"overview", "lines"}
    whole = explore.page(sample, ("kernel",), "kernel")["texts"]["kernel"]
    monkeypatch.setattr(explore, "TEXT_MOST", 500)
    short = explore.page(sample, ("kernel",), "kernel")["texts"]["kernel"]
    assert (
        len(short) < 600
        and short.endswith('… and more: print(rec.view("kernel"))')
        and whole.startswith(short.rpartition("\n")[0])
    )
    monkeypatch.setattr(explore, "MORE_NODES", 10)
    assert explore.page(sample, ("overview",), "overview")["more"] == []


def test_without_a_widget_the_drawing_and_the_text_remain(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tinyviz.widget", None)
    forms, _ = recording._repr_mimebundle_()
    assert sorted(forms) == ["image/svg+xml", "text/html", "text/plain"]
    assert forms["text/html"].startswith("<img alt=") and forms["text/plain"].startswith("Overview")


def test_with_a_widget_all_views_travel_together(recording: Recording) -> None:
    forms, _ = recording._repr_mimebundle_()
    assert {"application/vnd.tinyviz+json", "application/vnd.jupyter.widget-view+json", "text/html", "text/plain"} <= set(forms)
    explorer = recording.view()
    explorer.selection = ("line", "3")
    assert explorer.selection == Selection("line", "3")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "–"),
        (0.0, "0 ns"),
        (1.5e-9, "1.50 ns"),
        (4.2e-6, "4.20 µs"),
        (0.9999, "1.00 s"),
        (2.0, "2 s"),
        (float("nan"), "–"),
    ],
)
def test_seconds(value: float | None, said: str) -> None:
    assert units.seconds(value) == said


def test_other_units() -> None:
    said = ["–", "0 B", "1 B", "1023 B", "1 KiB", "1.50 KiB", "3 GiB"]
    assert [units.nbytes(x) for x in (None, 0, 1, 1023, 1024, 1536, 3 << 30)] == said
    assert [units.count(x) for x in (7, 1000, 12_345, 2e9)] == ["7", "1 k", "12.3 k", "2 G"]
    assert [units.percent(x) for x in (None, 0, 0.004, 0.0996, 1)] == ["–", "0 %", "0.4 %", "10 %", "100 %"]


def test_plurals() -> None:
    assert [units.some(n, w) for n, w in ((1, "launch"), (2, "launch"), (0, "run"))] == ["1 launch", "2 launches", "0 runs"]


def test_long_texts_are_cut_and_wrapped_inside_the_drawing() -> None:
    out = Svg(500, "title", ["word " * 100], [])
    for t in ET.fromstring(str(out)).iter(f"{SVG}text"):
        assert len(t.text or "") * 6 < 500


def test_stages_of_a_program_from_disk_say_why_they_have_no_times(sample: wire.Recording) -> None:
    sentence = "the program came from the cache on disk"
    assert sentence not in str(Recording(sample).view("stages"))
    for p in sample.programs:
        for s in p.stages:
            s.seconds = None
    assert sentence in str(Recording(sample).view("stages"))
