"""What each primitive of a kernel's schedule changed: derived again, by applying the primitives that it names one by one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from tinyengine.hooks import Decision
from tinyengine.loopnest import Kernel
from tinyengine.stages import schedule
from tinyengine.stages.primitives import apply as primitives
from tinyengine.stages.primitives.apply import TABLE, apply_one, parse
from tinyengine.stages.primitives.clip import clip
from tinyengine.stages.primitives.dot import dot
from tinyengine.stages.primitives.fission import fission
from tinyengine.stages.primitives.nest import settled
from tinyengine.stages.primitives.pack import pack
from tinyengine.stages.primitives.partial import partial
from tinyengine.stages.primitives.phases import phases
from tinyengine.stages.primitives.prefetch import prefetch
from tinyengine.stages.primitives.reorder import merge, reorder
from tinyengine.stages.primitives.scan import scan
from tinyengine.stages.primitives.spill import spill
from tinyengine.stages.primitives.unpack import unpack
from tinyengine.stages.primitives.vectorize import accumulate, vectorize
from tinyengine.stages.schedules import across, contraction, groups

#: primitive, or what else is decided -> (why it is allowed, the function that does it)
RULES: dict[str, tuple[str, Callable[..., Any]]] = {
    "tile": ("The same iterations in the same order, block by block.", primitives.tile),
    "split": ("The same iterations in the same order, in two loops, each without settled masks.", primitives.split),
    "phases": ("The same iterations in the same order, counted by two variables.", phases),
    "reorder": ("Iterations that depend on each other only through a sum may change their order.", reorder),
    "fission": ("Iterations do not depend on each other, so each part may run over all of them first.", fission),
    "merge": ("Every access is contiguous over these loops, so that one loop reaches the same places.", merge),
    "fuse": ("Every access is contiguous over these loops, so that one loop reaches the same places.", merge),
    "vectorize": ("Iterations that do not depend on each other may be the lanes of a vector.", vectorize),
    "scan": ("A total may be taken in parts: what came before, and the lanes before in the same vector.", scan),
    "unroll": ("The same iterations in the same order, written out.", primitives.unroll),
    "parallel": ("Iterations that do not depend on each other may run on several cores.", primitives.parallel),
    "dot": ("The machine adds pairs of bfloat16 products; a sum may be taken in another order.", dot),
    "accumulate": ("A sum may be taken in parts that are added up at the end.", accumulate),
    "streaming": ("The kernel does not read what it writes there, so that the caches need not hold it.", primitives.streaming),
    "pack": ("What the loop reads is not written in it, so that a copy in another order may be read.", pack),
    "unpack": ("Each element of a block is written once, so that it may be written later, from a copy.", unpack),
    "partial": ("A sum may be taken in registers first and be added to the whole once.", partial),
    "spill": ("A finished sum does not change any more, so that it may lie in memory.", spill),
    "clip": ("Terms that a mask makes 0 add nothing, so that their iterations may be left out.", clip),
    "prefetch": ("A hint: it changes when memory comes to the caches, and no value.", prefetch),
    "tidy": ("What nothing uses may go; a condition that always holds need not be asked.", settled),
    "register tile": ("Sums in registers need their loops inside: see reorder.", contraction.along_sum),
    "turn": ("Which of two ways a product is done: see the reason.", across._turned),
    "groups": ("Which work a group of work-items shares: see the reason.", groups._turned),
    "patches": ("Which of two ways a convolution is done: see the reason.", contraction.run),
    "weave": ("Which rows are read as they lie: see the reason.", across.run),
    "schedule": ("A schedule of yours comes before the engine's own; each primitive of it must be legal.", schedule.asked),
    "tuned": ("What was measured as fastest, and checked, comes before the engine's own choice.", schedule._tuned),
    "pin": ("Whether a kernel of the program is the one that a schedule was chosen for.", schedule.matched),
}


class Step(NamedTuple):
    """`primitive`: as text; "" where nothing was applied: a refusal, or tidying at the end. `kernel`: after it."""

    rule: str
    primitive: str
    decision: Decision | None
    kernel: Kernel
    seconds: float | None


def explain(kernel: Kernel, scheduled: Kernel, decisions: Sequence[Decision]) -> Iterator[Step]:
    """The way from `kernel` to `scheduled`, with the decision behind each step, refusals in their places. `decisions`: those of
    the stage about this kernel, in their order. Raises ScheduleError where the recorded primitives do not apply."""
    todo = list(scheduled.schedule)

    def do(text: str, d: Decision | None) -> Step:
        nonlocal kernel
        p = parse(text)[0]
        began = time.perf_counter()
        kernel = replace(apply_one(kernel, p), schedule=(*kernel.schedule, text))
        return Step(p.name, text, d, kernel, time.perf_counter() - began)

    for d in decisions:
        mine = d.verdict.split("; ")
        if todo[: len(mine)] == mine:
            del todo[: len(mine)]
            for text in mine:
                yield do(text, d)
        else:
            yield Step(rule(d), "", d, kernel, None)
    for text in todo:
        yield do(text, None)
    if kernel != scheduled:
        yield Step("tidy", "", None, scheduled, None)


def rule(d: Decision) -> str:
    """The entry of `RULES` that a decision without effect belongs to: the primitive that was refused, else its kind."""
    refused = next(iter(d.alternatives), "").partition("(")[0]
    return refused if refused in TABLE else d.kind
