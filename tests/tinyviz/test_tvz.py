"""Files of recordings: what is saved is loaded; what is damaged is refused with a reason, never executed, never endless."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinyviz import codec, tvz, wire
from tinyviz.recording import Recording, load
from tinyviz.validate import validate


def test_save_and_load_give_the_same(recording: Recording, tmp_path: Path) -> None:
    path = recording.save(tmp_path / "a.tvz")
    again = load(path)
    assert codec.to_json(again.data) == codec.to_json(recording.data)
    assert again.save(tmp_path / "b.tvz").read_bytes() == path.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tvz", "b.tvz"]


def test_a_small_step_takes_little_room(recording: Recording, tmp_path: Path) -> None:
    assert recording.save(tmp_path / "a.tvz").stat().st_size < 64_000


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.tvz")


def test_any_damaged_byte_is_noticed_or_harmless(recording: Recording, tmp_path: Path) -> None:
    """Flip bytes all over the file: loading gives a ValueError, or, in a field that zip does not use, the same recording."""
    good = recording.save(tmp_path / "a.tvz").read_bytes()
    whole = codec.to_json(recording.data)
    rng = random.Random(0)
    bad = tmp_path / "bad.tvz"
    refused = 0
    for _ in range(150):
        data = bytearray(good)
        data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
        bad.write_bytes(data)
        try:
            assert codec.to_json(load(bad).data) == whole
        except ValueError as e:
            refused += 1
            assert "bad.tvz is no recording, or is damaged: " in str(e)
    assert refused > 120


def test_a_truncated_file_is_refused(recording: Recording, tmp_path: Path) -> None:
    good = recording.save(tmp_path / "a.tvz").read_bytes()
    for part in (0, 1, 10, len(good) // 2, len(good) - 1):
        (tmp_path / "cut.tvz").write_bytes(good[:part])
        with pytest.raises(ValueError, match=r"cut\.tvz is no recording, or is damaged"):
            load(tmp_path / "cut.tvz")


def _zip(path: Path, pieces: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as z:
        for name, data in pieces.items():
            z.writestr(name, data)
    return path


def _manifest(**changes: Any) -> bytes:
    return json.dumps({"format": tvz.FORMAT, "version": wire.VERSION, "recording": "x.json", "pieces": {}} | changes).encode()


@pytest.mark.parametrize(
    ("pieces", "says"),
    [
        ({"other.txt": b"hello"}, "without manifest.json"),
        ({"manifest.json": b"[1]"}, "its manifest does not say"),
        ({"manifest.json": b"\xff\xfe"}, "not UTF-8"),
        ({"manifest.json": b'{"format": NaN}'}, "NaN is not JSON"),
        ({"manifest.json": b"[" * 100_000}, "damaged"),
        ({"manifest.json": _manifest(format="cookbook")}, "its manifest does not say"),
        ({"manifest.json": _manifest(version=99)}, "it has version 99; this tinyviz reads version 2"),
        ({"manifest.json": _manifest()}, "the piece 'x.json' is missing"),
        ({"manifest.json": _manifest(pieces={"x.json": 2}), "x.json": b"{}"}, "does not match its checksum"),
        ({"manifest.json": _manifest(pieces={"x.json": 1 << 50})}, "the limit is"),
        ({"manifest.json": _manifest(pieces={"x.json": -5})}, "the limit is"),
        ({"manifest.json": _manifest(pieces={"x.json": "big"})}, "expected int, found str"),
        ({"manifest.json": _manifest(pieces={"x.json": 2}), "x.json": b"x" * 1000}, "larger than it says"),
    ],
)
def test_a_foreign_zip_is_refused(tmp_path: Path, pieces: dict[str, bytes], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        load(_zip(tmp_path / "a.tvz", pieces))


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    squeezed = io.BytesIO()
    with zipfile.ZipFile(squeezed, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("manifest.json", b" " * (64 << 20))
    (tmp_path / "a.tvz").write_bytes(squeezed.getvalue())
    with pytest.raises(ValueError, match="larger than it says"):
        load(tmp_path / "a.tvz")


def _first(p: list[Any]) -> int:
    return next(i for i, row in enumerate(p) if row)


def _simplify(r: wire.Recording) -> wire.Stage:
    return next(s for s in r.programs[0].stages if s.name == "simplify" and len(s.frames))


def _cycle(r: wire.Recording) -> None:
    src = r.programs[0].nodes.src
    src[_first(src)] = [len(src) - 1]


def _replaced_again(r: wire.Recording) -> None:
    f = _simplify(r).frames
    for column in vars(f).values():
        column += column[:1]


def _wide(r: wire.Recording) -> None:
    r.programs[0].layouts["recorded"].width = 1e30


def _far(r: wire.Recording) -> None:
    x = r.programs[0].layouts["recorded"].x
    x[0] = -1e300


def _huge_shape(r: wire.Recording) -> None:
    r.programs[0].nodes.shape[0] = [1 << 60]


def _lost_line(r: wire.Recording) -> None:
    r.lines.file[0] = 77


def _lost_kernel(r: wire.Recording) -> None:
    r.programs[0].calls[0].kernel = -3


def _lost_link(r: wire.Recording) -> None:
    r.programs[0].kernels[0].source.link[0] = 10_000


def _lost_times(r: wire.Recording) -> None:
    r.programs[0].launches.median.pop()


def _old(r: wire.Recording) -> None:
    r.version = 0


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_cycle, "do not all come before it: a cycle"),
        (_replaced_again, "was replaced before: a cycle"),
        (_wide, "cannot be drawn"),
        (_far, "a position is outside"),
        (_huge_shape, "is no shape"),
        (_lost_line, r"recording.lines.file: 77 is not one of the \d+ that there are"),
        (_lost_kernel, r"calls\[0\].kernel: -3"),
        (_lost_link, r"kernels\[0\].source.link: 10000"),
        (_lost_times, r"launches.median: \d+ times for \d+ calls"),
        (_old, "reads version 2, the file has 0"),
    ],
)
def test_nonsense_in_the_data_is_named(
    sample: wire.Recording, tmp_path: Path, damage: Callable[[wire.Recording], None], says: str
) -> None:
    validate(sample)
    damage(sample)
    with pytest.raises(ValueError, match=says):
        validate(sample)
    if damage is not _old:  # the version stands in the manifest too
        with pytest.raises(ValueError, match=says):
            tvz.load(tvz.save(sample, tmp_path / "a.tvz"))


def test_changed_values_never_hang_or_crash(sample_page: dict[str, Any]) -> None:
    """Replace random values deep in the data: it is read, or refused with ValueError; nothing else."""
    rng = random.Random(1)
    strange = [None, -1, 1 << 70, 1e308, "", "<script>", [], {}, [[]], True, [-1], {"a": 1}]
    text = json.dumps(sample_page["recording"])
    refused = 0
    for _ in range(120):
        data = json.loads(text)
        at: Any = data
        for _depth in range(rng.randrange(1, 8)):
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            key = rng.choice(keys)
            if not isinstance(at[key], (dict, list)) or not at[key]:
                break
            at, last = at[key], (at, key)
        else:
            at, key = last
        at[key] = rng.choice(strange)
        try:
            validate(codec.from_json(wire.Recording, data))
        except ValueError:
            refused += 1
    assert refused > 60
