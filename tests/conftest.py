"""What all tests share: after every stage its spec is checked, and every test draws the same random numbers in every run."""

import pytest

from tinyengine import manual_seed, spec
from tinyengine.backends import opencl_device

spec.enabled = True


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    manual_seed(0)


@pytest.fixture
def opencl_unoptimised(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of many OpenCL programs that run once: the driver compiles each several times as fast. That its optimiser keeps
    what they mean is seen in test_opencl.py and test_backends.py."""
    found = opencl_device.find().device
    if found is not None:
        monkeypatch.setattr(found, "options", ("-cl-opt-disable", *found.options))
