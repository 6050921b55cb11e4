"""What the README says is so: its code runs and prints what stands below it, its links lead somewhere, its figures are those of
BENCHMARKS.md, its commands exist."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SCREENSHOT = 300_000  # bytes at most


def test_its_code_prints_what_it_says(tmp_path: Path) -> None:
    """All blocks as one script, in a fresh process."""
    blocks = re.findall(r"```python\n(.*?)```\n(?:```text\n(.*?)```\n)?", README, re.S)
    assert len(blocks) >= 2
    script = tmp_path / "readme.py"
    script.write_text("\n".join(code for code, _ in blocks), encoding="utf-8")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(said for _, said in blocks)
    assert (tmp_path / "three-lines.tvz").stat().st_size and (tmp_path / "three-lines.html").stat().st_size


def test_its_links_lead_somewhere() -> None:
    links = [x for x in re.findall(r"\]\(([^)]+)\)", README) if "://" not in x]
    assert len(links) >= 5
    assert not [x for x in links if not (ROOT / x).exists()]


def test_its_screenshot_is_a_small_png() -> None:
    (path,) = [ROOT / x for x in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)]
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG") and len(data) <= SCREENSHOT
    width, height = struct.unpack(">II", data[16:24])
    assert width >= 1000 and height >= 500


def test_its_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = re.findall(r"^make (\w+)", README, re.M)
    assert {"lab", "demo", "test", "bench"} <= set(commands)
    assert all(re.search(rf"^{c}:", makefile, re.M) for c in commands)


def test_its_figures_are_those_of_the_benchmark() -> None:
    """Each row of the README's table: the same title and the same cells stand in one row of BENCHMARKS.md."""
    measured = [line.strip("| ").split(" | ") for line in (ROOT / "BENCHMARKS.md").read_text(encoding="utf-8").split("\n")]
    rows = [line.strip("| ").split(" | ") for line in README.split("\n") if re.match(r"\| [^-|].*\d", line)]
    assert len(rows) >= 4
    for title, *cells in rows:
        work = title.removeprefix("cold start, ")
        assert any(work in row[0] and set(cells) <= set(row) for row in measured), title
