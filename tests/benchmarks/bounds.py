"""Rows that miss what they should reach on some machine, or where a peer is quicker, and what bounds each: by measurement, not by
guess. `report.stale` names those that stand here and miss nothing in a run."""

from __future__ import annotations

BOUNDS: dict[str, str] = {
    "cold_mlp_empty": "NumPy by hand imports in 0.1 s and compiles nothing; of the engines none is quicker.",
    "cold_mlp_warm": "NumPy by hand imports in 0.1 s and loads nothing; half of the time is Python's and NumPy's own start.",
    "matvec": (
        "It reads the matrix once; the limit is the best of a few reads of as many bytes, which scatter by a fifth where "
        "neighbours share the memory. The best peer was between level and 1.4 times as quick in four runs: not understood."
    ),
    "chain_64M": (
        "Arithmetic, where vectors have 32 bytes: 12 cycles for 8 floats, of which the units need 7; the bytes take 7."
    ),
    "chain_1M": (
        "Arithmetic bounds it, and the limit counts bytes alone. Vectors of 64 bytes in two passes (Zen 4): 16 cycles for 16 "
        "floats (the division 6, the fma of exp2 6), the bytes 5. Of 32 bytes: 12 for 8 (the units need 7), the bytes 2.5."
    ),
    "chain_1k": "The call from Python: at 12 cycles for 8 floats the kernel itself takes 0.5 µs.",
    "softmax": "The exponential, where vectors have 32 bytes: 20 instructions for 8 floats, and a division.",
    "sum_64M": "The limit is the best of a few reads of as many bytes; the loads alone take all of its time (`ablate`).",
    "matmul_512": "Panels come from the second cache: 3 % beyond the products (same rows and panel again); their copy 2 %.",
    "matmul_1024": "Panels come from the second cache: 3 to 5 % beyond the products; their copy, a page for each row, 2 %.",
    "matmul_2048": "Panels come from the second cache: 3 to 5 % beyond the products; their copy 1.4 %, rows from memory.",
    "cold_cnn_empty": "NumPy by hand imports in 0.1 s and compiles nothing; of the engines none is quicker.",
    "cold_gpt_empty": "NumPy by hand imports in 0.1 s and compiles nothing; of the engines none is quicker.",
    "lazy_op": "PyTorch executes it without a line of the user's in its record; here the line is captured too.",
}
