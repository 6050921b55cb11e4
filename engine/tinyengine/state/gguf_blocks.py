"""The block quantisations of ggml as tensor programs: bytes (blocks, bytes of one) -> float32 (blocks, values of one).

The layouts are those of ggml's `ggml-common.h` and the reference loops of `ggml-quants.c`. In every formula `d` is the scale of
a block, `q` the small integers and `m` what is added or taken away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tinyengine import dtypes
from tinyengine.tensor import Tensor, cat


@dataclass(frozen=True, slots=True)
class Block:
    """`values` numbers in `nbytes` bytes; `decode`: (blocks, nbytes) uint8 -> (blocks, values) float32."""

    name: str
    values: int
    nbytes: int
    decode: Callable[[Tensor], Tensor]


def _half(b: Tensor, at: int) -> Tensor:
    """The float16 at byte `at`, as (blocks, 1) float32."""
    return b[:, at : at + 2].bitcast(dtypes.float16).float()


def _fields(b: Tensor, bits: int) -> Tensor:
    """(n, k) bytes -> (n, 8 / bits, k): the low field of every byte, then the next, ..."""
    n, k = b.shape
    shifts = Tensor.arange(0, 8, bits, dtype=dtypes.uint8).reshape(1, 8 // bits, 1)
    return (b.reshape(n, 1, k) >> shifts) & ((1 << bits) - 1)


def _int(b: Tensor) -> Tensor:
    return b.cast(dtypes.int32)


def _nibbles(b: Tensor) -> Tensor:
    """(n, k) bytes -> (n, 2k): all low halves, then all high halves."""
    return _int(_fields(b, 4).reshape(b.shape[0], -1))


def _fifth(b: Tensor, at: int) -> Tensor:
    """The 32 bits from byte `at` in order, as (blocks, 32) of 0 or 16."""
    return _int(_fields(b[:, at : at + 4], 1).transpose(1, 2).reshape(b.shape[0], 32)) * 16


def _q4_0(b: Tensor) -> Tensor:
    return _half(b, 0) * (_nibbles(b[:, 2:]) - 8)


def _q4_1(b: Tensor) -> Tensor:
    return _half(b, 0) * _nibbles(b[:, 4:]) + _half(b, 2)


def _q5_0(b: Tensor) -> Tensor:
    return _half(b, 0) * (_nibbles(b[:, 6:]) + _fifth(b, 2) - 16)


def _q5_1(b: Tensor) -> Tensor:
    return _half(b, 0) * (_nibbles(b[:, 8:]) + _fifth(b, 4)) + _half(b, 2)


def _q8_0(b: Tensor) -> Tensor:
    return _half(b, 0) * _int(b[:, 2:].bitcast(dtypes.int8))


def _scale_pairs(b: Tensor) -> tuple[Tensor, Tensor]:
    """12 bytes -> 8 scales and 8 minima of 6 bits, each (blocks, 8, 1). The first four of both lie in the low bits of bytes 0 to
    7; of the last four, the low halves lie in bytes 8 to 11 and the upper two bits above those of the first."""
    low, high = b[:, :8] & 63, (b[:, :8] >> 6) << 4
    last = _fields(b[:, 8:], 4)
    scale = cat([low[:, :4], last[:, 0] | high[:, :4]], 1)
    least = cat([low[:, 4:], last[:, 1] | high[:, 4:]], 1)
    return _int(scale).unsqueeze(2), _int(least).unsqueeze(2)


def _k_nibbles(b: Tensor) -> Tensor:
    """128 bytes -> (blocks, 8, 32): of each 32 bytes the low halves, then the high ones."""
    n = b.shape[0]
    return _int(_fields(b.reshape(n * 4, 32), 4)).reshape(n, 8, 32)


def _affine(b: Tensor, scale: Tensor, least: Tensor, q: Tensor, d: int, m: int) -> Tensor:
    """d * scale * q - m * least, where d and m are the float16 at these bytes."""
    return ((_half(b, d).unsqueeze(2) * scale) * q - _half(b, m).unsqueeze(2) * least).reshape(b.shape[0], 256)


def _q2_k(b: Tensor) -> Tensor:
    n = b.shape[0]
    both = _int(_fields(b[:, :16], 4))
    q = _int(_fields(b[:, 16:80].reshape(n * 2, 32), 2)).reshape(n, 16, 16)
    return _affine(b, both[:, 0].unsqueeze(2), both[:, 1].unsqueeze(2), q, 80, 82)


def _q3_k(b: Tensor) -> Tensor:
    n = b.shape[0]
    low = _int(_fields(b[:, 96:104], 4)).reshape(n, 16)  # the low halves of 8 bytes, then the high ones
    high = _int(_fields(b[:, 104:108], 2)).reshape(n, 16)
    scale = (low + high * 16 - 32).unsqueeze(2)
    top = _int(_fields(b[:, :32], 1)).reshape(n, 16, 16)
    q = _int(_fields(b[:, 32:96].reshape(n * 2, 32), 2)).reshape(n, 16, 16) + top * 4 - 4
    return (_half(b, 108).unsqueeze(2) * scale * q).reshape(n, 256)


def _q4_k(b: Tensor) -> Tensor:
    return _affine(b, *_scale_pairs(b[:, 4:16]), _k_nibbles(b[:, 16:]), 0, 2)


def _q5_k(b: Tensor) -> Tensor:
    fifth = _int(_fields(b[:, 16:48], 1)) * 16
    return _affine(b, *_scale_pairs(b[:, 4:16]), _k_nibbles(b[:, 48:]) + fifth, 0, 2)


def _q6_k(b: Tensor) -> Tensor:
    n = b.shape[0]
    low = _int(_fields(b[:, :128].reshape(n * 2, 64), 4)).reshape(n, 16, 16)
    high = _int(_fields(b[:, 128:192].reshape(n * 2, 32), 2)).reshape(n, 16, 16)
    scale = _int(b[:, 192:208].bitcast(dtypes.int8)).unsqueeze(2)
    return (_half(b, 208).unsqueeze(2) * scale * (low + high * 16 - 32)).reshape(n, 256)


_IQ4_NL = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)  # kvalues_iq4nl of ggml-common.h


def _iq4_nl(b: Tensor) -> Tensor:
    return _half(b, 0) * Tensor(list(_IQ4_NL))[_nibbles(b[:, 2:])]


# by the number that a file gives
BLOCKS: dict[int, Block] = {
    2: Block("Q4_0", 32, 18, _q4_0), 3: Block("Q4_1", 32, 20, _q4_1), 6: Block("Q5_0", 32, 22, _q5_0),
    7: Block("Q5_1", 32, 24, _q5_1), 8: Block("Q8_0", 32, 34, _q8_0), 10: Block("Q2_K", 256, 84, _q2_k),
    11: Block("Q3_K", 256, 110, _q3_k), 12: Block("Q4_K", 256, 144, _q4_k), 13: Block("Q5_K", 256, 176, _q5_k),
    14: Block("Q6_K", 256, 210, _q6_k), 20: Block("IQ4_NL", 32, 18, _iq4_nl),
}  # fmt: skip


def dequantize(raw: Tensor, block: Block) -> Tensor:
    """(blocks, block.nbytes) uint8 -> (blocks, block.values) float32, recorded and not computed."""
    return block.decode(raw)


__all__ = ["BLOCKS", "Block", "dequantize"]
