"""Data: the handwritten digits that ship with scikit-learn, data sets that are downloaded once, and mini-batches."""

from __future__ import annotations

import gzip
import importlib.util
import io
import os
import tarfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from tinyengine import download, hooks
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


# name -> (address of its folder, {file: MD5 sum as its publishers give it})
SETS: dict[str, tuple[str, dict[str, str]]] = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
    ),
    "fashion_mnist": (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
        {
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
    ),
    "cifar10": (
        "https://www.cs.toronto.edu/~kriz",
        {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
    ),
}


def _files(name: str) -> list[Any]:
    """The paths of the files of a data set, downloaded at the first call."""
    address, sums = SETS[name]
    return [download.fetch(f"{address}/{file}", md5, download.folder() / name / file) for file, md5 in sums.items()]


def _idx(path: Any) -> Array:
    """The bytes in a gzipped IDX file: two zeros, 8, the number of axes, their extents as big-endian int32, the bytes."""
    with gzip.open(path) as f:
        raw = f.read()
    rank = raw[3]
    shape = np.frombuffer(raw, ">i4", rank, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _idx_set(name: str) -> tuple[Array, Array, Array, Array]:
    x, y, test_x, test_y = [_idx(p) for p in _files(name)]
    return x[:, None], y.astype(np.int32), test_x[:, None], test_y.astype(np.int32)


def mnist() -> tuple[Array, Array, Array, Array]:
    """(train images, train labels, test images, test labels): 70,000 handwritten digits (LeCun, Cortes and Burges 1998). Images
    uint8 (n, 1, 28, 28), labels int32 (n,) from 0 to 9.

    Downloaded at the first call (11 MB), checked, and kept in `download.folder()`. OSError, which says how to get the file by
    hand, when that fails; so for `fashion_mnist` and `cifar10`."""
    return _idx_set("mnist")


def fashion_mnist() -> tuple[Array, Array, Array, Array]:
    """70,000 pictures of clothes in 10 classes, in the form of `mnist` (Xiao, Rasul and Vollgraf 2017); 31 MB."""
    return _idx_set("fashion_mnist")


def cifar10() -> tuple[Array, Array, Array, Array]:
    """60,000 photographs in 10 classes (Krizhevsky 2009), in the form of `mnist` with images (n, 3, 32, 32); 170 MB. The binary
    version is read, because the Python one is a pickle."""
    parts: dict[str, Array] = {}
    with tarfile.open(_files("cifar10")[0]) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.name.endswith(".bin") else None
            if content is not None:
                parts[member.name.rsplit("/", 1)[-1]] = np.frombuffer(content.read(), np.uint8).reshape(-1, 1 + 3 * 32 * 32)
    train = np.concatenate([parts[k] for k in sorted(parts) if k.startswith("data_batch")])
    test = parts["test_batch.bin"]
    images, labels = [a[:, 1:].reshape(-1, 3, 32, 32) for a in (train, test)], [a[:, 0].astype(np.int32) for a in (train, test)]
    return images[0], labels[0], images[1], labels[1]


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
        began = time.perf_counter() if hooks.watching else 0.0
        rows = order[start : start + size]
        batch = tuple([a[rows] for a in arrays])
        if hooks.watching:
            hooks.publish(hooks.HostWait("data.batches", time.perf_counter() - began))
        yield batch
