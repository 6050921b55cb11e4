"""Machine code for kernels, by content: from this process, else from the disk cache, else compiled now."""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tinyengine import hooks
from tinyengine.backends import llvm_jit
from tinyengine.backends.llvm_jit import Target
from tinyengine.runtime import cache, threads
from tinyengine.runtime.native import Runner
from tinyengine.runtime.threads import Pool

if TYPE_CHECKING:
    from tinyengine.stages.emit import Code

ENOUGH = 48 << 10  # characters of IR that are worth a module of their own: some 15 ms of LLVM's time


def module(codes: Sequence[Code], target: Target, debug: bool = False) -> str:
    """`llvm_module.module`; imported when there is code to write."""
    from tinyengine.backends import llvm_module

    return llvm_module.module(codes, target, debug)


_linked: dict[str, int] = {}  # symbol of a part, with the target's key -> address


@functools.cache
def emitter_version() -> str:
    """A hash of the source of everything that decides what a kernel's code is."""
    here = Path(__file__).parent
    names = ["../stages/emit.py", *(f"../stages/arithmetic/{n}.py" for n in ("affine", "expand", "math", "narrow"))]
    names += [f"llvm_{n}.py" for n in ("ops", "memory", "strided", "store", "ir", "module", "jit")]
    names += ["strided.py", "../runtime/pool.ll", "../ops.py", "../dtypes.py", "../loopnest.py"]
    h = hashlib.sha256()
    for n in names:
        h.update((here / n).read_bytes())
    return h.hexdigest()[:16]


@functools.cache
def _target_key(target: Target) -> str:
    return f"{target.key()} emitter {emitter_version()}"


def link(codes: Sequence[Code], target: Target) -> dict[str, int]:
    """The address of every part of every kernel, by its symbol."""
    wanted = {c.symbol: c for c in codes}
    key = _target_key(target)
    missing = [c for c in wanted.values() if f"{c.symbol} {key}" not in _linked]
    if missing:
        missing = _from_disk(missing, key, target)
    if missing:
        _compile(missing, key, target)
    return {s: _linked[f"{s} {key}"] for c in wanted.values() for s in _parts(c)}


def load(symbols: Sequence[str], target: Target) -> dict[str, int] | None:
    """The addresses of these parts of kernels, from this process or the disk cache; None when one is in neither."""
    key, disk = _target_key(target), cache.default()
    by_object: dict[str, list[str]] = {}
    for s in dict.fromkeys(symbols):
        if f"{s} {key}" not in _linked:
            by_object.setdefault(disk.name_of(f"{s.partition('.')[0]} {key}"), []).append(s)
    for name, group in by_object.items():
        code = disk.read(name)[0] if name else None
        if code is None:
            return None
        try:
            _link(code, tuple(group), key)
        except RuntimeError:
            return None
    return {s: _linked[f"{s} {key}"] for s in symbols}


def _parts(c: Code) -> tuple[str, ...]:
    return tuple(c.part_symbol(i) for i in range(len(c.parts)))


def _link(code: bytes, symbols: tuple[str, ...], key: str) -> None:
    for s, address in llvm_jit.linker().link(code, symbols).items():
        _linked[f"{s} {key}"] = address


def _from_disk(codes: Sequence[Code], key: str, target: Target) -> list[Code]:
    """Link what the disk cache has; returns what it has not."""
    disk = cache.default()
    by_object: dict[str, list[Code]] = {}
    missing: list[Code] = []
    for c in codes:
        name = disk.name_of(f"{c.symbol} {key}")
        if name:
            by_object.setdefault(name, []).append(c)
        else:
            missing.append(c)
            _missed(c, "new kernel")
    for name, group in by_object.items():
        began = time.perf_counter()
        code, why = disk.read(name)
        if code is not None:
            try:
                _link(code, tuple(s for c in group for s in _parts(c)), key)
            except RuntimeError:  # an object without the symbols that its entry promised
                code, why = None, "damaged entry"
        for c in group:
            if code is None:
                missing.append(c)
                _missed(c, why)
            elif hooks.watching:
                hooks.publish(hooks.CacheHit("kernel", c.symbol))
                _emitted(c, target, time.perf_counter() - began, True)
    return missing


def _missed(c: Code, guard: str) -> None:
    if hooks.watching:
        hooks.publish(hooks.CacheMiss("kernel", c.symbol, guard))


def _emitted(c: Code, target: Target, seconds: float, cached: bool) -> None:
    hooks.publish(hooks.KernelEmitted("llvm", c.kernel, module([c], target, debug=True), seconds, cached))


def _modules(codes: Sequence[Code], target: Target) -> Iterator[tuple[list[Code], str]]:
    """The kernels in groups of about equal work, each with its module, as they are written."""
    from tinyengine.backends import llvm_module

    group: list[Code] = []
    parts: list[llvm_module.Functions] = []
    for c in codes:
        group.append(c)
        parts.append(llvm_module.functions(c, target))
        if sum([len(p.text) for p in parts]) >= ENOUGH:
            yield group, llvm_module.joined(parts, target)
            group, parts = [], []
    if group:
        yield group, llvm_module.joined(parts, target)


def _compile(codes: Sequence[Code], key: str, target: Target) -> None:
    """Generate code, in groups of kernels. While one group's text is written, threads generate the code of others: LLVM needs no
    Python."""
    from concurrent.futures import ThreadPoolExecutor

    began = time.perf_counter()
    with ThreadPoolExecutor(threads.thread_count()) as pool:
        made = [(group, pool.submit(llvm_jit.object_code, ir, target)) for group, ir in _modules(codes, target)]
    for group, result in made:
        code = result.result()
        _link(code, tuple(s for c in group for s in _parts(c)), key)
        cache.default().store([f"{c.symbol} {key}" for c in group], code)
    spent = time.perf_counter() - began
    if hooks.watching:
        for c in codes:  # compiled together: each is charged its share
            _emitted(c, target, spent / len(codes), False)


def _pool_key() -> str:
    return f"pool {_target_key(llvm_jit.host())}"


def _generate_pool() -> bytes:
    target = llvm_jit.host()
    code = llvm_jit.object_code(threads.source(target.triple), target)
    cache.default().store([_pool_key()], code)
    return code


@functools.cache
def begin() -> Callable[[], bytes]:
    """The object code of the thread pool and of the loop over kernels: from the disk cache, else a thread generates it from now
    on, while Python records and schedules. The result waits for it."""
    found, _ = cache.default().find(_pool_key())
    if found is not None:
        return lambda code=found.code: code  # type: ignore[misc]
    from concurrent.futures import ThreadPoolExecutor

    one = ThreadPoolExecutor(1)
    result = one.submit(_generate_pool).result
    one.shutdown(wait=False)
    return result


@functools.cache
def _pool_code() -> dict[str, int]:
    symbols = ("run", "worker", "wake")
    try:
        return llvm_jit.linker().link(begin()(), symbols)
    except RuntimeError:  # an intact object that is another's
        return llvm_jit.linker().link(_generate_pool(), symbols)


@functools.cache
def runner() -> Callable[[int], int]:
    """The native entry that runs a whole program: the address of its block in, OK, CHECK_FAILED or CANCELLED out."""
    return Runner(_pool_code()["run"])


def pool() -> Pool:
    """The process's thread pool."""
    return threads.pool(lambda: Pool(threads.thread_count(), _pool_code()["worker"], _pool_code()["wake"]))
