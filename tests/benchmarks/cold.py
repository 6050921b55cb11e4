"""One training step, as the first thing that a process does: python -m tests.benchmarks.cold ENGINE NETWORK BATCH

Prints the loss. Parameters are made here, by the engine's own initialisation; so is a batch of random data."""

from __future__ import annotations

import importlib
import sys

from tests.benchmarks.cases import batch_of
from tests.benchmarks.engines import ENGINES


def main(engine: str, network: str, batch: str) -> None:
    peer = importlib.import_module(f"tests.benchmarks.{ENGINES[engine].module}")
    call, read = peer.make(network, batch_of(network, int(batch)))
    call()
    print(float(read()[0]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
