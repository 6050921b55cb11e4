"""Who is measured: the module that does the work, the package it needs, and whether its memory is kept."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
OURS = "tinyviz"
KEEPING = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(256 << 20)}
# These hold somebody back, or make a difference that is not the engine's: bytecode that is compiled anew at every start.
UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "PYTHONDONTWRITEBYTECODE", "TINYENGINE_BACKEND", *KEEPING)


@dataclass(frozen=True)
class Engine:
    """`keeping`: its C library keeps freed memory instead of giving it back to the system; `slow`: measured in fewer rounds."""

    name: str
    module: str
    package: str
    keeping: bool = False
    slow: bool = False


ENGINES = {
    e.name: e
    for e in (
        Engine(OURS, "tiny", "llvmlite"),
        Engine("PyTorch", "pytorch", "torch"),
        Engine("PyTorch, keeping malloc", "pytorch", "torch", keeping=True),
        Engine("torch.compile", "torch_compile", "torch"),
        Engine("torch.compile, keeping malloc", "torch_compile", "torch", keeping=True),
        Engine("JAX jit", "jax_jit", "jax"),
        Engine("JAX jit, keeping malloc", "jax_jit", "jax", keeping=True),
        Engine("NumPy", "by_hand", "numpy", slow=True),
        Engine("tinygrad", "tinygrad_jit", "tinygrad", slow=True),
    )
}
COLD = (OURS, "PyTorch", "JAX jit", "NumPy")
LAZY = (OURS, "PyTorch", "JAX jit", "tinygrad")


def installed(name: str) -> bool:
    return importlib.util.find_spec(ENGINES[name].package) is not None


def absent(names: list[str]) -> list[str]:
    """What was left out, in words."""
    out: dict[str, list[str]] = {}
    for n in names:
        if not installed(n) and n.split(",")[0] not in out.setdefault(ENGINES[n].package, []):
            out[ENGINES[n].package].append(n.split(",")[0])
    verb = {True: "was", False: "were"}
    return [f"{' and '.join(who)} {verb[len(who) == 1]} left out: {package} is not installed" for package, who in out.items()]


def versions(names: list[str]) -> dict[str, str]:
    from importlib.metadata import version  # here: it takes a tenth of a small model's warm start

    packages = dict.fromkeys(ENGINES[n].package for n in names)
    return {"Python": sys.version.split()[0]} | {p: version(p) for p in packages}


def environment(engine: str, cache: str) -> dict[str, str]:
    """For a process of this engine: caches of compiled code in the folder `cache`, every setting of UNSET gone."""
    env = {k: v for k, v in os.environ.items() if k not in UNSET}
    path = [str(ROOT / "engine"), str(ROOT), *filter(None, [env.get("PYTHONPATH")])]
    env |= {
        "PYTHONPATH": os.pathsep.join(path), "TINYENGINE_CACHE": cache, "TORCHINDUCTOR_CACHE_DIR": f"{cache}/inductor",
        "JAX_COMPILATION_CACHE_DIR": f"{cache}/jax", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1", "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": f"{cache}/home",
    }  # fmt: skip
    return env | (KEEPING if ENGINES[engine].keeping else {})
