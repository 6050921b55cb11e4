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
from tinyengine.backends import llvm_code, llvm_jit
from tinyengine.backends.llvm import LLVMBackend
from tinyengine.runtime import cache
from tinyengine.runtime.cache import Cache
from tinyengine.stages.emit import prepare

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
    name = c.store(["a"], b"x" * 1000)
    assert sorted(p.name for p in c.folder.rglob("*") if p.is_file()) == ["keys", f"o-{name}"]


def test_many_keys_take_few_files(tmp_path):
    c = Cache(tmp_path)
    for i in range(100):
        c.store([f"key {i} {j}" for j in range(40)], b"%d" % i)
    files = [p for p in c.folder.rglob("*") if p.is_file()]
    assert len(files) <= 100 + 256  # the objects, and one file of keys per folder
    assert all(c.find(f"key {i} {j}")[0].code == b"%d" % i for i in range(100) for j in (0, 39))


@pytest.mark.parametrize("damage", [b"", b"cod", b"codf", b"code and more"])
def test_a_damaged_object_is_a_miss_and_is_removed(tmp_path, damage):
    c = Cache(tmp_path)
    name = c.store(["a"], b"code")
    next(c.folder.rglob(f"o-{name}")).write_bytes(damage)
    assert c.find("a") == (None, "damaged entry")
    assert c.find("a") == (None, "evicted entry")
    c.store(["a"], b"code")
    assert c.find("a")[0] is not None


@pytest.mark.parametrize("text", [b"", b"../../../etc/passwd", b"\xff\xfe", b"z" * 32, b"/" * 32, b"." * 32])
def test_a_damaged_pointer_leads_nowhere(tmp_path, text):
    c = Cache(tmp_path)
    c.store(["a"], b"code")
    lines = next(c.folder.rglob("keys"))
    key = lines.read_bytes()[:32]
    for damaged in (text, key + b" " + text, key + b" " + text + b"\n", b"\n" + key):
        lines.write_bytes(damaged)
        assert c.find("a")[0] is None
    c.store(["a"], b"code")  # behind a line that was cut off
    assert c.find("a")[0] is not None


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
    c = Cache(tmp_path, max_bytes=40_960, digits=0)  # ten files of one block
    for i in range(8):
        name = c.store([f"key {i}"], bytes([i]) * 1000)
        os.utime(c.folder / f"o-{name}", (1000 + i, 1000 + i))
    assert c.find("key 0")[0] is not None  # used: now the youngest
    for i in range(8, 11):
        c.store([f"key {i}"], bytes([i]) * 1000)
    assert c.nbytes() <= 40_960
    assert c.find("key 0")[0] is not None and c.find("key 1")[0] is None and c.find("key 10")[0] is not None


def test_small_files_count_with_the_blocks_that_they_take(tmp_path):
    c = Cache(tmp_path, max_bytes=16 << 20)
    for i in range(6000):  # 24 MiB of disk, of 30 kB of content
        c.store([f"key {i}"], b"%d" % i)
    assert c.nbytes() <= (16 << 20) + 256 * 4096  # and the keys
    assert len([p for p in c.folder.rglob("o-*")]) <= 4096


def test_an_object_larger_than_its_share_is_kept_until_the_next(tmp_path):
    c = Cache(tmp_path, max_bytes=8192, digits=0)
    for i in range(3):
        c.store([f"{i}"], bytes([i]) * 20_000)
        assert c.find(f"{i}")[0] is not None and len(list(c.folder.glob("o-*"))) == 1


