"""The same with torch.compile: functions whole; of a training step the loss and its gradient."""

from __future__ import annotations

import functools

from tests.benchmarks import pytorch

make = functools.partial(pytorch.make, compile=True)
