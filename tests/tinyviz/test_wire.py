"""The wire format: one definition, strict reading, TypeScript that follows it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from tinyviz import codec, viewdata, wire, wire_ts


def test_the_typescript_types_are_those_of_the_python_file() -> None:
    assert wire_ts.TARGET.read_text(encoding="utf-8") == wire_ts.generate(), "run python -m tinyviz.wire"


def test_a_drift_is_reported(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    old = tmp_path / "wire.ts"
    old.write_text(wire_ts.generate().replace("export interface Kernel ", "export interface Kernels "))
    monkeypatch.setattr(wire_ts, "TARGET", old)
    assert wire_ts.main(["--check"]) == 1
    assert wire_ts.main([]) == 0
    assert wire_ts.main(["--check"]) == 0
    assert "run python -m tinyviz.wire" in capsys.readouterr().out


def test_every_column_of_a_table_is_a_list() -> None:
    tables = [c for m in (wire, viewdata) for c in vars(m).values() if isinstance(c, type) and issubclass(c, wire.Columns)]
    assert len(tables) > 5
    for table in tables:
        assert all(str(f.type).startswith("list[") for f in dataclasses.fields(table))


def test_the_sample_survives_a_round_trip(sample_page: dict[str, Any]) -> None:
    r = codec.from_json(wire.Recording, sample_page["recording"])
    assert codec.to_json(r) == sample_page["recording"]
    page = codec.from_json(viewdata.Page, sample_page, "page")
    assert codec.to_json(page)["views"] == sample_page["views"]


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("version", "1", "recording.version: expected int, found str '1'"),
        ("version", True, "expected int, found bool True"),
        ("programs", None, r"recording.programs: expected list\[Program\], found NoneType"),
        ("title", ["x"], "recording.title: expected str, found list"),
        ("extra", 1, "Recording has no field 'extra'"),
    ],
)
def test_what_does_not_fit_is_named(sample_page: dict[str, Any], path: str, value: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        codec.from_json(wire.Recording, sample_page["recording"] | {path: value})


def test_a_missing_field_is_named(sample_page: dict[str, Any]) -> None:
    short = {k: v for k, v in sample_page["recording"].items() if k != "lines"}
    with pytest.raises(ValueError, match="the field 'lines' of Recording is missing"):
        codec.from_json(wire.Recording, short)


def test_columns_of_different_length_are_refused(sample_page: dict[str, Any]) -> None:
    page = json.loads(json.dumps(sample_page["recording"]))
    page["lines"]["line"].pop()
    with pytest.raises(ValueError, match="columns of Lines differ in length"):
        codec.from_json(wire.Recording, page)


def test_numbers_without_a_json_form_are_missing() -> None:
    assert codec.to_json([1.5, float("nan"), float("inf"), None]) == [1.5, None, None, None]
    with pytest.raises(ValueError, match="expected float"):
        codec.from_json(float, float("nan"))
