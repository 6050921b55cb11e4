"""Data: the handwritten digits that ship with scikit-learn, and mini-batches."""

from __future__ import annotations

import gzip
import importlib.util
import io
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from tinyengine.origin import user_line

Array = np.ndarray[Any, Any]


def digits(test: float = 0.2, seed: int = 0) -> tuple[Array, Array, Array, Array]:
    """(train images, train labels, test images, test labels): 1,797 handwritten digits of 8 by 8 pixels (UCI, Alpaydin and Kaynak
    1998).

    Images float32 (n, 64) in [0, 1], labels int32 (n,) from 0 to 9; `test` is the share of the test set, split by `seed`. The
    file is read from the scikit-learn package without importing it, which would take a second. FileNotFoundError when it is not
    installed."""
    if not 0 <= test < 1:
        raise ValueError(f"test is a share from 0 to below 1, not {test}\n  at {user_line()}")
    spec = importlib.util.find_spec("sklearn")
    folder = next(iter(spec.submodule_search_locations or [""])) if spec else ""
    path = os.path.join(folder, "datasets", "data", "digits.csv.gz")
    if not folder or not os.path.exists(path):
        raise FileNotFoundError(
            f"the digits come with scikit-learn, which is not installed{f' (no {path})' if folder else ''}: "
            f"pip install scikit-learn\n  at {user_line()}"
        )
    with gzip.open(path) as f:
        text = f.read()
    table = np.loadtxt(io.BytesIO(text), delimiter=",", dtype=np.float32)
    images, labels = table[:, :-1] / 16.0, table[:, -1].astype(np.int32)
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(len(labels))
    cut = len(labels) - round(test * len(labels))
    train, rest = order[:cut], order[cut:]
    return images[train], labels[train], images[rest], labels[rest]


def batches(
    *arrays: Any, size: int, shuffle: bool = True, drop_last: bool = True, seed: int | None = None
) -> Iterator[tuple[Any, ...]]:
    """Mini-batches of `size` rows from arrays of equal length, in random order. `drop_last` leaves out a smaller last one, which
    would need a program of its own. `seed` None draws the order from the generator of `manual_seed`. ValueError when the lengths
    differ."""
    lengths = {len(a) for a in arrays}
    if len(lengths) != 1 or size < 1:
        raise ValueError(
            f"batches need arrays of one length and a size of at least 1, got {[len(a) for a in arrays]} and {size}\n"
            f"  at {user_line()}"
        )
    n = lengths.pop()
    order = np.arange(n)
    if shuffle:
        from tinyengine.tensor import random

        order = (random.host() if seed is None else np.random.Generator(np.random.Philox(key=seed))).permutation(n)
    for start in range(0, n - size + 1 if drop_last else n, size):
        rows = order[start : start + size]
        yield tuple([a[rows] for a in arrays])
