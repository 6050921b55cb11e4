"""The disk cache of object code: content in, content out; safe with several processes, bounded, and never trusted.

Objects are files whose name is the hash of their content, so a damaged one is recognised by hashing it; they are written to a
temporary name and renamed. Which object holds the code for a key is a line at the end of a file of lines, the newest line counts;
one object may serve many keys (kernels that were compiled together). What is missing, damaged or unreadable is a miss: it is
compiled again, and never executed.

Both are spread over folders by the first digits of their hash. Each folder has its share of the bytes that the cache may take of
the disk, so that a look at one small folder keeps the whole within its bound.

Location: TINYENGINE_CACHE, else XDG_CACHE_HOME/tinyengine, else ~/.cache/tinyengine. TINYENGINE_CACHE="" or "0" switches it off.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

FORMAT = 2  # of these files; a new one never reads an old one
MAX_BYTES = 256 << 20
_DIGEST = 32  # hex digits of a file name
_BLOCK = 4096  # bytes that a file takes of a disk, or a multiple of them
_LINES = 64 << 10  # bytes of lines in a folder before those that lead nowhere are dropped


def location() -> Path | None:
    """The folder, or None when the cache is switched off."""
    return _location(*map(os.environ.get, ("TINYENGINE_CACHE", "XDG_CACHE_HOME", "HOME")))


@functools.lru_cache(maxsize=64)
def _location(asked: str | None, base: str | None, _home: str | None) -> Path | None:
    """Asked for at every computation that is not jitted: paths are made once for each environment."""
    if asked is not None:
        return None if asked.strip() in ("", "0") else Path(asked).expanduser()
    return (Path(base) if base and os.path.isabs(base) else Path.home() / ".cache") / "tinyengine"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_DIGEST]


@dataclass(frozen=True, slots=True)
class Found:
    """Object code whose content matches its name; `name` is equal for equal objects."""

    name: str
    code: bytes


class Cache:
    """Object code on disk under `folder`; with None everything misses and nothing is stored. Failing disks are misses, not
    errors. `digits`: how many of a hash name the folder that its file lies in."""

    def __init__(self, folder: Path | None, max_bytes: int = MAX_BYTES, digits: int = 2) -> None:
        self.root = folder
        self.folder = folder / f"v{FORMAT}" if folder is not None else None
        self.digits, self.share = digits, max_bytes >> 4 * digits

    def _place(self, name: str) -> Path:
        """The folder of a hash."""
        assert self.folder is not None
        return self.folder / name[: self.digits] if self.digits else self.folder

    def name_of(self, key: str) -> str:
        """The name of the object that holds `key`, or "" on a miss."""
        if self.folder is None:
            return ""
        d = digest(key.encode())
        try:
            lines = (self._place(d) / "keys").read_bytes()
        except OSError:
            return ""
        at = lines.rfind(f"{d} ".encode()) + _DIGEST + 1
        name = lines[at : at + _DIGEST].decode("ascii", "replace") if at > _DIGEST else ""
        return name if len(name) == _DIGEST and name.isalnum() else ""

    def read(self, name: str) -> tuple[bytes | None, str]:
        """(object code, "") or (None, why not)."""
        if self.folder is None:
            return None, "the cache is switched off"
        path = self._place(name) / f"o-{name}"
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
            place = self._place(name)
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._write(place / f"o-{name}", code)
            for k in keys:
                self._append(digest(k.encode()), name)
            self._trim(place)
        return name

    def _write(self, path: Path, data: bytes) -> None:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix="t-")
        try:
            with os.fdopen(handle, "wb") as f:
                f.write(data)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def _append(self, key: str, name: str) -> None:
        """Note which object holds a key: one write, which others see whole or not at all."""
        place = self._place(key)
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(place / "keys", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, f"{key} {name}\n".encode())
            long = os.fstat(handle).st_size > _LINES
        finally:
            os.close(handle)
        if long:
            self._shorten(place / "keys")

    def _shorten(self, path: Path) -> None:
        """Drop lines whose object is gone and those that a newer line replaces; the older half too where that is not enough. A
        line that another process adds meanwhile may be lost: a miss."""
        lines = [line.split(" ") for line in path.read_text("ascii", "replace").splitlines()]
        newest = {line[0]: line[1] for line in lines if [len(word) for word in line] == [_DIGEST, _DIGEST]}
        kept = [f"{k} {n}\n" for k, n in newest.items() if n.isalnum() and (self._place(n) / f"o-{n}").exists()]
        most = _LINES // 2 // len(kept[0]) if kept else 0
        self._write(path, "".join(kept[-most:]).encode())

    def nbytes(self) -> int:
        """Bytes that all entries take of the disk."""
        return sum(size for place in self._places() for _, size, _ in _entries(place))

    def _places(self) -> Iterator[Path]:
        if self.folder is not None and self.folder.is_dir():
            yield from (p for p in self.folder.iterdir() if p.is_dir()) if self.digits else (self.folder,)

    def _trim(self, place: Path) -> None:
        """Where a folder has more than its share, remove what was used longest ago until three quarters of it are left; the
        newest stays however large it is."""
        entries = sorted(e for e in _entries(place) if e[2].name != "keys")
        total = sum(size for _, size, _ in entries)
        least = self.share * 3 // 4 if total > self.share else total
        for _, size, path in entries[:-1]:
            if total <= least:
                break
            with contextlib.suppress(OSError):
                path.unlink()
            total -= size

    def clear(self) -> int:
        """Remove every entry, also those of older formats; returns how many bytes that freed. Code that is loaded stays
        loaded."""
        freed = 0
        for old in self.root.glob("v[0-9]*") if self.root is not None else ():
            for place in (old, *(p for p in old.iterdir() if p.is_dir())):
                for _, size, path in _entries(place):
                    with contextlib.suppress(OSError):
                        path.unlink()
                        freed += size
        return freed


def _entries(place: Path) -> list[tuple[float, int, Path]]:
    """(time of the last use, bytes taken of the disk, path) of each file."""
    out = []
    for entry in os.scandir(place):
        with contextlib.suppress(OSError):
            if entry.is_file(follow_symlinks=False):
                s = entry.stat()
                out.append((s.st_mtime, -(-s.st_size // _BLOCK) * _BLOCK, Path(entry.path)))
    return out


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
