"""The file form of a recording (.tvz): a zip of JSON pieces, each named by its checksum. Reading executes nothing."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from tinyviz import wire
from tinyviz.codec import from_json, to_json
from tinyviz.validate import validate

FORMAT = "tinyviz recording"
MAX_BYTES = 512 << 20  # uncompressed, all pieces together
MAX_PIECES = 10_000
# what zipfile raises for bytes that are no zip, beside BadZipFile; a seek to a place before the file is an OSError
DAMAGED = (
    ValueError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, MemoryError, OSError, struct.error,
    OverflowError, LookupError,
)  # fmt: skip
_DATE = (1980, 1, 1, 0, 0, 0)  # equal recordings give equal files


def identified(r: wire.Recording) -> wire.Recording:
    """The same recording with its content id."""
    r.id = ""
    r.id = hashlib.sha256(json.dumps(to_json(r), sort_keys=True).encode()).hexdigest()[:16]
    return r


def save(r: wire.Recording, path: str | os.PathLike[str]) -> Path:
    """Write `r` to `path`, atomically; returns the path. Raises OSError where it cannot be written."""
    whole = to_json(r)
    pieces: dict[str, bytes] = {}

    def piece(value: Any) -> str:
        data = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
        name = f"{hashlib.sha256(data).hexdigest()}.json"
        pieces[name] = data
        return name

    whole["programs"] = [piece(p) for p in whole["programs"]]
    manifest = {"format": FORMAT, "version": wire.VERSION, "recording": piece(whole)}
    manifest["pieces"] = {name: len(data) for name, data in pieces.items()}
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(path.parent))
    try:
        with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as z:
            for name, data in [("manifest.json", json.dumps(manifest, indent=1).encode()), *pieces.items()]:
                z.writestr(zipfile.ZipInfo(name, _DATE), data, zipfile.ZIP_DEFLATED, 9)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def load(path: str | os.PathLike[str]) -> wire.Recording:
    """Read a recording. Raises FileNotFoundError, or ValueError that names the file and what is wrong with it."""
    path = Path(path)
    with open(path, "rb") as f:
        try:
            with zipfile.ZipFile(f) as z:
                return _read(z)
        except DAMAGED as e:
            raise ValueError(f"{path.name} is no recording, or is damaged: {str(e) or type(e).__name__}") from e


def _read(z: zipfile.ZipFile) -> wire.Recording:
    infos = {i.filename: i for i in z.infolist()}
    if len(infos) > MAX_PIECES:
        raise ValueError(f"it has {len(infos)} pieces, more than {MAX_PIECES}")
    if "manifest.json" not in infos:
        raise ValueError("a zip file without manifest.json")
    manifest = _json("manifest.json", _bytes(z, infos["manifest.json"], 1 << 20))
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(f"its manifest does not say {FORMAT!r}")
    if manifest.get("version") != wire.VERSION:
        raise ValueError(f"it has version {manifest.get('version')!r}; this tinyviz reads version {wire.VERSION}")
    sizes = from_json(dict[str, int], manifest.get("pieces"), "manifest.pieces")
    if sum(sizes.values()) > MAX_BYTES or min(sizes.values(), default=0) < 0:
        raise ValueError(f"its pieces take {sum(sizes.values()):,} bytes; the limit is {MAX_BYTES:,}")

    def piece(name: Any) -> Any:
        if not isinstance(name, str) or name not in sizes or name not in infos:
            raise ValueError(f"the piece {str(name)[:40]!r} is missing")
        data = _bytes(z, infos[name], sizes[name])
        if len(data) != sizes[name] or f"{hashlib.sha256(data).hexdigest()}.json" != name:
            raise ValueError(f"the piece {name[:12]}… does not match its checksum")
        return _json(name, data)

    whole = piece(manifest.get("recording"))
    if not isinstance(whole, dict) or not isinstance(whole.get("programs"), list):
        raise ValueError("the recording lists no programs")
    whole["programs"] = [piece(name) for name in whole["programs"]]
    r: wire.Recording = from_json(wire.Recording, whole)
    validate(r)
    return r


def _bytes(z: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> bytes:
    """At most `limit` bytes, whatever the zip's directory claims: a bomb is not unpacked."""
    with z.open(info) as f:
        data = f.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"the piece {info.filename[:12]}… is larger than it says")
    return data


def _json(name: str, data: bytes) -> Any:
    try:
        return json.loads(data.decode(), parse_constant=_no_constant)
    except UnicodeDecodeError as e:
        raise ValueError(f"{name[:12]} is not UTF-8: {e}") from None


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")
