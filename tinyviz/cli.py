"""The command line: tinyviz demo | lab | show FILE.tvz | compare BEFORE.tvz AFTER.tvz | doctor | cache clear."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinyviz import query, views
from tinyviz.recording import Recording
from tinyviz.wire import SELECTABLE, Selection


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 done, 1 it did not work out, 2 wrong use."""
    parser = argparse.ArgumentParser(prog="tinyviz", description="A neural network's training step, seen whole.")
    commands = parser.add_subparsers(dest="command", required=True)
    p = commands.add_parser("demo", help="train a network on handwritten digits and write an interactive page")
    p.add_argument("--html", type=Path, default=Path("tinyviz-demo.html"), help="where the page goes (default: %(default)s)")
    p.add_argument("--epochs", type=int, default=60)
    p = commands.add_parser("lab", help="open JupyterLab on the first notebook")
    p.add_argument("arguments", nargs=argparse.REMAINDER, help="handed on to JupyterLab")
    p = commands.add_parser("show", help="show a recording as text, or write it as a page")
    p.add_argument("file", type=Path)
    p.add_argument("--view", choices=views.NAMES, help="one view only (as text: default overview)")
    p.add_argument("--table", choices=tuple(query.TABLES), help="print one table: aligned, or with --json as a list of objects")
    p.add_argument("--select", metavar="KIND:ID", help="what is asked about: node:0.17, rule:3, firing:0.5.2 (one step)")
    _outputs(p)
    p.add_argument("--dot", type=Path, metavar="OUT", help="write the graph for Graphviz; .svg, .pdf and .png are drawn by it")
    p.add_argument("--perfetto", type=Path, metavar="OUT", help="write the runs as a trace for ui.perfetto.dev")
    p = commands.add_parser("compare", help="show what changed from one recording to another")
    p.add_argument("before", type=Path)
    p.add_argument("after", type=Path)
    _outputs(p)
    commands.add_parser("doctor", help="say what works on this machine")
    p = commands.add_parser("cache", help="the cache of compiled kernels")
    p.add_argument("action", choices=["clear"])
    args = parser.parse_args(argv)
    commands_by_name = {"demo": _demo, "lab": _lab, "show": _show, "compare": _compare, "doctor": _doctor, "cache": _cache}
    try:
        return commands_by_name[args.command](args)
    except BrokenPipeError:  # the reader, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except (OSError, ValueError, ImportError) as e:
        said = f"{e.filename}: {e.strerror}" if isinstance(e, OSError) and e.filename else e
        print(f"tinyviz {args.command}: {said}", file=sys.stderr)
        return 1


def _demo(args: Any) -> int:
    from tinyviz.demo import run

    return run(args.html, args.epochs)


def _lab(args: Any) -> int:
    try:
        from jupyterlab.labapp import main as lab
    except ImportError:
        raise ImportError("JupyterLab is not installed: pip install 'tinyviz-lab[lab]'") from None
    notebook = Path("notebooks/00_whole_game.ipynb")
    given = args.arguments or ([str(notebook)] if notebook.is_file() else [])
    if hasattr(os, "geteuid") and os.geteuid() == 0 and "--allow-root" not in given:
        given = ["--allow-root", *given]
    lab(given)
    return 0


def _outputs(p: argparse.ArgumentParser) -> None:
    """The forms that a view can be had in."""
    p.add_argument("--program", type=int, help="which program of the recording, from 0")
    p.add_argument("--html", type=Path, metavar="OUT", help="write a self-contained interactive page")
    p.add_argument("--svg", type=Path, metavar="OUT", help="write the view as a drawing")
    p.add_argument("--json", action="store_true", help="print the data as JSON")
    p.add_argument("--text", action="store_true", help="print the view as text (the default)")


def _show(args: Any) -> int:
    recording = Recording.load(args.file)
    given = [f"--{x}" for x in ("view", "select", "html", "svg", "dot", "perfetto") if getattr(args, x) is not None]
    if args.table is not None and given:
        raise ValueError(f"--table prints rows and nothing else: leave out {', '.join(given)}")
    if args.table is not None:
        rows = recording.table(args.table, args.program)
        print(json.dumps(rows, indent=1, ensure_ascii=False) if args.json else query.text(rows))
        return 0
    wrote = []
    if args.dot is not None:
        wrote.append(_dot(recording, args.program, args.dot))
    if args.perfetto is not None:
        wrote.append(recording.perfetto(args.perfetto))
    return _put(recording.view(args.view, args.program, _selection(recording, args.select)), args, wrote)


def _selection(recording: Recording, text: str | None) -> Selection | None:
    """'firing:0.5.2' as a selection. ValueError says which kinds there are, or that there is no such thing."""
    if text is None:
        return None
    kind, _, id = text.partition(":")
    if kind not in SELECTABLE or not all(part.isdecimal() for part in id.split(".")):
        raise ValueError(f"--select {text}: expected KIND:ID such as firing:0.5.2; kinds: {', '.join(SELECTABLE)}")
    recording.related(kind, id)  # a ValueError where the recording has no such thing
    return Selection(kind, id)


def _compare(args: Any) -> int:
    from tinyviz.recording import compare

    return _put(compare(Recording.load(args.before), Recording.load(args.after), args.program), args, [])


def _put(shown: Any, args: Any, wrote: list[Path]) -> int:
    """Write and print one view as asked for."""
    from tinyviz.codec import to_json

    if shown.made.error and args.program is not None:
        raise ValueError(shown.made.error)
    if args.html is not None:
        wrote.append(shown.html(args.html))
    if args.svg is not None:
        args.svg.write_text(shown.svg, encoding="utf-8")
        wrote.append(args.svg)
    for out in wrote:
        print(f"wrote {out} ({out.stat().st_size:,} bytes)")
    if args.json:
        print(json.dumps(to_json(shown.data), indent=1, ensure_ascii=False))
    elif args.text or not wrote:
        print(shown.text)
    return 1 if shown.made.error else 0


def _dot(recording: Recording, program: int | None, path: Path) -> Path:
    from tinyviz import dot

    at = views.choose(recording.data, program, None)
    if path.suffix in (".svg", ".pdf", ".png"):
        dot.draw(recording.data, at, path)
    else:
        path.write_text(dot.dot(recording.data, at), encoding="utf-8")
    return path


def _doctor(args: Any) -> int:
    from tinyviz.doctor import examine

    return examine()


def _cache(args: Any) -> int:
    from tinyviz.doctor import clear_cache

    return clear_cache()


if __name__ == "__main__":
    sys.exit(main())
