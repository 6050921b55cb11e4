"""What all tests share: after every stage its spec is checked, and every test draws the same random numbers in every run."""

import pytest

from tinyengine import manual_seed, spec

spec.enabled = True


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    manual_seed(0)
