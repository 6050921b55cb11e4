"""GGUF files that the gguf package wrote, against its own reading of them."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.peer import value
from tinyengine import dtypes
from tinyengine.node import toposort
from tinyengine.state import gguf_load
from tinyengine.state.gguf_blocks import BLOCKS

gguf = pytest.importorskip("gguf")
PLAIN = ["float32", "float16", "float64", "int8", "int16", "int32", "int64"]
Kind = gguf.GGMLQuantizationType


def written(path: Path, tensors: dict[str, tuple[np.ndarray[Any, Any], Any]], align: int | None = None) -> Path:
    """A file of tensors, as (bytes of blocks, type) or plain arrays with their own."""
    w = gguf.GGUFWriter(path, "test")
    if align:
        w.add_custom_alignment(align)
    w.add_uint32("a.number", 7)
    w.add_int64("a.long", -(1 << 40))
    w.add_float32("a.float", 0.5)
    w.add_bool("a.bool", True)
    w.add_string("a.string", "grüße")
    w.add_array("a.numbers", [1, 2, 3])
    w.add_array("a.strings", ["x", "yy"])
    for name, (a, kind) in tensors.items():
        w.add_tensor(name, a, raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


@pytest.mark.parametrize("align", [None, 128])
def test_key_values_and_plain_tensors(tmp_path: Path, align: int | None) -> None:
    rng = np.random.default_rng(0)
    plain = {n: rng.integers(-100, 100, (3, 5)).astype(n) for n in PLAIN}
    kv, found = gguf_load(written(tmp_path / "a.gguf", {n: (a, None) for n, a in plain.items()}, align))
    assert kv["general.architecture"] == "test" and kv["a.number"] == 7 and kv["a.long"] == -(1 << 40) and kv["a.float"] == 0.5
    assert kv["a.bool"] is True and kv["a.string"] == "grüße" and kv["a.numbers"] == [1, 2, 3] and kv["a.strings"] == ["x", "yy"]
    assert list(found) == list(plain)
    for n, a in plain.items():
        assert found[n].dtype.name == n
        np.testing.assert_array_equal(value(found[n]), a)


def test_bfloat16(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((4, 8), np.float32)
    raw = gguf.quants.quantize(x, Kind.BF16)
    t = gguf_load(written(tmp_path / "a.gguf", {"w": (raw, Kind.BF16)}))[1]["w"]
    assert t.shape == (4, 8) and t.dtype is dtypes.bfloat16
    np.testing.assert_array_equal(value(t).astype(np.float32), gguf.quants.dequantize(raw, Kind.BF16))


@pytest.mark.parametrize("number", BLOCKS)
def test_quantised_tensors(tmp_path: Path, number: int) -> None:
    """Blocks of random bytes with finite scales cover every bit; where the package can quantise, real weights too."""
    kind, block = Kind(number), BLOCKS[number]
    assert block.name == kind.name and (block.values, block.nbytes) == gguf.GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng(number)
    raw = rng.integers(0, 256, (5, 3 * block.nbytes), dtype=np.uint8)
    parts = raw.reshape(-1, block.nbytes)
    with np.errstate(all="ignore"):
        for at in range(0, block.nbytes - 1):  # every pair of bytes that could be a scale is a finite float16
            parts[:, at + 1] = np.where(parts[:, at + 1] & 0x7C == 0x7C, parts[:, at + 1] ^ 0x04, parts[:, at + 1])
        raws = {"random": raw}
        with contextlib.suppress(NotImplementedError):
            raws["weights"] = gguf.quants.quantize(rng.standard_normal((4, 2 * block.values), np.float32), kind)
        expected = {k: gguf.quants.dequantize(a, kind) for k, a in raws.items()}
    _, found = gguf_load(written(tmp_path / "a.gguf", {k: (a, kind) for k, a in raws.items()}))
    for k, e in expected.items():
        assert found[k].shape == e.shape and found[k].dtype.name == "float32" and np.isfinite(e).all()
        np.testing.assert_array_equal(value(found[k]), e, err_msg=f"{block.name} {k}")
    stored = [n for n in toposort([found["random"].node]) if n.op == "buffer" and n.dtype is dtypes.uint8]
    assert [n.size for n in stored] == [raw.size], "the quantised bytes are all that is kept"


def test_a_quantised_product_on_the_compiling_backend(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    raw = gguf.quants.quantize(rng.standard_normal((16, 64), np.float32), Kind.Q4_0)
    w = gguf_load(written(tmp_path / "a.gguf", {"w": (raw, Kind.Q4_0)}))[1]["w"]
    x = rng.standard_normal((4, 64), np.float32)
    from tinyengine import Tensor

    np.testing.assert_allclose((Tensor(x) @ w.T).numpy(), x @ gguf.quants.dequantize(raw, Kind.Q4_0).T, atol=1e-4, rtol=1e-4)


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    raw = np.zeros((1, 66), np.uint8)
    with pytest.raises(NotImplementedError, match=r"a\.gguf: tensor 'w' is quantised as IQ2_XXS; known: float32, .*Q6_K"):
        gguf_load(written(tmp_path / "a.gguf", {"w": (raw, Kind.IQ2_XXS)}))
    path = written(tmp_path / "b.gguf", {"w": (np.ones((4, 8), np.float32), None)})
    whole = path.read_bytes()
    for cut in (0, 3, 10, 60, 200, len(whole) - 40):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"b\.gguf is no valid GGUF file: .*\n  at test_gguf"):
            gguf_load(path)
    path.write_bytes(whole[:4] + struct.pack("<I", 9) + whole[8:])
    with pytest.raises(ValueError, match="version 9, known are 2 and 3"):
        gguf_load(path)
    path.write_bytes(whole[:4] + struct.pack(">I", 3) + whole[8:])
    with pytest.raises(ValueError, match="big-endian"):
        gguf_load(path)
