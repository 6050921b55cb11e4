"""Writes sample.json: the page (`tinyviz.viewdata.Page`) of a small training step, for tests in Python and TypeScript.

Run `python -m tests.tinyviz.make_sample` after a change of the wire format or of what the engine records. The texts that tests
compare with (texts/) are written by `pytest tests/tinyviz --update-texts`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest import mock

HERE = Path(__file__).parent
SAMPLE = HERE / "sample.json"


def record(backend: str = "llvm"):  # type: ignore[no-untyped-def]
    """A recording of six steps of a two-layer network on random data, on the tests' machine."""
    import numpy as np

    from tests.tinyviz import training
    from tinyengine import backends, machine
    from tinyviz.recording import watch

    with mock.patch.object(machine, "current", lambda: machine.FIXTURE), backends.use(backend):
        _, step = training.network()
        rng = np.random.default_rng(0)
        x = rng.random((32, 16), dtype=np.float32)
        y = rng.integers(0, 4, 32).astype(np.int32)
        with watch("sample") as rec:
            for _ in range(6):
                loss = step(*training.tensors(x, y))
            training.show(loss)
        rec.data.created = "2026-11-01T12:00:00+00:00"
        for f in rec.data.files:
            f.path = f.name
    return rec


def main() -> None:
    from tinyviz import views
    from tinyviz.explore import page
    from tinyviz.record import identified

    rec = record(*sys.argv[1:])
    identified(rec.data)
    data = page(rec.data, views.NAMES, "overview")
    SAMPLE.write_text(json.dumps(data, separators=(",", ":"), ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{SAMPLE.name}: {SAMPLE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