def test_keys_are_bounded_too(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_LINES", 6600)  # a hundred lines
    c = Cache(tmp_path, digits=0)
    for i in range(1000):
        c.store([f"{i}"], b"%d" % (i % 3))
        assert (c.folder / "keys").stat().st_size <= 6600 + 66
        assert c.find(f"{i}")[0].code == b"%d" % (i % 3)
    for i in range(200):
        c.store(["again"], b"%d" % i)
    assert c.find("again")[0].code == b"199"


FILL = """
import sys
from pathlib import Path
from tinyengine.runtime.cache import Cache
from tinyengine.stages.emit import prepare
c = Cache(Path(sys.argv[1]), max_bytes=1 << 20, digits=1)
print("begun", flush=True)
for i in range(10**9):
    c.store([f"{i % 97} {j}" for j in range(5)], b"%d " % (i % 97) * 5000)
"""


def test_processes_that_are_killed_leave_a_cache_that_is_right_and_bounded(tmp_path):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "engine"), str(ROOT)])}
    for _ in range(3):
        filling = [
            subprocess.Popen([sys.executable, "-c", FILL, str(tmp_path)], env=env, stdout=subprocess.PIPE) for _ in range(2)
        ]
        for p in filling:
            p.stdout.readline()
        threading.Event().wait(0.3)
        for p in filling:
            p.kill()
            p.communicate()
    c = Cache(tmp_path, max_bytes=1 << 20, digits=1)
    found = [(i, f.code) for i in range(97) for j in range(5) if (f := c.find(f"{i} {j}")[0]) is not None]
    assert found and all(code == b"%d " % i * 5000 for i, code in found)
    c.store(["after"], b"after")
    assert c.find("after")[0].code == b"after"
    assert c.nbytes() <= (1 << 20) + 16 * ((64 << 10) + 4096 + 2 * 16384)  # keys, and what two processes wrote after their look


def test_clear_removes_everything_and_says_how_much(tmp_path):
    c = Cache(tmp_path)
    c.store(["a"], b"x" * 1000)
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "k-old").write_text("of an older format")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "kept").write_text("a download")
    assert c.nbytes() >= 1000
    assert c.clear() >= 1000
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["kept"]
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

    monkeypatch.setattr(llvm_code, "_modules", never)
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
    disk, target = cache.default(), llvm_code._target_key(llvm_jit.host())
    first, second = (f"{prepare(nests.chain(n)).symbol} {target}" for n in (50, 51))
    assert disk.name_of(first) and disk.name_of(second)
    disk._append(cache.digest(first.encode()), disk.name_of(second))
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


# ---- what LLVM does meanwhile


def test_the_pools_code_is_generated_while_python_goes_on(folder, monkeypatch):
    asked, go_on = threading.Event(), threading.Event()
    real = llvm_jit.object_code

    def slow(*args):
        asked.set()
        assert go_on.wait(60)
        return real(*args)

    monkeypatch.setattr(llvm_jit, "object_code", slow)
    llvm_code.begin.cache_clear()
    try:
        assert LLVMBackend().available() == ""  # it waits for nothing
        assert asked.wait(60)
        go_on.set()
        code = llvm_code.begin()()
        assert cache.default().find(llvm_code._pool_key())[0].code == code
        llvm_code.begin.cache_clear()
        go_on.clear()
        assert llvm_code.begin()() == code  # from the disk: nothing is generated
    finally:
        go_on.set()
        llvm_code.begin.cache_clear()


def test_a_module_is_compiled_while_the_next_is_written(folder, monkeypatch):
    kernels = [nests.chain(n) for n in range(64, 72)]
    codes = [prepare(k) for k in kernels]
    monkeypatch.setattr(llvm_code, "ENOUGH", 1)
    order, compiling = [], threading.Event()
    real_modules, real_code = llvm_code._modules, llvm_jit.object_code

    def modules(*args):
        for group, ir in real_modules(*args):
            order.append(len(group))
            yield group, ir
            assert compiling.wait(60)  # before the next is written

    def code(*args):
        compiling.set()
        return real_code(*args)

    monkeypatch.setattr(llvm_code, "_modules", modules)
    monkeypatch.setattr(llvm_jit, "object_code", code)
    assert set(llvm_code.link(codes, llvm_jit.host())) == {c.symbol for c in codes}
    assert order == [1] * 8


def test_modules_hold_about_equal_work(monkeypatch):
    target = llvm_jit.host()
    codes = [prepare(k) for k in (*(nests.chain(n) for n in range(64, 76)), nests.matmul(6, 64, 8))]
    sizes = [len(llvm_code.module([c], target)) for c in codes]
    monkeypatch.setattr(llvm_code, "ENOUGH", 4 * sizes[0])
    made = list(llvm_code._modules(codes, target))
    assert [c for group, _ in made for c in group] == codes and 3 <= len(made) <= 6
    for group, ir in made:
        assert all(f"@{c.symbol}(" in ir for c in group)
        assert ir.count("target triple") == 1 and ir.count("declare") == len(set(l for l in ir.splitlines() if "declare" in l))
