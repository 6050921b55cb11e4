"""The stop button of a notebook, while a cell trains: a KeyboardInterrupt in that cell, weights of whole steps, and a kernel that
goes on."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

ROOT = Path(__file__).parents[2]
SETUP = """
import numpy as np
from tinyengine import Tensor, jit
weights = [Tensor(np.zeros(1 << 18, np.float32)) for _ in range(4)]
@jit
def step():
    for w in weights:
        w.assign(w + 1)
    Tensor.realize(*weights)
step()
"""
LOOK = "print(sorted({float(v) for w in weights for v in w.numpy()[[0, 1 << 17, -1]]}))"


class Kernel:
    def __init__(self) -> None:
        path = os.pathsep.join([str(ROOT / "engine"), str(ROOT), os.environ.get("PYTHONPATH", "")])
        self.manager = KernelManager()
        self.manager.start_kernel(env={**os.environ, "PYTHONPATH": path, "TINYENGINE_THREADS": "2"})
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def run(self, code: str, interrupt_after: float | None = None) -> tuple[str, str]:
        """(what the cell printed, the name of its exception or "")."""
        sent = self.client.execute(code)
        printed, failed, running = "", "", False
        while True:
            message: dict[str, Any] = self.client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") != sent:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                printed += content["text"]
                if interrupt_after is not None and not running and "training" in printed:
                    running = True
                    time.sleep(interrupt_after)
                    self.manager.interrupt_kernel()
            elif kind == "error":
                failed = content["ename"]
            elif kind == "status" and content["execution_state"] == "idle":
                return printed, failed

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    k = Kernel()
    try:
        yield k
    finally:
        k.close()


def test_the_stop_button_leaves_whole_steps(kernel: Kernel) -> None:
    assert kernel.run(SETUP) == ("", "")
    dice = random.Random(0)
    counted = 1.0
    for _ in range(6):
        printed, failed = kernel.run("print('training', flush=True)\nwhile True: step()", dice.uniform(0.01, 0.1))
        assert (printed, failed) == ("training\n", "KeyboardInterrupt")
        (now,) = eval(kernel.run(LOOK)[0])  # one value: all four counted the same steps
        assert now >= counted
        assert kernel.run(f"step()\n{LOOK}") == (f"[{now + 1}]\n", "")
        counted = now + 1
    assert counted > 7  # and steps were done before the button was pressed
