"""memory: what is alive when, on a program planted by hand, and on the recorded sample."""

from __future__ import annotations

import pytest

from tinyviz import views, wire
from tinyviz.explore import make
from tinyviz.viewdata import MemoryData
from tinyviz.views import memory


def planted(r: wire.Recording) -> wire.Program:
    """Six calls; four temporaries of 100, 50, 30 and 20 bytes, the first two alive together at call 2."""
    p = r.programs[0]
    p.calls = [wire.Call(i, []) for i in range(6)]
    at = ((0, 100, 0, 2), (100, 50, 2, 4), (0, 30, 3, 5), (100, 20, 5, 5))
    p.slots = [wire.Slot("x", "uint8", [7], 7, "input", None, 0, 5, -1)]
    p.slots += [wire.Slot(f"t{i}", "uint8", [n], n, "temporary", o, a, b, -1) for i, (o, n, a, b) in enumerate(at)]
    p.arena_bytes = 150
    return p


def test_alive_adds_up_lifetimes_and_the_peak_is_the_first_largest(sample: wire.Recording) -> None:
    planted(sample)
    d: MemoryData = make(sample, "memory").data
    assert d.live == [100, 100, 150, 80, 80, 50]
    assert (d.peak_call, d.arena_live, d.given_bytes, d.peak_bytes, d.peak_measured) == (2, 150, 7, 157, None)
    assert [b.at_peak for b in d.buffers] == [True, True, True, False, False], "given memory is always alive"
    assert [b.kernel for b in d.buffers] == [-1, 0, 2, 3, 5]


def test_holders_add_up_to_the_peak_each_way(sample: wire.Recording) -> None:
    d: MemoryData = make(sample, "memory").data
    p = sample.programs[0]
    assert d.peak_bytes == p.certificate.peak_bytes, "the view and the certificate say the same"
    alive = sum(p.slots[b.slot].nbytes for b in d.buffers if b.at_peak)
    assert d.arena_live is not None and d.given_bytes is not None and alive == d.arena_live + d.given_bytes
    for by in ("role", "kernel", "line", "module"):
        mine = [h for h in d.holders if h.by == by]
        assert sum(h.nbytes for h in mine) == alive and sum(h.share or 0 for h in mine) == pytest.approx(1)
        assert [h.nbytes for h in mine] == sorted((h.nbytes for h in mine), reverse=True)


def test_buffers_that_share_addresses_share_no_call(sample: wire.Recording) -> None:
    """What the picture shows is what the plan promised."""
    p = sample.programs[0]
    here = [(s, memory.span(p, s)) for s in p.slots if s.offset is not None]
    for i, (a, (first, last)) in enumerate(here):
        assert a.offset is not None and p.arena_bytes is not None and a.offset + a.nbytes <= p.arena_bytes
        for b, (begin, end) in here[:i]:
            assert b.offset is not None
            apart = a.offset + a.nbytes <= b.offset or b.offset + b.nbytes <= a.offset
            assert apart or last < begin or end < first, (a.name, b.name)


def test_without_temporaries_there_is_no_peak_call(sample: wire.Recording) -> None:
    p = planted(sample)
    p.slots, p.arena_bytes = p.slots[:1], 0
    made = make(sample, "memory")
    d: MemoryData = made.data
    assert (d.peak_call, d.arena_live, d.peak_bytes) == (-1, 0, 7) and [b.at_peak for b in d.buffers] == [True]
    assert "the peak is at call" not in made.text and "no temporaries" in made.svg


def test_without_a_plan_everything_is_missing_and_nothing_is_zero(sample: wire.Recording) -> None:
    p = sample.programs[0]
    p.slots, p.calls, p.kernels, p.arena_bytes = [], [], [], None
    made = make(sample, "memory")
    d: MemoryData = made.data
    assert (d.peak_bytes, d.given_bytes, d.arena_bytes, d.arena_live, d.peak_call) == (None, None, None, None, -1)
    assert "no memory plan was recorded" in made.text and "no memory plan" in made.svg and " 0 B" not in made.text


def test_a_selected_buffer_chooses_its_program(sample: wire.Recording) -> None:
    assert views.choose(sample, None, wire.Selection("slot", "0.3")) == 0
