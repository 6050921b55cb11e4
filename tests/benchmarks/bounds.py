"""Rows that miss what they should reach, or where a peer is quicker, and what bounds each: by measurement, not by guess.
`report.stale` names the rows that stand here and miss nothing."""

from __future__ import annotations

BOUNDS: dict[str, str] = {
    "cold_mlp_empty": "NumPy by hand imports in 0.1 s and compiles nothing; of the engines none is quicker.",
    "cold_mlp_warm": "NumPy by hand imports in 0.1 s and loads nothing; half of the time is Python's and NumPy's own start.",
}
