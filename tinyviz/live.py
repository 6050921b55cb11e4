"""The notebook's part of recording: `%%watch` for one cell, `%watch on` for every cell from now on, and what the gutter shows."""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING, Any

from tinyviz import views, wire
from tinyviz.analysis import plus
from tinyviz.gutter import Cost

if TYPE_CHECKING:
    from tinyviz.magics import Notebook
    from tinyviz.recording import Recording

USAGE = "%watch on | off, or %%watch [NAME] [--view VIEW] [--values EVERY] [--finite]: NAME gets the recording"


class Live:
    """The magics of one notebook. `recording`: the last one."""

    def __init__(self, book: Notebook) -> None:
        self.book = book
        self.recording: Recording | None = None
        self.on = False
        self._recorder: Any = None
        self._names: dict[str, str] = {}  # compiled name of a cell -> "In [3]"

    @property
    def number(self) -> int:
        """Of the cell that is running, as it stands beside it: IPython may have counted on already."""
        return int(self.book.shell.displayhook.prompt_count)

    # -- cells

    def started(self, info: Any) -> None:
        """Remember the number of the cell that begins, and begin to record where that is switched on."""
        shell, raw = self.book.shell, info.raw_cell
        if isinstance(raw, str):
            self._names[shell.compile.get_code_name(raw, raw, shell.execution_count)] = f"In [{self.number}]"
        if self.on:
            self._begin()

    def finished(self, result: Any = None) -> None:
        if self.on and self._recorder is not None:
            self._finish()

    def name_file(self, path: str) -> tuple[str, str, int] | None:
        """See `tinyviz.tables.NameFile`."""
        at = self.book.cells.find(path, 1)
        name = self._names.get(path)
        if at is None:
            return (name, "", 0) if name else None
        return name or "cell", at.cell, at.line - 1

    # -- magics

    def line_magic(self, line: str) -> None:
        word = line.strip()
        if word not in ("on", "off"):
            raise ValueError(f"%watch takes on or off, not {word!r}. {USAGE}")
        self.on = word == "on"
        if self.on:
            self._begin()
        elif self._recorder is not None:
            self._finish()

    def cell_magic(self, line: str, cell: str) -> Any:
        parser = argparse.ArgumentParser(prog="%%watch", add_help=False, exit_on_error=False)
        parser.add_argument("name", nargs="?")
        parser.add_argument("--view", choices=views.NAMES)
        parser.add_argument("--values", type=int, default=0)
        parser.add_argument("--finite", action="store_true")
        try:
            options = parser.parse_args(shlex.split(line))
        except (argparse.ArgumentError, SystemExit, ValueError) as e:
            raise ValueError(f"{e}. {USAGE}") from None
        if options.name is not None and not options.name.isidentifier():
            raise ValueError(f"%%watch: {options.name!r} is no name for a variable. {USAGE}")
        from tinyviz.recording import watch

        shell = self.book.shell
        with watch(f"cell {self.number}", values=options.values, finite=options.finite) as rec:
            result = shell.run_cell(cell, cell_id=self.book.cells.current)
        self.recording = rec
        if options.name:
            shell.user_ns[options.name] = rec
        if not result.success:
            return None  # the cell's own error has been shown
        self._feed(rec)
        return rec.view(options.view)

    # -- recording

    def _begin(self) -> None:
        if self._recorder is None:
            from tinyviz.record import Recorder

            self._recorder = Recorder(f"cell {self.number}")
            self._recorder.start()

    def _finish(self) -> None:
        from tinyviz.recording import Recording

        recorder, self._recorder = self._recorder, None
        recorder.stop()
        if recorder.programs:
            self.recording = Recording(recorder=recorder)
            self._feed(self.recording)

    def _feed(self, rec: Recording) -> None:
        """Show the costs beside the lines; what goes wrong there does not reach the user's cell."""
        try:
            data = rec.data
            for cell, (lines, ids, total) in cell_costs(data).items():
                self.book.gutter.show(cell, lines, total=total, recording=data.id, ids=ids)
        except Exception as e:
            print(f"tinyviz: the gutter cannot be filled: {type(e).__name__}: {e}")


Costs = tuple[dict[int, Cost], dict[int, str], Cost]


def cell_costs(r: wire.Recording) -> dict[str, Costs]:
    """Cell id -> (line number -> cost, line number -> line id, cost of the cell). All runs of the recording together.

    A kernel's time is charged, by its shares, to the innermost line of each cell that stands in the stack: so the cell that calls
    a function defined in another one shows what the call costs, and the other one shows where."""
    sums: dict[str, dict[int, list[float | None]]] = {}
    ids: dict[str, dict[int, str]] = {}
    totals: dict[str, list[float | None]] = {}
    for p in r.programs:
        n = p.launches.count
        for c, call in enumerate(p.calls):
            k = p.kernels[call.kernel]
            seconds = p.launches.total[c] if p.launches.total else None
            predicted = None if k.seconds_predicted is None else k.seconds_predicted * max(n, 1)
            moved = [None if v is None else float(v * max(n, 1)) for v in (k.bytes_read, k.bytes_written, k.flops)]
            values = [seconds, predicted, *moved, float(n) if n else None]
            seen: set[tuple[str, int]] = set()
            reached: dict[str, float] = {}
            for origin, share in zip(k.shares.origin, k.shares.share, strict=True):
                for cell, line in _cells_of(r, p, origin).items():
                    number = r.lines.line[line]
                    ids.setdefault(cell, {})[number] = str(line)
                    row = sums.setdefault(cell, {}).setdefault(number, [None] * 6)
                    for i in range(5):
                        row[i] = plus(row[i], values[i], share)
                    if (cell, number) not in seen:  # a launch serves a line or does not
                        seen.add((cell, number))
                        row[5] = plus(row[5], values[5], 1.0)
                    reached[cell] = reached.get(cell, 0.0) + share
            for cell, share in reached.items():
                total = totals.setdefault(cell, [None] * 6)
                for i in range(6):
                    total[i] = plus(total[i], values[i], share if i < 5 else 1.0)
    return {cell: ({n: Cost(*row) for n, row in rows.items()}, ids[cell], Cost(*totals[cell])) for cell, rows in sums.items()}


def _cells_of(r: wire.Recording, p: wire.Program, origin: int) -> dict[str, int]:
    """Cell id -> the innermost line of that cell in an origin's stack."""
    out: dict[str, int] = {}
    for line in p.origins.lines[origin] if origin >= 0 else ():
        cell = r.files[r.lines.file[line]].cell
        if cell:
            out.setdefault(cell, line)
    return out
