"""What all tests share: after every stage its spec is checked; every test draws the same random numbers in every run, and meets
numbers that have not varied."""

import signal
from collections.abc import Iterator

import pytest

from tinyengine import manual_seed, spec, varying
from tinyengine.backends import opencl_device

spec.enabled = True


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    manual_seed(0)
    varying.forget()


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """For tests that interrupt themselves: SIGINT raises KeyboardInterrupt, also where a shell runs the tests in the background
    and has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def opencl_unoptimised(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of many OpenCL programs that run once: the driver compiles each several times as fast. That its optimiser keeps
    what they mean is seen in test_opencl.py and test_backends.py."""
    found = opencl_device.find().device
    if found is not None:
        monkeypatch.setattr(found, "options", ("-cl-opt-disable", *found.options))
