"""The disk cache of object code: content in, content out; safe with several processes, bounded, and never trusted.

Two kinds of file, both written to a temporary name and renamed: `o-DIGEST` is object code whose file name is the hash of its
content, so a damaged one is recognised by hashing it; `k-KEY` names the object that holds the code for a key. One object may
serve many keys (kernels that were compiled together). What is missing, damaged or unreadable is a miss: it is compiled again, and
never executed.

Location: TINYENGINE_CACHE, else XDG_CACHE_HOME/tinyengine, else ~/.cache/tinyengine. TINYENGINE_CACHE="" or "0" switches it off.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FORMAT = 1  # of these files; a new one never reads an old one
MAX_BYTES = 256 << 20
_DIGEST = 32  # hex digits of a file name


def location() -> Path | None:
    """The folder, or None when the cache is switched off."""
    asked = os.environ.get("TINYENGINE_CACHE")
    if asked is not None:
        return None if asked.strip() in ("", "0") else Path(asked).expanduser()
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "tinyengine"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_DIGEST]


@dataclass(frozen=True, slots=True)
class Found:
    """Object code whose content matches its name; `name` is equal for equal objects."""

    name: str
    code: bytes


class Cache:
    """Object code on disk under `folder`; with None everything misses and nothing is stored. Failing disks are misses, not
    errors."""

    def __init__(self, folder: Path | None, max_bytes: int = MAX_BYTES) -> None:
        self.folder = folder / f"v{FORMAT}" if folder is not None else None
        self.max_bytes = max_bytes
        self._added = 0
        self._checked = False

    def name_of(self, key: str) -> str:
        """The name of the object that holds `key`, or "" on a miss."""
        if self.folder is None:
            return ""
        try:
            name = (self.folder / f"k-{digest(key.encode())}").read_text("ascii")
        except (OSError, ValueError):
            return ""
        return name if len(name) == _DIGEST and name.isalnum() else ""

    def read(self, name: str) -> tuple[bytes | None, str]:
        """(object code, "") or (None, why not)."""
        if self.folder is None:
            return None, "the cache is switched off"
        path = self.folder / f"o-{name}"
        try:
            code = path.read_bytes()
        except FileNotFoundError:
            return None, "evicted entry"
        except OSError as e:
            return None, f"unreadable entry ({e.strerror})"
        if digest(code) != name:
            with contextlib.suppress(OSError):
                path.unlink()
            return None, "damaged entry"
        with contextlib.suppress(OSError):
            os.utime(path)  # what is used last is evicted last
        return code, ""

    def find(self, key: str) -> tuple[Found | None, str]:
        """The object code for `key`, or (None, the reason of the miss)."""
        if self.folder is None:
            return None, "the cache is switched off"
        name = self.name_of(key)
        if not name:
            return None, "new kernel"
        code, why = self.read(name)
        return (Found(name, code), "") if code is not None else (None, why)

    def store(self, keys: Sequence[str], code: bytes) -> str:
        """Keep `code` as that of all `keys`; returns its name. A full or read-only disk is not an error."""
        name = digest(code)
        if self.folder is None:
            return name
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._write(f"o-{name}", code)
            for k in keys:
                self._write(f"k-{digest(k.encode())}", name.encode())
            self._added += len(code)
            if not self._checked or self._added > self.max_bytes // 16:
                self._checked, self._added = True, 0
                self.trim()
        return name

    def _write(self, name: str, data: bytes) -> None:
        assert self.folder is not None
        handle, temporary = tempfile.mkstemp(dir=self.folder, prefix="t-")
        try:
            with os.fdopen(handle, "wb") as f:
                f.write(data)
            os.replace(temporary, self.folder / name)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def nbytes(self) -> int:
        """Bytes of all entries."""
        return sum(size for _, size, _ in self._entries())

    def _entries(self) -> list[tuple[float, int, Path]]:
        out = []
        if self.folder is not None and self.folder.is_dir():
            for entry in os.scandir(self.folder):
                with contextlib.suppress(OSError):
                    s = entry.stat()
                    out.append((s.st_mtime, s.st_size, Path(entry.path)))
        return out

    def trim(self) -> None:
        """Remove what was used longest ago until three quarters of `max_bytes` are left, if there is more than that."""
        entries = self._entries()
        total = sum(size for _, size, _ in entries)
        if total <= self.max_bytes:
            return
        for _, size, path in sorted(entries, key=lambda e: e[0]):
            with contextlib.suppress(OSError):
                path.unlink()
            total -= size
            if total <= self.max_bytes * 3 // 4:
                break

    def clear(self) -> int:
        """Remove every entry; returns how many bytes that freed. Code that is loaded stays loaded."""
        freed = 0
        for _, size, path in self._entries():
            with contextlib.suppress(OSError):
                path.unlink()
                freed += size
        return freed


_cache: tuple[str | None, Cache] | None = None


def default() -> Cache:
    """The cache at `location()`; asked again whenever the environment has changed."""
    global _cache
    where = location()
    mark = None if where is None else str(where)
    if _cache is None or _cache[0] != mark:
        _cache = (mark, Cache(where))
    return _cache[1]


def clear() -> int:
    """Empty the disk cache; returns how many bytes that freed."""
    return default().clear()
