"""Files that torch.save wrote, read without torch; files that try to run something."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.peer import torch, value
from tinyengine import Tensor, dtypes, nn
from tinyengine.state import load_state_dict, torch_load

FORMS = [True, False]  # the zip form, the older one


def saved(obj: Any, tmp_path: Path, zip_form: bool = True) -> Any:
    path = tmp_path / "a.pt"
    torch.save(obj, path, _use_new_zipfile_serialization=zip_form)
    return torch_load(path)


def same(ours: Any, theirs: Any) -> None:
    """The same structure; tensors equal in shape, dtype and values."""
    if isinstance(theirs, torch.Tensor):
        assert isinstance(ours, Tensor) and ours.shape == tuple(theirs.shape)
        name = str(theirs.dtype).removeprefix("torch.")
        assert ours.dtype is dtypes.by_name(name)
        wide = theirs.detach().to(torch.float32) if theirs.dtype.is_floating_point else theirs.detach()
        np.testing.assert_array_equal(value(ours).astype(wide.numpy().dtype), wide.numpy())
    elif isinstance(theirs, dict):
        assert isinstance(ours, dict) and list(ours) == list(theirs)
        for k in theirs:
            same(ours[k], theirs[k])
    elif isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            same(a, b)
    else:
        assert ours == theirs


DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"]
# kept as storages of bytes
LATE = ["uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2"]


@pytest.mark.parametrize("zip_form", FORMS)
def test_every_dtype(tmp_path: Path, zip_form: bool) -> None:
    bits = torch.randint(0, 256, (16, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    things = {n: (bits > 9 if n == "bool" else (bits.to(torch.float32) - 100).to(getattr(torch, n))) for n in DTYPES}
    if zip_form:
        things |= {n: bits.view(getattr(torch, n)) for n in LATE}
    same(saved(things, tmp_path, zip_form), things)


@pytest.mark.parametrize("zip_form", FORMS)
def test_views_of_one_storage(tmp_path: Path, zip_form: bool) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    things = {
        "turned": base.T, "part": base[1:3, ::2], "diagonal": base.diagonal(), "repeated": base[0, :1].expand(3, 5),
        "scalar": base[2, 3], "empty": base[:0], "none": torch.zeros(0), "last": base[3, 5:],
    }  # fmt: skip
    same(saved(things, tmp_path, zip_form), things)


@pytest.mark.parametrize("zip_form", FORMS)
def test_tied_weights_stay_tied_and_gradients_stay_wanted(tmp_path: Path, zip_form: bool) -> None:
    w = torch.nn.Parameter(torch.randn(3, 2))
    frozen = torch.nn.Parameter(torch.randn(2), requires_grad=False)
    found = saved({"a": w, "b": w, "c": w.data, "f": frozen, "g": torch.ones(2, requires_grad=True)}, tmp_path, zip_form)
    assert found["a"] is found["b"] and found["a"].requires_grad and found["g"].requires_grad
    assert not found["c"].requires_grad and not found["f"].requires_grad
    tied = w.detach()
    found = saved({"a": tied, "b": tied.view(3, 2)}, tmp_path, zip_form)
    assert found["a"] is found["b"]


@pytest.mark.parametrize("zip_form", FORMS)
def test_the_state_dict_of_a_model_and_of_its_optimizer(tmp_path: Path, zip_form: bool) -> None:
    def make(n: Any) -> Any:
        return n.Sequential(n.Conv2d(3, 4, 3), n.BatchNorm2d(4), n.ReLU(), n.Flatten(), n.Linear(16, 5))

    theirs = make(torch.nn)
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=0.01, amsgrad=True)
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    theirs(x).sum().backward()
    optimizer.step()
    checkpoint = {"model": theirs.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3, "best": 0.5, "tags": ["a", None]}
    found = saved(checkpoint, tmp_path, zip_form)
    same(found, checkpoint)
    ours = make(nn)
    load_state_dict(ours, found["model"])
    ours.eval()
    np.testing.assert_allclose(value(ours(Tensor(x.numpy()))), theirs.eval()(x).detach().numpy(), atol=1e-5)


def test_other_things_that_checkpoints_hold(tmp_path: Path) -> None:
    things = {
        "size": torch.ones(2, 3).shape, "dtype": torch.float16, "device": torch.device("cpu"),
        "bytes": b"\x00\xff", "set": {1, 2},
    }  # fmt: skip
    found = saved(things, tmp_path)
    assert found["size"] == (2, 3) and found["dtype"].name == "float16" and found["device"] == "cpu"
    assert found["bytes"] == b"\x00\xff" and found["set"] == {1, 2}


class Runs:
    """A thing whose pickle calls `function(*args)`."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


