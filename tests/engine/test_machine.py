"""Machine: facts from the operating system, peaks measured by the engine's own kernels, kept on disk, never trusted blindly."""

from __future__ import annotations

import dataclasses
import datetime
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tinyengine import machine
from tinyengine.machine import FACTS, FIXTURE, LEVELS, Machine


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TINYENGINE_CACHE", str(tmp_path))
    yield
    machine._current.cache_clear()


def measured() -> Machine:
    return dataclasses.replace(machine.detect(), fma_flops=1e11, source="measured", date="2026-11-22", spread=0.1)


def test_the_facts_make_sense() -> None:
    m = machine.detect()
    assert 1 <= m.cores <= m.threads and m.vector_bytes in (16, 32, 64) and m.vector_registers in (16, 32)
    assert 4 << 10 <= m.l1_bytes <= m.l2_bytes <= m.l3_bytes <= machine.L3_OF_A_CORE * m.cores
    assert m.source == "estimated" and m.date == "" and m.spread >= 0.3  # an estimate says so
    assert set(m.read) == set(m.read_all) == set(LEVELS)
    assert all(m.read[a] >= m.read[b] for a, b in pairwise(LEVELS))
    assert m.clock > 1e9 and m.fma_flops <= m.fma_flops_all


def test_detecting_needs_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        assert not name.startswith("llvmlite")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert machine.detect() == machine.detect()


def test_json_round_trip_and_what_it_refuses() -> None:
    data = json.loads(json.dumps(FIXTURE.to_json()))
    assert Machine.from_json(data) == FIXTURE
    lacking = {k: v for k, v in data.items() if k != "cores"}
    wrong = [{**data, "cores": "two"}, {**data, "read": {}}, {**data, "read": 3.0}, {**data, "spread": None}]
    for broken in ({**data, "format": 0}, lacking, {**data, "colour": "red"}, {}, *wrong):
        with pytest.raises(ValueError, match="not a machine of format"):
            Machine.from_json(broken)


def test_the_key_holds_what_decisions_depend_on() -> None:
    read = {**FIXTURE.read, "l1": 1.0}
    changed = {"cores": 3, "threads": 5, "l2_bytes": 1, "fma_flops": 1.0, "launch_seconds": 1.0, "read": read}
    keys = {FIXTURE.key()} | {dataclasses.replace(FIXTURE, **{k: v}).key() for k, v in changed.items()}  # type: ignore[arg-type]
    assert len(keys) == 1 + len(changed)
    same = dataclasses.replace(FIXTURE, name="other", source="measured", date="2030-01-01")
    assert same.key() == FIXTURE.key()


def test_current_is_the_measurement_when_there_is_one() -> None:
    assert machine.current() == machine.detect()
    machine.save(measured())
    assert machine.current() == measured()


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 1}', "null", "\0\1"])
def test_a_damaged_measurement_is_not_used(damage: str, tmp_path: Path) -> None:
    machine.save(measured())
    (kept,) = tmp_path.glob("machine-*.json")
    kept.write_text(damage)
    machine._current.cache_clear()
    assert machine.current() == machine.detect()


@pytest.mark.parametrize("fact", FACTS)
def test_a_measurement_of_another_computer_is_not_used(fact: str, tmp_path: Path) -> None:
    machine.save(measured())
    (kept,) = tmp_path.glob("machine-*.json")
    data = json.loads(kept.read_text())
    data[fact] = "other" if isinstance(data[fact], str) else data[fact] + 1
    kept.write_text(json.dumps(data))
    machine._current.cache_clear()
    assert machine.current() == machine.detect()


def test_nothing_is_kept_with_the_cache_off_or_not_writable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TINYENGINE_CACHE", "")
    machine.save(measured())
    assert machine.current() == machine.detect() and list(tmp_path.iterdir()) == []
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("TINYENGINE_CACHE", str(blocked / "below"))
    machine.save(measured())
    assert machine.current() == machine.detect()


def test_the_thread_count_is_the_runtimes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYENGINE_THREADS", "1")
    assert machine.current().threads == 1 and machine.current().cores == 1


def test_probes_measure_and_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from tinyengine import probes

    monkeypatch.setattr(probes, "ROUNDS", 2)
    monkeypatch.setattr(probes, "SECONDS", 1e-4)
    monkeypatch.setattr(probes, "MAX_BYTES", 4 << 20)
    m = machine.measure()
    facts = machine.detect()
    assert m.source == "measured" and len(m.date) == 10 and all(getattr(m, f) == getattr(facts, f) for f in FACTS)
    numbers = [m.fma_flops, m.fma_flops_all, m.write_all, m.stream_all, m.copy_all, *m.read.values(), *m.read_all.values()]
    assert all(1e7 < n < 1e16 for n in numbers) and 0.05 <= m.spread <= 0.5 and m.launch_seconds > 0 and m.start_seconds > 0
    assert machine.current() == m and "measured" in m.text()


def test_the_machine_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[machine.Machine] = []

    def probe() -> machine.Machine:
        made.append(measured())
        machine.save(made[-1])
        return made[-1]

    said: list[str] = []
    monkeypatch.setattr(machine, "measure", probe)
    assert machine.measure_once(said.append) == measured() and machine.measure_once(said.append) == measured()
    assert len(made) == len(said) == 1


def test_a_busy_machine_is_measured_again_on_another_day(monkeypatch: pytest.MonkeyPatch) -> None:
    today = datetime.date.today().isoformat()
    busy = dataclasses.replace(measured(), fma_flops=1e9, launch_seconds=9.0, copy_all=9e12, spread=machine.BUSY, date=today)
    now = dataclasses.replace(measured(), date=today)
    monkeypatch.setattr(machine, "measure", lambda: now)
    machine.save(busy)
    assert machine.measure_once() == busy, "once a day is enough"
    machine.save(dataclasses.replace(busy, date="2020-01-01"))
    assert machine.measure_once() == dataclasses.replace(now, copy_all=9e12), "of each peak the better one"


def test_without_a_place_to_keep_it_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYENGINE_CACHE", "0")
    monkeypatch.setattr(machine, "measure", lambda: pytest.fail("measured"))
    assert machine.measure_once() == machine.detect()


def test_what_cannot_be_measured_stays_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    def probe() -> machine.Machine:
        raise RuntimeError("no llvm")

    said: list[str] = []
    monkeypatch.setattr(machine, "measure", probe)
    assert machine.measure_once(said.append) == machine.detect() and said[-1] == "the peaks stay estimated: no llvm"
