"""The disk cache of object code: what is stored, what is refused, and two processes at once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.engine import nests
from tinyengine import hooks
from tinyengine.backends import llvm_code
from tinyengine.backends.llvm import LLVMBackend
from tinyengine.runtime import cache
from tinyengine.runtime.cache import Cache

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache of this test's own, and a process that has linked nothing yet."""
    monkeypatch.setenv("TINYENGINE_CACHE", str(tmp_path))
    monkeypatch.setattr(llvm_code, "_linked", {})
    return tmp_path


@pytest.fixture
def events():
    seen = []
    with hooks.subscribed(seen.append, hooks.CacheHit, hooks.CacheMiss, hooks.KernelEmitted):
        yield seen


def forget():
    llvm_code._linked.clear()


def answer():
    return nests.run(nests.chain(50), x=np.arange(50))["y"][3]


def kinds(events):
    return [type(e).__name__ for e in events]


# ---- the cache alone


def test_what_was_stored_is_found(tmp_path):
    c = Cache(tmp_path)
    name = c.store(["a", "b"], b"code")
    for key in ("a", "b"):
        found, why = c.find(key)
        assert found is not None and (found.name, found.code, why) == (name, b"code", "")
    assert c.find("c") == (None, "new kernel")


def test_nothing_half_written_is_visible_and_no_temporary_stays(tmp_path):
    c = Cache(tmp_path)
    c.store(["a"], b"x" * 1000)
    assert sorted(p.name[:2] for p in c.folder.iterdir()) == ["k-", "o-"]


@pytest.mark.parametrize("damage", [b"", b"cod", b"codf", b"code and more"])
def test_a_damaged_object_is_a_miss_and_is_removed(tmp_path, damage):
    c = Cache(tmp_path)
    name = c.store(["a"], b"code")
    (c.folder / f"o-{name}").write_bytes(damage)
    assert c.find("a") == (None, "damaged entry")
    assert c.find("a") == (None, "evicted entry")
    c.store(["a"], b"code")
    assert c.find("a")[0] is not None


@pytest.mark.parametrize("text", [b"", b"../../../etc/passwd", b"\xff\xfe", b"z" * 32, b"/" * 32, b"." * 32])
def test_a_damaged_pointer_leads_nowhere(tmp_path, text):
    c = Cache(tmp_path)
    c.store(["a"], b"code")
    next(c.folder.glob("k-*")).write_bytes(text)
    assert c.find("a")[0] is None


def test_a_cache_that_is_off_or_cannot_be_written_misses(tmp_path, monkeypatch):
    off = Cache(None)
    off.store(["a"], b"code")
    assert off.find("a")[0] is None and off.clear() == 0 and off.nbytes() == 0
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    c = Cache(blocked)
    c.store(["a"], b"code")
    assert c.find("a")[0] is None


def test_the_cache_is_bounded_and_keeps_what_was_used_last(tmp_path):
    c = Cache(tmp_path, max_bytes=10_000)
    names = []
    for i in range(8):
        names.append(c.store([f"key {i}"], bytes([i]) * 1000))
        os.utime(c.folder / f"o-{names[-1]}", (1000 + i, 1000 + i))
    assert c.find("key 0")[0] is not None  # used: now the youngest
    for i in range(8, 11):
        c.store([f"key {i}"], bytes([i]) * 1000)
    c.trim()
    assert c.nbytes() <= 10_000
    assert c.find("key 0")[0] is not None and c.find("key 1")[0] is None and c.find("key 10")[0] is not None


def test_clear_removes_everything_and_says_how_much(tmp_path):
    c = Cache(tmp_path)
    c.store(["a"], b"x" * 1000)
    assert c.nbytes() >= 1000
    assert c.clear() >= 1000
    assert c.nbytes() == 0 and c.find("a")[0] is None


