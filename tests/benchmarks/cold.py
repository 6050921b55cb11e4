"""One training step, as the first thing that a process does: python -m tests.benchmarks.cold ENGINE CASE INPUTS.npz"""

from __future__ import annotations

import importlib
import sys

import numpy as np

from tests.benchmarks.worker import ENGINES


def main(engine: str, case: str, path: str) -> None:
    with np.load(path) as f:
        inputs = dict(f)
    call, read = importlib.import_module(f"tests.benchmarks.{ENGINES[engine]}").make(case, inputs)
    call()
    print(float(read()[0]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
