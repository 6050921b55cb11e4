"""Files from the network: fetched once, checked, kept. A file appears in the cache whole and right, or not at all."""

from __future__ import annotations

import hashlib
import http.client
import os
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinyengine.origin import user_line
from tinyengine.runtime import cache

PATIENCE = 2.0  # seconds without a word; then the progress is shown
_EVERY = 0.5  # seconds between two lines of progress
_CHUNK = 1 << 18  # bytes
_TIMEOUT = 30.0  # seconds without a byte


def folder() -> Path:
    """Where data sets are kept: beside the compiled kernels, or in ~/.cache/tinyengine when that cache is switched off."""
    return (cache.location() or Path.home() / ".cache" / "tinyengine") / "data"


def fetch(url: str, md5: str, target: Path) -> Path:
    """`target`, downloaded from `url` unless it is there and its MD5 sum is right. Shows progress on stderr after PATIENCE
    seconds.

    OSError, which says where to put a file that was fetched by hand, when the server cannot be reached, breaks off, or sends
    something else. What was received until then is removed, also after Ctrl-C."""
    if target.exists() and _digest(target) == md5:
        return target
    by_hand = f"; by hand: save {url} as {target}\n  at {user_line()}"
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _partial(target) as partial:
            received, expected = _receive(url, partial)
            if expected is not None and received != expected:
                raise OSError(f"the download of {url} broke off after {received} of {expected} bytes{by_hand}")
            found = _digest(partial)
            if found != md5:
                raise OSError(f"{url} is not the file that it should be: its MD5 sum is {found}, not {md5}{by_hand}")
            os.replace(partial, target)
    except urllib.error.HTTPError as e:
        raise OSError(f"{url} cannot be downloaded: the server says {e.code} {e.reason}{by_hand}") from None
    except urllib.error.URLError as e:
        raise OSError(f"{url} cannot be downloaded ({e.reason}): is this machine offline?{by_hand}") from None
    except (TimeoutError, ConnectionError, http.client.HTTPException) as e:
        raise OSError(f"the download of {url} broke off ({type(e).__name__}: {e}){by_hand}") from None
    return target


@contextmanager
def _partial(target: Path) -> Iterator[Path]:
    """A name beside `target` for what is not whole yet; nothing stays under it."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".partial")
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _receive(url: str, into: Path) -> tuple[int, int | None]:
    """(bytes received, bytes announced or None)."""
    began = shown = time.monotonic()
    received = 0
    request = urllib.request.Request(url, headers={"User-Agent": "tinyengine"})
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer, into.open("wb") as out:
        announced = answer.headers.get("Content-Length")
        expected = int(announced) if announced and announced.isdigit() else None
        while chunk := answer.read1(_CHUNK):
            out.write(chunk)
            received += len(chunk)
            now = time.monotonic()
            if now - began >= PATIENCE and now - shown >= _EVERY:
                shown = now
                _show(url, received, expected, now - began)
    if shown > began:
        _show(url, received, expected, time.monotonic() - began)
        if sys.stderr.isatty():
            print(file=sys.stderr)
    return received, expected


def _show(url: str, received: int, expected: int | None, seconds: float) -> None:
    share = f"{received / expected:4.0%} of {expected / 1e6:.1f} MB" if expected else f"{received / 1e6:.1f} MB"
    line = f"{url.rsplit('/', 1)[-1]}: {share}, {received / 1e6 / max(seconds, 1e-9):.1f} MB/s"
    print(f"\r{line:<70}" if sys.stderr.isatty() else line, end="" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)


def _digest(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


__all__ = ["fetch", "folder"]
