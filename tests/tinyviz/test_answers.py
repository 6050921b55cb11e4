"""What a live view asks: each answer is plain data, and a question that makes no sense is named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyviz as tv
from tinyengine import tune_store
from tinyengine.stages.primitives.apply import TABLE, parse
from tinyviz import answers, codec, explore, viewdata, wire
from tinyviz.answers import Answers
from tinyviz.space import space

rng = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TINYENGINE_CACHE", str(tmp_path))
    tune_store.forget()
    yield
    tune_store.forget()


def lowered() -> tv.lowering.Lowered:
    return tv.lower(tv.Tensor(rng.standard_normal((16, 40)).astype(np.float32)).softmax(1))


def asked(c: Any) -> Answers:
    found = c.recording.answers
    assert isinstance(found, Answers)
    return found


def test_a_what_if_names_the_edge_of_its_decision() -> None:
    c = lowered()
    at, d = next((i, d) for i, d in enumerate(c.recording.data.programs[0].decisions) if d.kind == "edge" and len(d.nodes) == 2)
    data = asked(c)({"type": "ask", "id": 3, "what": "what_if", "program": 0, "decision": at, "verdict": "whole"})
    a = codec.from_json(viewdata.WhatIfAnswer, data)
    assert a.followed and a.kernels == a.kernels_before + 1 == 2 and a.subject.startswith(d.subject.split()[0])
    assert a.pin.startswith('tv.pin("') and len(a.difference.samples) == len(a.before.samples)


def test_another_program_comes_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(explore, "MORE_NODES", 0)
    with tv.watch() as rec:
        tv.Tensor(np.ones((4, 4), np.float32)).exp().sum().item()
        tv.Tensor(np.ones((3, 5), np.float32)).sqrt().max().item()
    shown = rec.view()
    assert len(rec.programs) == 2 and shown.page["more"] == []
    other = 1 - shown.data.program
    loaded = tv.load(rec.save(tmp_path / "a.tvz"))
    for r, editable in ((rec, True), (loaded, False)):
        widget = r.view().widget
        assert widget.editable is editable and widget.answers is not None
        got = widget.answers({"what": "page", "program": other})
        page = codec.from_json(viewdata.ProgramPage, got)
        assert page.program == other and page.views.graph is not None and page.views.graph.program == other
        assert set(page.texts) == set(tv.views.NAMES)
    with pytest.raises(ValueError, match="there is no program 7: there are 2"):
        Answers(rec.data, [])({"what": "page", "program": 7})


def test_a_schedule_comes_back_with_linked_code_or_with_the_line_that_is_not_legal() -> None:
    c = lowered()
    ask = asked(c)
    a = codec.from_json(
        viewdata.ScheduleAnswer, ask({"what": "schedule", "program": 0, "kernel": 0, "lines": ["vectorize(j, 4)"]})
    )
    assert a.error_line == -1 and a.wrong == "" and a.before is not None and a.after is not None
    assert len(a.source.link) == len(a.source.text) > 0 and len(a.assembly.link) == len(a.assembly.text) > 0
    assert max(a.assembly.link) < len(a.scheduled.text) and any("step 4" in line for line in a.scheduled.text)
    wrong = {"what": "schedule", "program": 0, "kernel": 0, "lines": ["", "tile(q, 4)"]}
    a = codec.from_json(viewdata.ScheduleAnswer, ask(wrong))
    assert a.error_line == 1 and "no loop is called 'q'" in a.error and a.after is None and a.source.text == []


def test_the_editor_offers_every_primitive_with_every_option() -> None:
    editor = Path(__file__).parents[2] / "extension" / "src" / "parts" / "editor.ts"
    (offered,) = re.findall(r"^const PRIMITIVES = \[(.*?)\];", editor.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    primitives = parse(re.findall(r'"(.*?)"', offered))
    assert {p.name for p in primitives} == set(TABLE)
    for name, (_, _, _, options) in TABLE.items():
        assert {k for p in primitives if p.name == name for k, _ in p.options} == set(options), name


def test_the_tuner_is_asked_for_one_kernel_and_its_attempts_stay_in_later_recordings() -> None:
    c = lowered()
    told: list[str] = []
    a = codec.from_json(viewdata.TuneAnswer, asked(c)({"what": "tune", "program": 0, "kernel": 0, "budget": 0.2}, told.append))
    assert a.attempts[0].verdict == "default" and "tuned in" in a.text
    again = lowered().recording.data.programs[0].kernels[0]
    assert [x.verdict for x in again.attempts] == [x.verdict for x in a.attempts] and again.tuned
    view = lowered().view("kernel")
    assert "what the tuner tried" in view.text and view.text.count("default") >= 1
    assert all(x.reason in view.text for x in a.attempts)
    assert "what the tuner tried" in view.svg


@pytest.mark.parametrize(("question", "why"), [
    (
        {"what": "sing"},
        "unknown question 'sing'; known: what_if, schedule, tune, ablate, count, bisect, recompute, recompute_under, page",
    ),
    ({}, "unknown question None"),
    ({"what": "what_if", "program": 7, "decision": 0, "verdict": "whole"}, "there is no program 7: there are 1"),
    ({"what": "what_if", "program": 0, "decision": True, "verdict": "whole"}, "there is no decision True"),
    ({"what": "what_if", "program": 0, "decision": 1, "verdict": "hole"}, "'hole' is none of inline, at loop, whole"),
    ({"what": "schedule", "program": 0, "kernel": 5, "lines": []}, "there is no kernel 5: there are 1"),
    ({"what": "schedule", "program": 0, "kernel": 0, "lines": "tile(i, 4)"}, "the lines of a schedule are a list of texts"),
    ({"what": "tune", "program": 0, "kernel": 0, "budget": -1}, "the budget is -1"),
    ({"what": "schedule", "program": 0, "kernel": 0, "lines": [], "more": 1}, "unexpected keyword argument 'more'"),
])  # fmt: skip
def test_questions_that_make_no_sense(question: dict[str, Any], why: str) -> None:
    with pytest.raises((ValueError, TypeError), match=why):
        asked(lowered())(question)


def test_a_recording_from_elsewhere_answers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    c = lowered()
    assert tv.load(c.recording.save(tmp_path / "r.tvz")).answers is None
    monkeypatch.setattr(answers, "LIVE_BYTES", 16)
    ask = asked(c)
    with pytest.raises(ValueError, match="the memory of this program is gone"):
        ask({"what": "schedule", "program": 0, "kernel": 0, "lines": []})


def test_a_recorded_program_answers_too() -> None:
    x = tv.Tensor(rng.standard_normal((16, 40)).astype(np.float32))
    with tv.watch() as rec:
        x.softmax(1).numpy()
    ask = rec.answers
    assert ask is not None
    assert ask({"what": "schedule", "program": 0, "kernel": 0, "lines": ["parallel(i)"]})["wrong"] == ""


# ---- the iteration space


def test_addresses_are_arithmetic_on_loop_variables() -> None:
    x, w = (tv.Tensor(rng.standard_normal(s).astype(np.float32)) for s in ((2, 3, 8, 8), (4, 3, 3, 3)))
    k = tv.lower(x.conv2d(w, padding=1)).engine.nests[0].kernel
    s = space(k)
    assert [(loop.name, loop.stop, loop.reduce) for loop in s.loops][-1] == ("r_2", 3, True)
    read = next(a for a in s.accesses if not a.write)
    assert read.index == ["i", "r", "k r_1 + -1 +", "l r_2 + -1 +"] and read.mask.startswith("-1 k r_1 + -1 + <")
    assert [a.write for a in s.accesses] == [False, False, True]
    assert all(0 <= loop.parent < i or loop.parent == -1 for i, loop in enumerate(s.loops))


def test_addresses_that_depend_on_data_say_so() -> None:
    table, at = tv.Tensor(np.ones((9, 4), np.float32)), tv.Tensor(np.array([1, 2, 3], np.int32))
    s = space(tv.lower(table[at] * 2).engine.nests[0].kernel)
    assert any("?" in a.index for a in s.accesses) and any("?" not in a.index for a in s.accesses)


def test_an_iteration_space_from_elsewhere_is_checked() -> None:
    from tinyviz.validate import validate

    for change in (
        lambda s: setattr(s.loops[1], "parent", 1), lambda s: setattr(s.loops[0], "step", 0),
        lambda s: setattr(s.accesses[0], "operand", 99), lambda s: s.accesses[0].index.append("i"),
    ):  # fmt: skip
        r: wire.Recording = lowered().recording.data
        made = r.programs[0].kernels[0].space
        assert made is not None
        change(made)
        with pytest.raises(ValueError, match=r"kernels\[0\]\.space"):
            validate(r)
