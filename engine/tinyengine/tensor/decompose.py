"""qr, svd and det: computed at once, on the host, by LAPACK. Their steps depend on one another and grow with the matrix, and svd
iterates until it converges: a static program of kernels would be long for the first and is impossible for the second."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tinyengine.origin import user_line
from tinyengine.tensor import core

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor


class QR(NamedTuple):
    """x = Q @ R."""

    Q: Tensor
    R: Tensor


class SVD(NamedTuple):
    """x = U @ diag(S) @ Vh."""

    U: Tensor
    S: Tensor
    Vh: Tensor


def _matrices(x: Any, what: str) -> np.ndarray[Any, Any]:
    """The values. RuntimeError for ints and vectors, NotImplementedError for halves and where a gradient is asked for."""
    if not x.dtype.is_float or x.ndim < 2:
        raise RuntimeError(f"{what} needs a float matrix, or a batch of them, not {x.dtype}{list(x.shape)}\n  at {user_line()}")
    if x.dtype.itemsize < 4:
        raise NotImplementedError(f"{what} of {x.dtype}: cast it to float32 first\n  at {user_line()}")
    if x.flow == core.FLOWS and core.state.limit != core.NO_FLOW:
        raise NotImplementedError(f"{what} has no gradient here; use x.detach().{what}()\n  at {user_line()}")
    return x._values(what)  # type: ignore[no-any-return]


class Decomposition:
    """Decompositions of matrices (the last two axes); any axes may come before."""

    __slots__ = ()

    def qr(self, mode: str = "reduced") -> QR:
        """(Q, R) of (..., m, n), as torch.linalg.qr: Q with orthonormal columns, R upper triangular. 'reduced': Q (m, k), R
        (k, n) for k = min(m, n); 'complete': Q (m, m), R (m, n); 'r': R alone, Q is empty. Computed at once; no gradient
        (NotImplementedError when one is asked for). RuntimeError for ints, vectors and other modes."""
        a = _matrices(self, "qr")
        if mode not in ("reduced", "complete", "r"):
            raise RuntimeError(f"qr: mode is 'reduced', 'complete' or 'r', not {mode!r}\n  at {user_line()}")
        make = core._cls
        if mode == "r":
            return QR(make(np.zeros(0, a.dtype)), make(np.linalg.qr(a, "r")))
        q, r = np.linalg.qr(a, mode)  # type: ignore[call-overload]
        return QR(make(q), make(r))

    def svd(self, full_matrices: bool = True) -> SVD:
        """(U, S, Vh) of (..., m, n), as torch.linalg.svd: singular values S in descending order; U (m, m) and Vh (n, n), or their
        first min(m, n) columns and rows when not `full_matrices`. Signs of pairs of vectors are free. Computed at once; no
        gradient (NotImplementedError when one is asked for). RuntimeError for ints, vectors, and values that are not finite."""
        a = _matrices(self, "svd")
        if not np.isfinite(a).all():
            raise RuntimeError(f"svd of a matrix with infinite or NaN elements\n  at {user_line()}")
        u, s, vh = np.linalg.svd(a, full_matrices)
        return SVD(*map(core._cls, (u, s, vh)))

    def det(self) -> Tensor:
        """The determinants (...) of (..., n, n), as torch.det. Computed at once; no gradient (NotImplementedError when one is
        asked for). RuntimeError for ints, vectors and matrices that are not square."""
        a = _matrices(self, "det")
        if a.shape[-1] != a.shape[-2]:
            raise RuntimeError(f"det needs square matrices, not shape {list(self.shape)}\n  at {user_line()}")  # type: ignore[attr-defined]
        return core._cls(np.asarray(np.linalg.det(a)))  # type: ignore[no-any-return]


__all__ = ["QR", "SVD", "Decomposition"]
