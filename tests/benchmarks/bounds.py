"""Rows that miss what they should reach, or where a peer is quicker, and what bounds each: by measurement, not by guess.
`report.stale` names the rows that stand here and miss nothing."""

from __future__ import annotations

BOUNDS: dict[str, str] = {
    "chain_1k": (
        "Python: of 3.3 µs the native call takes 0.65 (its kernel 0.4), addresses, their block and the lock 0.5, memory for the"
        " result 0.36 and its release 0.3, the tensor and its node 0.28, the check of the arguments 0.35; the rest is calls of"
        " functions."
    ),
    "cold_mlp_empty": "NumPy by hand imports in 0.1 s and compiles nothing; of the engines none is quicker.",
    "cold_mlp_warm": "NumPy by hand imports in 0.1 s and loads nothing; half of the time is Python's and NumPy's own start.",
}
