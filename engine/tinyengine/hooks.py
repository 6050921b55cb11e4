"""Every event that the engine publishes, with its payload, and the way to subscribe. This file imports no stage and no backend.

The engine asks one flag, `hooks.watching`, and with no subscriber it does no more than that. A subscriber that raises changes
nothing: its error is kept in `hooks.errors` and the engine goes on.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """The base of all events."""


@dataclass(frozen=True, slots=True)
class Realized(Event):
    """What forced a computation now: `cause` (item, numpy, print, bool, step, ...), and the user's line. `roots`: the recorded
    nodes."""

    cause: str
    origin: Any
    roots: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class StageStarted(Event):
    stage: str
    subject: Any


@dataclass(frozen=True, slots=True)
class StageFinished(Event):
    """`output`: the value of the stage: Graph, Fusion, Kernel, Program or Emitted."""

    stage: str
    subject: Any
    output: Any
    seconds: float


@dataclass(frozen=True, slots=True)
class RuleApplied(Event):
    """One firing: `before` became `after` (graph nodes). `number` counts firings within the stage."""

    stage: str
    rule: str
    reason: str
    number: int
    before: Any
    after: Any
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Decision(Event):
    """What the engine chose, and what it refused. `subject`: what was decided about, by node numbers of the simplified graph
    or names; `numbers`: the quantities that led to it, units in their names; `alternatives`: verdict -> why it was refused."""

    stage: str
    kind: str
    subject: tuple[Any, ...]
    verdict: str
    reason: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    alternatives: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KernelEmitted(Event):
    backend: str
    kernel: Any
    source: str
    seconds: float
    cached: bool


@dataclass(frozen=True, slots=True)
class CacheHit(Event):
    cache: str
    key: str


@dataclass(frozen=True, slots=True)
class CacheMiss(Event):
    """Which guard failed: `guard` names it (shape of input 0, dtype, new graph, damaged entry...), with its old and new value."""

    cache: str
    key: str
    guard: str
    old: Any = None
    new: Any = None


@dataclass(frozen=True, slots=True)
class BufferPlanned(Event):
    """`offset` in the arena in bytes, alive from kernel `first` to kernel `last`."""

    name: str
    nbytes: int
    offset: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Launching(Event):
    """A program is about to run on `memory`, one Buffer per slot that the caller gives. A subscriber may read and copy it."""

    program: Any
    memory: Any


@dataclass(frozen=True, slots=True)
class Launch(Event):
    """One run of a program: `seconds` and `starts` per kernel, from clocks inside the native program; `host_seconds` around the
    call."""

    program: Any
    starts: tuple[float, ...]
    seconds: tuple[float, ...]
    host_seconds: float
    began: float = 0.0  # time.perf_counter() at the call


@dataclass(frozen=True, slots=True)
class HostWait(Event):
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ValueCaptured(Event):
    """A value that somebody asked for, as a NumPy array: of a node of the recorded graph, in run number `run` of its program."""

    program: Any
    run: int
    node: Any
    value: Any


Subscriber = Callable[[Event], None]

watching: bool = False
heard: frozenset[type[Event]] = frozenset()  # kinds that somebody asked for by name: for events that cost more than others
errors: list[tuple[Event, BaseException]] = []
_lock = threading.Lock()
_subscribers: tuple[tuple[Subscriber, tuple[type[Event], ...]], ...] = ()


def subscribe(f: Subscriber, *kinds: type[Event]) -> Callable[[], None]:
    """Call `f` with each event of these kinds (all when none is named). Returns the function that ends it."""
    entry = (f, kinds or (Event,))
    with _lock:
        _listen((*_subscribers, entry))

    def unsubscribe() -> None:
        with _lock:
            _listen(tuple(e for e in _subscribers if e is not entry))

    return unsubscribe


def _listen(to: tuple[tuple[Subscriber, tuple[type[Event], ...]], ...]) -> None:
    global _subscribers, watching, heard
    _subscribers, watching, heard = to, bool(to), frozenset(kind for _, kinds in to for kind in kinds)


def publish(event: Event) -> None:
    """Hand `event` to its subscribers. Call only under `if hooks.watching:` so that events are not even built unwatched."""
    for f, kinds in _subscribers:
        if isinstance(event, kinds):
            try:
                f(event)
            except Exception as e:
                errors.append((event, e.with_traceback(None)))  # a traceback would keep the caller's tensors alive
                del errors[:-100]


@contextlib.contextmanager
def subscribed(f: Subscriber, *kinds: type[Event]) -> Iterator[None]:
    """`subscribe` for the length of a with-block."""
    end = subscribe(f, *kinds)
    try:
        yield
    finally:
        end()


EVENTS: tuple[type[Event], ...] = (
    Realized, StageStarted, StageFinished, RuleApplied, Decision, KernelEmitted, CacheHit, CacheMiss, BufferPlanned,
    Launching, Launch, HostWait, ValueCaptured,
)  # fmt: skip
