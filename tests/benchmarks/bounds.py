"""Rows that miss what they should reach, or where a peer is quicker, and what bounds each: by measurement, not by guess.
`report.stale` names the rows that stand here and miss nothing."""

from __future__ import annotations

BOUNDS: dict[str, str] = {
    "cold_mlp_empty": "NumPy by hand imports in 0.1 s and compiles nothing; of the engines none is quicker.",
    "cold_mlp_warm": "NumPy by hand imports in 0.1 s and loads nothing; half of the time is Python's and NumPy's own start.",
    "matvec": (
        "It reads the matrix once, as fast as the best peers; the limit is the best of a few reads of as many bytes, which "
        "scatter by a fifth where neighbours share the memory."
    ),
    "chain_1M": (
        "Where vectors of 512 bits take two passes (Zen 4), arithmetic bounds it, and the limit counts bytes alone: 24 "
        "instructions per vector take about 16 cycles (the division 6, the fma of exp2 6), the bytes 5."
    ),
    "sum_64M": "The limit is the best of a few reads of as many bytes; the loads alone take all of its time (`ablate`).",
    "matmul_512": (
        "The kernel by itself takes 1.13 to 1.16 times the limit; the rest is copying panels and operands that "
        "went cold between rounds."
    ),
    "matmul_1024": (
        "The kernel by itself takes 1.09 to 1.14 times the limit; the rest is copying panels and operands that "
        "went cold between rounds."
    ),
    "matmul_2048": (
        "The kernel by itself takes 1.09 to 1.14 times the limit; the rest is copying panels, whose rows lie "
        "pages apart."
    ),
    "conv_32": "30 of 32 lanes do work (images of 30 pixels a row), and vectors cross cache lines.",
    "mlp": (
        "The forward kernel takes 356 µs, and 305 µs from a fresh copy of the weights: after the update they lie "
        "in the other core's cache."
    ),
    "cnn": "Convolutions take 1.1 to 1.2 times their products; passes of norms and pooling are bound by memory.",
    "gpt": (
        "Of 64 positions little of a panel of scores is masked as a whole; passes of norms, gelu and Adam are bound by memory."
    ),
    "cold_cnn_empty": "NumPy by hand imports in 0.1 s and compiles nothing; of the engines none is quicker.",
    "cold_gpt_empty": "NumPy by hand imports in 0.1 s and compiles nothing; of the engines none is quicker.",
    "lazy_op": "PyTorch executes it without a line of the user's in its record; here the line is captured too.",
}
