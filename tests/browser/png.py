"""Small PNG files: a picture in a few colours, without loss of sharpness (PNG specification, colour type 3)."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path

import numpy as np
from playwright.sync_api import Page

# Chromium itself knows how to read its screenshots.
PIXELS = """async source => {
    const image = new Image();
    image.src = source;
    await image.decode();
    const canvas = Object.assign(document.createElement('canvas'), { width: image.width, height: image.height });
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, image.width, image.height);
    let text = '';
    for (let i = 0; i < data.length; i += 32768) text += String.fromCharCode(...data.subarray(i, i + 32768));
    return [image.width, image.height, btoa(text)];
}"""


def write(page: Page, screenshot: bytes, path: Path, colors: int = 48) -> int:
    """Writes a screenshot in its `colors` most frequent colours; any other becomes the nearest of them. Returns its bytes."""
    source = "data:image/png;base64," + base64.b64encode(screenshot).decode()
    width, height, text = page.evaluate(PIXELS, source)
    pixels = np.frombuffer(base64.b64decode(text), np.uint8).reshape(-1, 4)[:, :3]
    found, place, count = np.unique(pixels // 4 * 4 + 2, axis=0, return_inverse=True, return_counts=True)
    palette = _spread(found, count, colors)
    distance = ((found[:, None].astype(int) - palette[None].astype(int)) ** 2).sum(2)
    indices = distance.argmin(1)[place.reshape(-1)].astype(np.uint8).reshape(height, width)
    rows = np.concatenate([np.zeros((height, 1), np.uint8), indices], 1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"PLTE", palette.tobytes()), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    made = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)
    path.write_bytes(made)
    return len(made)


def _spread(found: np.ndarray, count: np.ndarray, colors: int) -> np.ndarray:
    """The most frequent colours, each at some distance from those before it: thin coloured marks keep a colour of their own."""
    weight = count.astype(float)
    chosen: list[np.ndarray] = []
    for _ in range(min(colors, len(found))):
        best = int(weight.argmax())
        if weight[best] <= 0:
            break
        chosen.append(found[best])
        distance = ((found.astype(float) - found[best]) ** 2).sum(1)
        weight *= 1 - np.exp(-distance / 600)
    return np.array(chosen, np.uint8)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
