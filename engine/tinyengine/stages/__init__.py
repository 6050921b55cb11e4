"""The stages of the compiler, in the order of `tinyengine.pipeline.STAGES`. A stage is the file of its name; its helpers
stand beside it.

  record          the only constructors of nodes          graph_spec (the spec of graphs), values (what is a value)
  differentiate   derivative rules, one per op
  simplify        named rules to a fixed point            simplify_arithmetic, simplify_movement, simplify_reduce
  fuse            inline, at a loop, or whole             fuse_uses (who needs what), fuse_cost (prices), fuse_groups, fuse_spec
  loops           index arithmetic and bounds             loops_merge, nest_spec (the spec of loop nests)
  schedule        the engine's own choice of primitives   schedule_elementwise, schedule_contraction, schedule_tile,
                                                          schedule_outer_sum, schedule_depth, schedule_lanes,
                                                          schedule_cost,
                                                          contraction (what is a product), forms (equal kernels, once)
    primitives    parse and apply what a person types     vectorize, reorder, pack, unpack, partial; nest (tools for loop nests)
  plan            order, memory, updates in place         plan_spec
  emit            what every backend starts from          expand, expand_math (exp, log, sin... as arithmetic), affine (addresses)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinyengine.stages import fuse, fuse_spec, loops, plan, plan_spec, schedule, simplify

    __all__ = ["fuse", "fuse_spec", "loops", "plan", "plan_spec", "schedule", "simplify"]


def __getattr__(name: str) -> Any:
    """A stage is imported when it is first used: a program that comes from disk needs none."""
    full = f"{__name__}.{name}"
    try:
        return importlib.import_module(full)
    except ModuleNotFoundError as e:
        if e.name != full:
            raise
        raise AttributeError(f"there is no stage {name!r}") from None
