"""`Recording`: what `watch` gives back and `load` reads. Its data is made when first asked for."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyviz import views, wire
from tinyviz.links import related
from tinyviz.wire import Selection

if TYPE_CHECKING:
    from tinyviz.answers import Answers
    from tinyviz.explore import Explorer
    from tinyviz.record import Recorder
    from tinyviz.tables import NameFile


class Recording:
    """Everything that was recorded. `data` is the wire form (see `tinyviz.wire`): plain dataclasses that any script may read.

    In a notebook it draws itself; `print(rec)` gives the overview as text; `rec.view("fusion")` one view, in all its forms.
    """

    def __init__(
        self, data: wire.Recording | None = None, recorder: Recorder | None = None, programs: Sequence[Any] = ()
    ) -> None:
        self._data, self._recorder = data, recorder
        self._built_at = -1
        self._programs = list(programs)  # the engine's, behind those of the data; [] for a recording that was loaded

    @property
    def data(self) -> wire.Recording:
        """The wire form. While recording goes on it is made anew when something came in since."""
        r = self._recorder
        if r is not None and (self._data is None or self._built_at != _size(r)):
            from tinyviz.record import build

            size = _size(r)
            self._programs = []
            self._data = build(r, name_file(), self._programs)
            self._built_at = size
            if r.ended is not None:
                self._recorder = None  # the engine's objects may go, but for the programs
        assert self._data is not None
        return self._data

    @property
    def answers(self) -> Answers | None:
        """What a live view asks (see `tinyviz.answers`); None for a recording that was loaded."""
        from tinyviz.answers import Answers

        data = self.data
        return Answers(data, self._programs) if self._programs else None

    def _ask(self, program: int | None) -> tuple[Answers, int]:
        """Who answers, and for which program. ValueError where the engine's program is gone."""
        at = views.choose(self.data, program, None)
        answers = self.answers
        if answers is None:
            raise ValueError("this recording was loaded: the program behind it is gone. Record it again, or use tv.lower")
        return answers, at

    def ablate(self, kernel: int, program: int | None = None) -> Explorer:
        """Measure what bounds a kernel: it is built without its arithmetic, without its memory traffic, and empty, and timed
        beside itself, on copies. It stays in the recording (`rec.kernels[i].ablation`); returns the view `roofline` with it.

        Raises ValueError where the recording was loaded, or for a kernel that there is not."""
        answers, at = self._ask(program)
        answers.ablate(at, kernel)
        return self.view("roofline", at, ("kernel", f"{at}.{kernel}"))

    def count(self, program: int | None = None) -> Explorer:
        """Count FLOPs, bytes and peak memory of one run in the reference interpreter, on copies: the measured side of the
        prediction ledger. It stays in the recording; returns the view `timeline` with it. Raises ValueError where the recording
        was loaded, or where the interpreter would take minutes."""
        answers, at = self._ask(program)
        answers.count(at)
        return self.view("timeline", at)

    def recompute(self, *buffers: str | int, under: int | None = None, program: int | None = None) -> Explorer:
        """What if these activations were computed again for their gradient instead of being kept? Predicted and measured effect
        on peak memory and time, on copies. `buffers`: names or numbers of buffers in the view `memory` that offer it. It stays in
        the recording (`rec.programs[i].recomputed`); returns the view `memory` with it.

        `under`: in place of buffers, a number of bytes: those are searched for that keep the predicted peak at or under it, by
        bytes freed for each FLOP (`tv.lower(...).recompute_under` tells each step); a ValueError says how far it comes else.

        Raises ValueError where the recording was loaded, or for a buffer that there is not or that cannot be computed again."""
        answers, at = self._ask(program)
        slots = self.data.programs[at].slots
        if under is not None:
            if buffers:
                raise ValueError("recompute takes buffers, or under=BYTES, not both")
            found = answers.recompute_under(at, under)
            if found.peak > under:
                raise ValueError(f"the peak cannot be brought under {under:,} bytes this way: {found.peak:,} is the least found")
            return self.view("memory", at)
        names = {s.name: i for i, s in enumerate(slots)}
        for b in buffers:
            if isinstance(b, str) and b not in names:
                offered = ", ".join(s.name for s in slots if s.again) or "none"
                raise ValueError(f"there is no buffer {b!r}; those that can be computed again: {offered}")
        answers.recompute(at, [names[b] if isinstance(b, str) else b for b in buffers])
        return self.view("memory", at)

    def bisect(self, program: int | None = None) -> Explorer:
        """Search the whole compilation for the first step after which the reference computes another value: a firing of a rule, a
        primitive of a schedule, or a compiled kernel. It stays in the recording (`rec.programs[i].bisection`); returns the view
        `stages` with it. Raises ValueError where the recording was loaded."""
        answers, at = self._ask(program)
        b = answers.bisect(at)
        stage = next((i for i, s in enumerate(self.data.programs[at].stages) if s.name == b.stage), -1)
        return self.view("stages", at, ("firing", f"{at}.{stage}.{b.firing}") if stage >= 0 and b.firing >= 0 else None)

    @property
    def programs(self) -> list[wire.Program]:
        """All recorded programs, in the order of their first run."""
        return self.data.programs

    @property
    def kernels(self) -> list[wire.Kernel]:
        """The kernels of the program that took most of the time; [] when nothing ran."""
        data = self.data
        return data.programs[views.choose(data, None, None)].kernels if data.programs else []

    def view(
        self, name: str | None = None, program: int | None = None, selection: Selection | tuple[str, str] | None = None
    ) -> Explorer:
        """One view (a name of `tinyviz.views.NAMES`), or all behind tabs. Raises ValueError for a name that there is not."""
        from tinyviz.explore import Explorer

        if name is not None:
            views.get(name)
        if isinstance(selection, tuple):
            selection = Selection(*selection)
        return Explorer(self, name, program, {"selection": selection} if selection is not None else {})

    def related(self, kind: str, id: str) -> dict[str, list[str]]:
        """Everything that belongs to one thing, by kind; see `tinyviz.links.related`."""
        return related(self.data, Selection(kind, id))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a .tvz file: zipped JSON with checksums. Returns its path."""
        from tinyviz.tvz import identified, save

        return save(identified(dataclasses.replace(self.data)), path)  # what was asked for since has changed the content

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recording:
        """Read a .tvz file; executes nothing. Raises FileNotFoundError, or ValueError that says what is wrong with the file."""
        from tinyviz.tvz import load

        return cls(load(path))

    def html(self, path: str | os.PathLike[str]) -> Path:
        """Write one self-contained interactive page. Returns its path."""
        return self.view().html(path)

    def perfetto(self, path: str | os.PathLike[str]) -> Path:
        """Write the recorded runs as a trace for https://ui.perfetto.dev (or chrome://tracing). Returns its path."""
        from tinyviz.perfetto import write

        return write(self.data, path)

    def table(self, name: str = "kernels", program: int | None = None) -> list[dict[str, Any]]:
        """The rows of one table (a name of `tinyviz.query.TABLES`) as plain dicts; None is "not known".

        Raises ValueError for a table or a program that there is not."""
        from tinyviz.query import rows

        return rows(self.data, name, program)

    def dataframe(self, name: str = "kernels", program: int | None = None) -> Any:
        """The same as a `pandas.DataFrame`; raises ImportError where pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise ImportError("pandas is not installed: pip install pandas, or use .table(), which gives plain dicts") from None
        return pandas.DataFrame(self.table(name, program))

    def dot(self, program: int | None = None) -> str:
        """The graph in Graphviz's DOT language."""
        from tinyviz.dot import dot

        data = self.data
        return dot(data, views.choose(data, program, None))

    def __repr__(self) -> str:
        return self.view("overview").text

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return self.view()._repr_mimebundle_(**kwargs)


