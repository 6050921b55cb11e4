"""erf for NumPy arrays, which NumPy lacks: math.erf per distinct element, exact to the last bits in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

_erf = np.frompyfunc(math.erf, 1, 1)


def erf(x: Any) -> Any:
    """erf(x), elementwise; same shape and dtype as x."""
    x = np.asarray(x)
    return np.asarray(_erf(x.astype(np.float64)), np.float64).astype(x.dtype)
