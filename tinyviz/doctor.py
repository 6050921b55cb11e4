"""What works on this machine, in lines that a person can read; and the cache of compiled kernels."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tinyviz import units

GOOD, MISSING, BAD = "ok", "--", "!!"
Finding = tuple[str, str, str]  # how it is, what, and what about it


def examine() -> int:
    """Print what was found; 0 when everything that is needed works, else 1."""
    worst = 0
    for state, what, about in findings():
        print(f"{state}  {what:<20} {about}")
        worst = max(worst, state == BAD)
    print("\nall that is needed works" if not worst else "\nwhat is marked !! must be mended first")
    print("ok works   -- optional and not there   !! needed and not working")
    return int(worst)


def findings() -> Iterator[Finding]:
    yield GOOD, "python", f"{sys.version.split()[0]} at {sys.executable}"
    for check in (packages, backends, machine, cache, dot, lab, widget):
        try:
            yield from check()
        except Exception as e:  # a check that fails is a finding, and the others still tell theirs
            yield BAD, check.__name__, f"could not be examined: {type(e).__name__}: {e}"


def packages() -> Iterator[Finding]:
    needed = ("numpy", "llvmlite", "pyopencl", "ipywidgets", "anywidget", "graphviz")
    for name in (*needed, "jupyterlab", "scikit-learn"):
        try:
            yield GOOD, name, version(name)
        except PackageNotFoundError:
            yield (BAD if name in ("numpy", "ipywidgets", "anywidget") else MISSING), name, f"not installed: pip install {name}"


def backends() -> Iterator[Finding]:
    from tinyengine import backends as engine

    usable = []
    for name in engine.MODULES:
        try:
            engine.get(name)
        except engine.BackendError as e:
            yield MISSING, f"backend {name}", str(e).partition(": ")[2] or str(e)
        else:
            usable.append(name)
            mark = ", the default" if name == engine.current() else ""
            says = "computes nothing, on purpose" if name == "null" else f"a test kernel was built and run{mark}"
            about = getattr(engine.get(name), "about", None)
            says += f" on {about()}" if about is not None else ""
            yield GOOD, f"backend {name}", says
    if engine.current() not in usable:
        yield BAD, "backends", f"the default backend {engine.current()} cannot be used; usable: {', '.join(usable) or 'none'}"


def machine() -> Iterator[Finding]:
    from tinyengine import machine as engine

    m = engine.current()
    cores = f"{units.some(m.cores, 'core')}, {units.some(m.threads, 'thread')}"
    yield GOOD, "processor", f"{m.name}: {cores}, vectors of {m.vector_bytes} bytes"
    date = f" on {m.date}" if m.date else ""
    yield GOOD, "peaks", f"{m.source}{date}: {units.flops(m.fma_flops_all)}/s, memory {units.nbytes(m.read_all['dram'])}/s"


def cache() -> Iterator[Finding]:
    folder = cache_folder()
    if folder is None:
        yield MISSING, "kernel cache", "switched off by TINYENGINE_CACHE: kernels are compiled anew in each process"
        return
    files = [f for f in folder.rglob("*") if f.is_file()] if folder.is_dir() else []
    size = units.nbytes(sum(f.stat().st_size for f in files))
    if not folder.is_dir() and not os.access(_existing(folder), os.W_OK):
        yield MISSING, "kernel cache", f"{folder} cannot be made: kernels are compiled anew in each process"
    elif folder.is_dir() and not os.access(folder, os.W_OK):
        yield MISSING, "kernel cache", f"{folder} cannot be written: kernels are compiled anew in each process"
    else:
        yield GOOD, "kernel cache", f"{folder}: {len(files)} files, {size}"


def _existing(folder: Path) -> Path:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def dot() -> Iterator[Finding]:
    path = shutil.which("dot")
    yield (
        (GOOD, "graphviz dot", path) if path else (MISSING, "graphviz dot", "not installed: graphs are exported, not drawn by it")
    )


def lab() -> Iterator[Finding]:
    folders = [Path(sysconfig.get_path("data")) / "share" / "jupyter"]
    folders += [Path(f) for f in os.environ.get("JUPYTER_PATH", "").split(os.pathsep) if f]
    places = [f / "labextensions" / "tinyviz-lab" for f in folders]
    found = next((p for p in places if (p / "package.json").is_file()), None)
    if found is not None:
        yield GOOD, "lab extension", str(found)
    else:
        yield MISSING, "lab extension", "not installed: views work as widgets; no gutter. From a source tree: make lab"


def widget() -> Iterator[Finding]:
    if importlib.util.find_spec("anywidget") is None:
        yield MISSING, "widget", "anywidget is not installed: views are still pictures"
        return
    path = Path(__file__).parent / "static" / "widget.js"
    if path.is_file():
        yield GOOD, "widget", f"{units.nbytes(path.stat().st_size)} at {path}"
    else:
        yield MISSING, "widget", "its bundle was not built: views are still pictures. From a source tree: make bundles"


def cache_folder() -> Path | None:
    """Where the engine keeps compiled kernels; None where that is switched off."""
    from tinyengine.runtime import cache as engine

    return engine.location()


def clear_cache(say: Callable[[str], None] = print) -> int:
    """Empty the engine's cache of compiled kernels; measurements of the machine stay."""
    from tinyengine.runtime import cache as engine

    folder = cache_folder()
    if folder is None:
        say("the kernel cache is switched off: TINYENGINE_CACHE is empty or 0")
        return 0
    say(f"freed {units.nbytes(engine.clear())} in {folder}")
    return 0
