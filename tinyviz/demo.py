"""`tinyviz demo`: train on real handwritten digits, compare predictions with measurements, write the explorer as one page."""

from __future__ import annotations

import linecache
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

GOAL = 0.97  # of the test images


def script(name: str) -> Any:
    """Run an example as the user's own file: its lines count as the user's, unlike those of this package. Returns its names."""
    path = Path(__file__).parent / "examples" / f"{name}.py"
    source = path.read_text(encoding="utf-8")
    shown = f"{name}.py"
    linecache.cache[shown] = (len(source), None, source.splitlines(keepends=True), shown)
    names: dict[str, Any] = {"__name__": name}
    exec(compile(source, shown, "exec"), names)
    return SimpleNamespace(**names)


def run(page: Path, epochs: int = 60, say: Callable[[str], None] = print) -> int:
    """Train, print the accuracy, the prediction ledger and the kernel table, write `page` and a .tvz beside it. 0 when the
    accuracy reached GOAL.

    Raises FileNotFoundError, naming the package, where the digits are not installed."""
    from tinyengine.machine import measure_once
    from tinyviz import units
    from tinyviz.recording import watch
    from tinyviz.views import choose, get

    measure_once(say)
    began = time.perf_counter()
    digits = script("digits")
    bar = Progress(epochs)
    for i in range(epochs):
        loss = digits.epoch()
        bar.show(i + 1, f"loss {loss:.3f}")
    bar.done()
    trained = time.perf_counter() - began
    accuracy = digits.accuracy(digits.test_images, digits.test_labels)
    say(f"trained {epochs} epochs on {len(digits.images):,} images in {trained:.1f} s")
    say(f"test accuracy {accuracy:.1%} on {len(digits.test_images)} images that it had not seen\n")

    with watch("a training step on handwritten digits") as rec:
        for _ in range(3):
            digits.epoch()
    data = rec.data
    if data.programs:
        overview: Any = get("overview")
        timeline: Any = get("timeline")
        at = choose(data, None, None)
        say("prediction ledger: before it ran, and after")
        say(timeline.ledger_text(timeline.data(data, at)))
        say(f"\nkernels of one step, {units.some(data.programs[at].launches.count, 'step')} recorded")
        say(overview.kernel_table(data, overview.data(data, at)))
    try:
        rec.html(page)
        rec.save(page.with_suffix(".tvz"))
    except (FileNotFoundError, OSError) as e:
        say(f"\nno page was written: {e}")
        return 1
    say(f"\nwrote {page} ({page.stat().st_size:,} bytes): open it in a browser")
    say(f"wrote {page.with_suffix('.tvz')}: for `tinyviz show`")
    if accuracy < GOAL:
        say(f"the test accuracy is below {GOAL:.0%}: something is wrong")
    return int(accuracy < GOAL)


class Progress:
    """A bar on a terminal; in a log, a line now and then."""

    def __init__(self, total: int) -> None:
        self.total, self.live = total, sys.stderr.isatty()

    def show(self, done: int, note: str) -> None:
        if self.live:
            filled = 30 * done // self.total
            print(f"\r[{'█' * filled}{'·' * (30 - filled)}] {done}/{self.total} {note} ", end="", file=sys.stderr, flush=True)
        elif done == self.total or done % max(1, self.total // 5) == 0:
            print(f"epoch {done}/{self.total} {note}", file=sys.stderr, flush=True)

    def done(self) -> None:
        if self.live:
            print(file=sys.stderr)
