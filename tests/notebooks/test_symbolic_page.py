"""What docs/symbolic.md says is so: its examples run, in order, and print what stands below them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "symbolic.md"


def test_its_examples_print_what_it_says(tmp_path: Path) -> None:
    """All blocks as one script, in a fresh process."""
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```\n(?:```text\n(.*?)```\n)?", text, re.S)
    assert len(blocks) >= 8 and all(said for _, said in blocks)
    script = tmp_path / "symbolic.py"
    script.write_text("\n".join(code for code, _ in blocks), encoding="utf-8")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(said for _, said in blocks)


def test_its_links_lead_somewhere() -> None:
    links = [x for x in re.findall(r"\]\(([^)]+)\)", PAGE.read_text(encoding="utf-8")) if "://" not in x]
    assert links and not [x for x in links if not (PAGE.parent / x).exists()]
