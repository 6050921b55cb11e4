"""The stages of the compiler, in the order of `tinyengine.pipeline.STAGES`. A stage is the file of its name; what it works with
stands in the room beside it. Each stage's `SPEC` says what it promises the next (room `specs`).

  record         the only constructors of nodes        values: what is a value of its own, what only moves elements
  differentiate  derivative rules, one per op
  simplify       named rules to a fixed point          rules/       arithmetic, movement, reduce, windows, narrow
  fuse           inline, at a loop, or whole           fusion/      uses (who needs what), cost (prices), blocks, groups,
                                                                    recompute
  loops          index arithmetic and bounds           nests/       merge, reuse, support (what a mask makes 0)
  schedule       the engine's choice of primitives     schedules/   elementwise, contraction, outer_sum, block, groups; tile,
                                                                    depth, lanes, border; forms
                                                       primitives/  apply (what a person types), vectorize, reorder, pack,
                                                                    unpack, partial, spill, fission, dot, clip; nest
                                                                    (tools), groups (work-groups and their barriers)
  plan           order, memory, updates in place
  emit           what every backend starts from        arithmetic/  expand (exp, log, sin... as arithmetic), narrow, affine

`keys` names edges, kernels and loops, so that a choice of one run is found in the next.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinyengine.stages import fuse, loops, plan, schedule, simplify

    __all__ = ["fuse", "loops", "plan", "schedule", "simplify"]


def __getattr__(name: str) -> Any:
    """A stage is imported when it is first used: a program that comes from disk needs none."""
    full = f"{__name__}.{name}"
    try:
        return importlib.import_module(full)
    except ModuleNotFoundError as e:
        if e.name != full:
            raise
        raise AttributeError(f"there is no stage {name!r}") from None
