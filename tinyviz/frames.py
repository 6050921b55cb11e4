"""Reading rewrite steps: the graph after any frame, and what a node came from and became."""

from __future__ import annotations

from collections.abc import Callable

from tinyviz.wire import Frames, Program


class Snapshot:
    """The graph after frame `frame` of a stage: `alive` node ids, and for each its operands as they are by then."""

    def __init__(self, program: Program, stage: int, frame: int) -> None:
        """`frame`: how many firings have been done; 0 is the stage's input, -1 its output. Raises IndexError for no frame."""
        frames = program.stages[stage].frames
        count = len(frames)
        if frame == -1:
            frame = count
        if not 0 <= frame <= count:
            raise IndexError(f"stage {program.stages[stage].name} has frames 0 to {count}, not {frame}")
        self._nodes = program.nodes
        self._by: dict[int, int] = {}
        for s in program.stages[:stage]:
            self._by.update(replacements(s.frames))
        self._by.update(replacements(frames, frame))
        self.alive: set[int] = set(program.stages[stage].before)
        for k in range(frame):
            self.alive.update(frames.added[k])
            self.alive.difference_update(frames.removed[k])
        self.roots: list[int] = [self.find(r) for r in program.stages[stage].roots]

    def find(self, i: int) -> int:
        while i in self._by:
            i = self._by[i]
        return i

    def src(self, i: int) -> list[int]:
        return [self.find(s) for s in self._nodes.src[i]]

    def reached(self) -> set[int]:
        """What the roots reach: equal to `alive` in a sound recording."""
        seen: set[int] = set()
        stack = list(self.roots)
        while stack:
            i = stack.pop()
            if i not in seen:
                seen.add(i)
                stack += self.src(i)
        return seen


def replacements(frames: Frames, count: int | None = None) -> dict[int, int]:
    """Replaced node -> what stands in its place, after the first `count` firings."""
    pairs = zip(frames.replaced[:count], frames.by[:count], strict=True)
    return {old: new for old, new in pairs if old != new}


def graph_at(program: Program, stage: int, frame: int) -> Snapshot:
    """The graph after `frame` firings of a stage (-1: all of them)."""
    return Snapshot(program, stage, frame)


def blame(program: Program, node: int) -> list[tuple[int, int]]:
    """The firings that led to `node`, newest first, as (stage, frame): what made it, what made the node that it replaced, or
    whose gradient it is a part of…, down to the line of the user that was recorded."""
    made: dict[int, tuple[int, int]] = {}
    for s, stage in enumerate(program.stages):
        for k, added in enumerate(stage.frames.added):
            for i in added:
                made.setdefault(i, (s, k))
    out: list[tuple[int, int]] = []
    seen: set[tuple[int, int]] = set()
    while node in made and made[node] not in seen:
        s, k = made[node]
        seen.add((s, k))
        out.append((s, k))
        node = program.stages[s].frames.replaced[k]
    return out


def fate(program: Program, node: int) -> list[tuple[int, int]]:
    """The firings that `node`'s value went through after it was made, oldest first: what replaced it, what replaced that… The
    last one removes it where nothing stands for it at the end."""
    replaced: dict[int, tuple[int, int]] = {}
    removed: dict[int, tuple[int, int]] = {}
    for s, stage in enumerate(program.stages):
        f = stage.frames
        for k in range(len(f)):
            if f.replaced[k] != f.by[k]:
                replaced[f.replaced[k]] = (s, k)
            for i in f.removed[k]:
                removed[i] = (s, k)
    out: list[tuple[int, int]] = []
    while node in replaced:
        s, k = replaced[node]
        out.append((s, k))
        node = program.stages[s].frames.by[k]
    if node in removed:  # nothing uses it any more
        out.append(removed[node])
    return out


def became(program: Program, node: int) -> int:
    """The id under which `node`'s value stands at the end; itself when nothing replaced it."""
    return finder(program)(node)


def finder(program: Program) -> Callable[[int], int]:
    """`became` for many nodes of one program."""
    by: dict[int, int] = {}
    for stage in program.stages:
        by.update(replacements(stage.frames))

    def find(node: int) -> int:
        while node in by:
            node = by[node]
        return node

    return find
