from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinyviz import codec, wire
from tinyviz.recording import Recording

HERE = Path(__file__).parent
TEXTS = HERE / "texts"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-texts", action="store_true", help="write the text snapshots anew")


@pytest.fixture(scope="session")
def sample_page() -> dict[str, Any]:
    """The page that `make_sample` wrote, as JSON values."""
    page: dict[str, Any] = json.loads((HERE / "sample.json").read_text(encoding="utf-8"))
    return page


@pytest.fixture
def sample(sample_page: dict[str, Any]) -> wire.Recording:
    """A recording of a small training step; a fresh one for each test, so that tests may damage it."""
    r: wire.Recording = codec.from_json(wire.Recording, sample_page["recording"])
    # JSON lists are shared between reads
    return codec.from_json(wire.Recording, json.loads(json.dumps(codec.to_json(r))))  # type: ignore[no-any-return]


@pytest.fixture
def recording(sample: wire.Recording) -> Recording:
    return Recording(sample)


@pytest.fixture
def same_text(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compares a text with the one kept under that name; `--update-texts` writes it."""

    def check(name: str, text: str) -> None:
        path = TEXTS / f"{name}.txt"
        if request.config.getoption("--update-texts", default=False):
            path.write_text(text + "\n", encoding="utf-8")
        assert text + "\n" == path.read_text(encoding="utf-8"), f"{name} reads differently: see --update-texts"

    return check