def test_location(monkeypatch, tmp_path):
    monkeypatch.setenv("TINYENGINE_CACHE", str(tmp_path / "here"))
    assert cache.location() == tmp_path / "here"
    for off in ("", "0"):
        monkeypatch.setenv("TINYENGINE_CACHE", off)
        assert cache.location() is None
    monkeypatch.delenv("TINYENGINE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.location() == tmp_path / "tinyengine"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.location() == tmp_path / ".cache" / "tinyengine"


def test_threads_of_one_process_may_store_at_once(tmp_path):
    c = Cache(tmp_path)
    workers = [threading.Thread(target=lambda i=i: [c.store([f"{i}", "shared"], b"%d" % i) for _ in range(50)]) for i in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert {c.find(f"{i}")[0].code for i in range(4)} == {b"0", b"1", b"2", b"3"}
    assert c.find("shared")[0].code in {b"0", b"1", b"2", b"3"}


# ---- kernels in it


def test_a_kernel_is_compiled_once_and_then_loaded(folder, events):
    assert answer() == 7
    assert kinds(events) == ["CacheMiss", "KernelEmitted"]
    assert events[0].guard == "new kernel" and not events[1].cached
    assert "define" in events[1].source
    answer()
    assert len(events) == 2  # this process has it
    forget()
    assert answer() == 7
    assert kinds(events[2:]) == ["CacheHit", "KernelEmitted"] and events[3].cached


def test_a_warm_start_generates_no_code(folder, monkeypatch):
    answer()
    forget()

    def never(*args, **kwargs):
        raise AssertionError("the emitter ran")

    monkeypatch.setattr(llvm_code, "module", never)
    assert answer() == 7


def test_equal_kernels_share_code_whatever_their_names(folder, events):
    from dataclasses import replace

    from tinyengine.loopnest import Buf, Loop, Store, load, map_expr, var

    k = nests.chain(64)
    store = k.body[0].body[0]
    i, x, y = var("other", 0, 48), Buf("in", k.params[0].dtype, (64,)), Buf("out", k.params[0].dtype, (64,))

    def rename(e):
        if e.op == "var":
            return i
        return load(x, e.args) if e.op == "load" else None

    renamed = replace(
        k,
        name="other",
        params=(x, y),
        outputs=("out",),
        body=(
            Loop(
                i,
                0,
                64,
                16,
                (Store(y, tuple(map_expr(e, rename) for e in store.index), map_expr(store.value, rename)),),
                "parallel",
            ),
        ),
    )
    e = LLVMBackend().compile(nests.program(k, renamed))
    assert e.codes[0].symbol == e.codes[1].symbol
    assert kinds(events).count("KernelEmitted") == 1
    assert nests.run(renamed, **{"in": np.ones(64)})["out"].tolist() == [3.0] * 64


def test_different_kernels_have_different_keys():
    from tinyengine.stages.emit import prepare

    kernels = [
        nests.chain(64), nests.chain(80), nests.chain(64, 4), nests.softmax(4, 64), nests.softmax(4, 80), nests.matmul(6, 64, 8),
        nests.matmul(6, 64, 8, vectors=2), nests.elementwise("exp", (nests.float32,), nests.float32, 64),
        nests.elementwise("log", (nests.float32,), nests.float32, 64),
    ]  # fmt: skip
    assert len({prepare(k).symbol for k in kernels}) == len(kernels)
    assert prepare(nests.chain(64)).symbol != prepare(nests.chain(64), {"x": "x", "y": "x"}).symbol


def test_the_target_is_part_of_the_key(folder, events):
    from tinyengine.backends import llvm_jit

    code = LLVMBackend().compile(nests.program(nests.chain(64))).codes
    host = llvm_jit.host()
    llvm_code.link(code, llvm_jit.Target(host.triple, host.cpu, host.features, 1))
    assert kinds(events).count("KernelEmitted") == 2


def test_damaged_code_is_recompiled_and_never_executed(folder, events):
    answer()
    objects = list(folder.rglob("o-*"))
    assert objects
    for o in objects:
        raw = bytearray(o.read_bytes())
        raw[len(raw) // 2] ^= 0xFF
        o.write_bytes(raw)
    forget()
    del events[:]
    assert answer() == 7
    assert [e.guard for e in events if isinstance(e, hooks.CacheMiss)] == ["damaged entry"]
    forget()
    del events[:]
    assert answer() == 7 and kinds(events) == ["CacheHit", "KernelEmitted"]


def test_an_entry_that_names_the_wrong_object_is_recompiled(folder, events):
    """A pointer to an intact object that has not the kernel in it."""
    answer()
    other = nests.run(nests.chain(51), x=np.arange(51))
    assert other["y"][3] == 7
    first, second = sorted(folder.rglob("k-*"), key=lambda p: p.stat().st_mtime)[-2:]
    first.write_bytes(second.read_bytes())
    forget()
    del events[:]
    assert answer() == 7
    assert "damaged entry" in [e.guard for e in events if isinstance(e, hooks.CacheMiss)]


SCRIPT = """
import numpy as np
from tests.engine import nests
from tinyengine import hooks
seen = []
hooks.subscribe(seen.append, hooks.CacheHit, hooks.CacheMiss)
for n in range(20, 28):
    assert nests.run(nests.chain(n), x=np.arange(n))["y"][3] == 7
print(sum(isinstance(e, hooks.CacheHit) for e in seen), sum(isinstance(e, hooks.CacheMiss) for e in seen))
"""


def processes(folder, count):
    env = {**os.environ, "TINYENGINE_CACHE": str(folder), "PYTHONPATH": os.pathsep.join([str(ROOT / "engine"), str(ROOT)])}
    running = [subprocess.Popen([sys.executable, "-c", SCRIPT], env=env, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    out = [p.communicate(timeout=120)[0] for p in running]
    assert all(p.returncode == 0 for p in running)
    return [tuple(map(int, o.split())) for o in out]


def test_two_processes_fill_one_cache_and_a_third_compiles_nothing(tmp_path):
    for hits, misses in processes(tmp_path, 2):
        assert hits + misses == 8
    assert processes(tmp_path, 1) == [(8, 0)]