def planted(evil: Any, path: Path, zip_form: bool) -> Path:
    """A file in PyTorch's form with `evil` in it."""
    data = pickle.dumps({"w": evil}, protocol=2)
    if zip_form:
        torch.save({"w": torch.ones(2)}, path.with_suffix(".good"))
        with zipfile.ZipFile(path.with_suffix(".good")) as good, zipfile.ZipFile(path, "w") as bad:
            for name in good.namelist():
                bad.writestr(name, data if name.endswith("data.pkl") else good.read(name))
    else:
        start = [pickle.dumps(o, 2) for o in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
        path.write_bytes(b"".join(start) + data + pickle.dumps([], 2))
    return path


@pytest.mark.parametrize("zip_form", FORMS)
@pytest.mark.parametrize(
    ("name", "make"),
    {
        "posix.system": lambda flag: Runs(os.system, f"touch {flag}"),
        "builtins.eval": lambda flag: Runs(eval, f"open({str(flag)!r}, 'w')"),
        "__builtin__.exec": lambda flag: Runs(exec, f"open({str(flag)!r}, 'w')"),
        "subprocess.check_call": lambda flag: Runs(subprocess.check_call, ["touch", str(flag)]),
        "builtins.getattr": lambda flag: Runs(getattr, OrderedDict(), "__class__"),
        "io.open": lambda flag: Runs(io.open, str(flag), "w"),
        "torch.load": lambda flag: Runs(torch.load, str(flag)),
        "torch.hub.load": lambda flag: Runs(torch.hub.load, str(flag), "x"),
        "numpy.lib._npyio_impl.load": lambda flag: Runs(np.load, str(flag)),
    }.items(),
)
def test_what_a_file_may_not_call_is_refused_and_not_called(tmp_path: Path, zip_form: bool, name: str, make: Any) -> None:
    flag = tmp_path / "flag"
    path = planted(make(flag), tmp_path / "evil.pt", zip_form)
    with pytest.raises(pickle.UnpicklingError, match=r"evil\.pt: the file names [\w.]+, which a state dict does not need"):
        torch_load(path)
    assert not flag.exists()


def test_a_whole_model_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(pickle.UnpicklingError, match=r"torch\.nn\.modules\.linear\.Linear.*save model\.state_dict\(\) instead"):
        saved(torch.nn.Linear(2, 2), tmp_path)


def test_a_pickle_cannot_change_the_reader(tmp_path: Path) -> None:
    """BUILD on a whitelisted name sets attributes: here it fails, and the next file is read as before."""
    opcodes = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}U\x08functionNs\x86b."
    path = tmp_path / "evil.pt"
    torch.save({"w": torch.ones(2)}, path.with_suffix(".good"))
    with zipfile.ZipFile(path.with_suffix(".good")) as good, zipfile.ZipFile(path, "w") as bad:
        for name in good.namelist():
            bad.writestr(name, opcodes if name.endswith("data.pkl") else good.read(name))
    with pytest.raises((ValueError, pickle.UnpicklingError)):
        torch_load(path)
    same(torch_load(path.with_suffix(".good")), {"w": torch.ones(2)})


VIEWS = [((4,), (1,), 1), ((2, 2), (4, 1), 0), ((2,), (-1,), 1), ((1 << 40,), (0,), 0)]


@pytest.mark.parametrize(("size", "stride", "offset"), VIEWS)
def test_views_beyond_the_storage_are_refused(tmp_path: Path, size: Any, stride: Any, offset: int) -> None:
    class Reader(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", 4) if isinstance(obj, torch.storage.TypedStorage) else None

    out = io.BytesIO()
    Reader(out, 2).dump(
        Runs(torch._utils._rebuild_tensor_v2, torch.ones(4)._typed_storage(), offset, size, stride, False, OrderedDict())
    )
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("a/data.pkl", out.getvalue())
        z.writestr("a/data/0", np.ones(4, np.float32).tobytes())
    with pytest.raises(pickle.UnpicklingError, match=r"leaves its storage of 4|repeats a storage of 4"):
        torch_load(path)


@pytest.mark.parametrize("zip_form", FORMS)
def test_damaged_files(tmp_path: Path, zip_form: bool) -> None:
    path = tmp_path / "a.pt"
    torch.save({"w": torch.arange(100.0)}, path, _use_new_zipfile_serialization=zip_form)
    whole = path.read_bytes()
    for cut in (0, 3, 40, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:cut])
        with pytest.raises((ValueError, pickle.UnpicklingError), match=r"a\.pt"):
            torch_load(path)
    path.write_bytes(b"not a pickle at all")
    with pytest.raises(ValueError, match=r"starts like neither form[^\n]*\n  at test_torch_file\.py"):
        torch_load(path)


def test_a_program_in_torchscript_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("a/data.pkl", pickle.dumps({}))
        z.writestr("a/code/__torch__.py", "")
    with pytest.raises(ValueError, match=r"TorchScript program; save its state_dict\(\)"):
        torch_load(path)


def test_a_big_endian_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"w": torch.arange(6, dtype=torch.int32)}, path.with_suffix(".good"))
    with zipfile.ZipFile(path.with_suffix(".good")) as good, zipfile.ZipFile(path, "w") as big:
        for name in good.namelist():
            content = good.read(name)
            if name.endswith("/byteorder"):
                content = b"big"
            elif name.endswith("data/0"):
                content = np.frombuffer(content, np.int32).astype(">i4").tobytes()
            big.writestr(name, content)
    np.testing.assert_array_equal(torch_load(path)["w"].numpy(), np.arange(6))
