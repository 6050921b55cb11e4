"""What each line of a cell cost, sent to the timing gutter of tinyviz's JupyterLab extension.

Messages of the comm ``tinyviz.gutter`` (their TypeScript side: ``extension/src/lab/costs.ts`` and ``channel.ts``):

- kernel → page ``{"type": "lines", "cell", "recording", "lines": [LineCost…], "total": LineCost without its line}``;
- kernel → page ``{"type": "clear", "cell"}``;
- page → kernel ``{"type": "hello"}``, after a reload: asks for everything that was said before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

TARGET = "tinyviz.gutter"


@dataclass(frozen=True)
class Cost:
    """What was recorded; None is "not recorded", never 0. ``seconds`` is measured, ``seconds_predicted`` is not."""

    seconds: float | None = None
    seconds_predicted: float | None = None
    bytes_read: float | None = None
    bytes_written: float | None = None
    flops: float | None = None
    launches: float | None = None

    def wire(self) -> dict[str, float]:
        return {name: value for name, value in asdict(self).items() if value is not None}


class Gutter:
    """The kernel's end of the channel. A page without tinyviz's extension closes it, and nothing else happens.

    Args:
        connect: opens a comm, given ``target_name``; ``comm.create_comm`` in a kernel.
    """

    def __init__(self, connect: Callable[..., Any] | None = None) -> None:
        if connect is None:
            from comm import create_comm

            connect = create_comm
        self._connect = connect
        self._comm: Any = None
        self._said: dict[str, dict[str, Any]] = {}

    def show(
        self,
        cell: str,
        lines: Mapping[int, Cost],
        *,
        total: Cost | None = None,
        recording: str | None = None,
        ids: Mapping[int, str] | None = None,
    ) -> None:
        """Replaces what stands beside ``cell``.

        Args:
            lines: line number (from 1, as the reader sees it) → cost.
            total: of the whole cell, for the status bar.
            recording: id of the recording that the numbers come from.
            ids: line number → id of that line in the recording. A click on the number selects it in every view of the recording.
        """
        self._said[cell] = {
            "type": "lines",
            "cell": cell,
            "recording": recording,
            "lines": [{"line": line, "id": (ids or {}).get(line), **cost.wire()} for line, cost in sorted(lines.items())],
            "total": None if total is None else total.wire(),
        }
        self._send([self._said[cell]])

    def clear(self, cell: str) -> None:
        """Removes the numbers beside ``cell``, if there are any."""
        if self._said.pop(cell, None) is not None:
            self._send([{"type": "clear", "cell": cell}])

    def close(self) -> None:
        for cell in list(self._said):
            self.clear(cell)
        if self._comm is not None:
            self._comm.close()
            self._comm = None

    def _send(self, messages: Sequence[dict[str, Any]]) -> None:
        if self._comm is None:
            self._comm = self._connect(target_name=TARGET)
            self._comm.on_msg(self._answer)
        for message in messages:
            self._comm.send(message)

    def _answer(self, message: Mapping[str, Any]) -> None:
        if message["content"]["data"].get("type") == "hello":
            self._send(list(self._said.values()))
