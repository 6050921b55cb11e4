"""Data sets that are downloaded: from a server on this machine that also breaks off, lies and is not there."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import socket
import struct
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinyengine import data, download


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; `asked` are the paths in order; `answer` may take over."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.answer: Callable[[http.server.BaseHTTPRequestHandler, bytes], None] = whole

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Any = self.server
        server.asked.append(self.path)
        name = self.path.rsplit("/", 1)[-1]
        if name not in server.files:
            self.send_error(404)
            return
        server.answer(self, server.files[name])

    def log_message(self, *args: Any) -> None: ...


def whole(h: http.server.BaseHTTPRequestHandler, content: bytes) -> None:
    h.send_response(200)
    h.send_header("Content-Length", str(len(content)))
    h.end_headers()
    h.wfile.write(content)


def half(h: http.server.BaseHTTPRequestHandler, content: bytes) -> None:
    h.send_response(200)
    h.send_header("Content-Length", str(len(content)))
    h.end_headers()
    h.wfile.write(content[: len(content) // 2])


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("TINYENGINE_CACHE", str(tmp_path / "cache"))
    with Server() as s:
        thread = threading.Thread(target=s.serve_forever, args=(0.01,))
        thread.start()
        yield s
        s.shutdown()
        thread.join()


def serve(server: Server, monkeypatch: pytest.MonkeyPatch, name: str, files: dict[str, bytes]) -> None:
    server.files = files
    sums = {k: hashlib.md5(v).hexdigest() for k, v in files.items()}
    monkeypatch.setitem(data.SETS, name, (server.url, sums))


def idx(a: np.ndarray[Any, Any]) -> bytes:
    return gzip.compress(bytes([0, 0, 8, a.ndim]) + struct.pack(f">{a.ndim}i", *a.shape) + a.tobytes())


def small_set(name: str) -> tuple[list[np.ndarray[Any, Any]], dict[str, bytes]]:
    rng = np.random.default_rng(0)
    arrays = [
        rng.integers(0, n, shape).astype(np.uint8) for rows in (7, 3) for n, shape in ((256, (rows, 28, 28)), (10, (rows,)))
    ]
    return arrays, dict(zip(data.SETS[name][1], map(idx, arrays), strict=True))


def left(tmp_path: Path) -> list[str]:
    return sorted(p.name for p in tmp_path.rglob("*") if p.is_file())


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_images_are_downloaded_once(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    arrays, files = small_set(name)
    serve(server, monkeypatch, name, files)
    for _ in range(2):
        x, y, test_x, test_y = getattr(data, name)()
        np.testing.assert_array_equal(x[:, 0], arrays[0])
        np.testing.assert_array_equal(y, arrays[1])
        np.testing.assert_array_equal(test_x[:, 0], arrays[2])
        np.testing.assert_array_equal(test_y, arrays[3])
        assert x.shape == (7, 1, 28, 28) and (x.dtype, y.dtype) == (np.uint8, np.int32)
    assert server.asked == [f"/{n}" for n in files] and left(tmp_path) == sorted(files)
    (download.folder() / name / next(iter(files))).write_bytes(b"damaged")
    getattr(data, name)()
    assert len(server.asked) == 5, "a damaged file is fetched again, the others are not"


def test_photographs(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rows = {f"data_batch_{i}.bin": rng.integers(0, 10, (4, 3073)).astype(np.uint8) for i in range(1, 6)}
    rows["test_batch.bin"] = rng.integers(0, 10, (4, 3073)).astype(np.uint8)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, a in reversed(rows.items()):
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = a.size
            archive.addfile(info, io.BytesIO(a.tobytes()))
    serve(server, monkeypatch, "cifar10", {"cifar-10-binary.tar.gz": packed.getvalue()})
    x, y, test_x, test_y = data.cifar10()
    assert x.shape == (20, 3, 32, 32) and test_x.shape == (4, 3, 32, 32)
    np.testing.assert_array_equal(x[4].reshape(-1), rows["data_batch_2.bin"][0, 1:])
    np.testing.assert_array_equal(y[:4], rows["data_batch_1.bin"][:, 0])
    np.testing.assert_array_equal(test_y, rows["test_batch.bin"][:, 0])


def test_a_wrong_checksum(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, files = small_set("mnist")
    serve(server, monkeypatch, "mnist", files)
    server.answer = lambda h, content: whole(h, content[:-1] + b"?")
    with pytest.raises(OSError, match=r"is not the file that it should be: its MD5 sum is \w{32}, not \w{32}; by hand"):
        data.mnist()
    assert left(tmp_path) == []


def test_a_server_that_breaks_off(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, files = small_set("mnist")
    serve(server, monkeypatch, "mnist", files)
    server.answer = half
    with pytest.raises(OSError, match=r"train-images-idx3-ubyte\.gz broke off.*by hand: save http:[^\n]*\n  at test_data_sets"):
        data.mnist()
    assert left(tmp_path) == []


def test_a_missing_file(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, files = small_set("mnist")
    serve(server, monkeypatch, "mnist", files)
    server.files = {}
    with pytest.raises(OSError, match=r"the server says 404 .*by hand: save "):
        data.mnist()
    assert left(tmp_path) == []


def test_offline_the_error_says_which_file_goes_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYENGINE_CACHE", str(tmp_path))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    arrays, files = small_set("mnist")
    sums = {k: hashlib.md5(v).hexdigest() for k, v in files.items()}
    monkeypatch.setitem(data.SETS, "mnist", (f"http://127.0.0.1:{port}", sums))
    with pytest.raises(OSError) as e:
        data.mnist()
    place = tmp_path / "data" / "mnist"
    first = next(iter(files))
    assert "is this machine offline?" in str(e.value)
    assert f"save http://127.0.0.1:{port}/{first} as {place / first}" in str(e.value)
    for name, content in files.items():
        (place / name).write_bytes(content)
    np.testing.assert_array_equal(data.mnist()[1], arrays[1])


def test_ctrl_c_leaves_nothing_behind(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, files = small_set("mnist")
    serve(server, monkeypatch, "mnist", files)

    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "PATIENCE", 0.0)
    monkeypatch.setattr(download, "_EVERY", 0.0)
    monkeypatch.setattr(download, "_show", interrupt)
    with pytest.raises(KeyboardInterrupt):
        data.mnist()
    assert left(tmp_path) == []


def test_progress_is_shown_when_it_takes_long(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, files = small_set("mnist")
    serve(server, monkeypatch, "mnist", files)
    data.mnist()
    assert capsys.readouterr() == ("", "")
    for name in files:
        (download.folder() / "mnist" / name).unlink()
    monkeypatch.setattr(download, "PATIENCE", 0.0)
    monkeypatch.setattr(download, "_EVERY", 0.0)
    data.mnist()
    out, err = capsys.readouterr()
    assert out == "" and "train-images-idx3-ubyte.gz: 100% of 0.0 MB, " in err


def test_the_addresses_are_https_and_the_sums_whole() -> None:
    for address, sums in data.SETS.values():
        assert address.startswith("https://") and all(len(s) == 32 for s in sums.values())