def name_file() -> NameFile | None:
    """How the notebook of this process names its cells; None outside of one."""
    magics: Any = sys.modules.get("tinyviz.magics")
    book = magics.notebook() if magics is not None else None
    return None if book is None else book.name_file


def _size(r: Recorder) -> int:
    """Grows with everything that comes in."""
    folded = [*r.realized.values(), *r.caches.values(), *r.waits.values()]
    return sum(p.count for p in r.programs.values()) + sum(f.count for f in folded) + (r.ended is not None)


@contextlib.contextmanager
def watch(title: str = "", *, values: int = 0, finite: bool = False) -> Iterator[Recording]:
    """Record everything that the engine does inside: `with tv.watch() as rec: ...`; then look at `rec`.

    `values`: in every so many runs of each program the weights, gradients, updates and activations are sampled too, by computing
    that run a second time beside itself (see the view `values`). `finite`: a result that becomes NaN or infinite is reported at
    once, with the operation and the line that made it; each run's inputs are copied for that. Neither changes what is computed.

    Raises ValueError for a negative `values`."""
    from tinyviz.record import Recorder

    if values < 0:
        raise ValueError(f"watch: values={values}; expected 0 (no values are sampled) or every how many runs they are")
    recorder = Recorder(title, values, finite)
    recording = Recording(recorder=recorder)
    recorder.start()
    try:
        yield recording
    finally:
        recorder.stop()


def compare(before: Recording, after: Recording, program: int | None = None, before_program: int | None = None) -> Explorer:
    """What changed between two recordings: graph, kernels, lines and times, with the chance that a difference is noise.

    `program`: which of `after` (the one with most time); `before_program`: which of `before` (its likest)."""
    from tinyviz.explore import Explorer

    for name, given in (("before", before), ("after", after)):
        if not isinstance(given, Recording):
            raise TypeError(f"compare: {name} is a {type(given).__name__}, not a Recording; load a file with tv.load(path)")
    return Explorer(after, None, program, before=(before, before_program))


def load(path: str | os.PathLike[str]) -> Recording:
    """Read a .tvz file; see `Recording.load`."""
    return Recording.load(path)
