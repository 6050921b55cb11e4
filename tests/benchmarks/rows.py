"""The rows of the page: every row has what this engine needs, what it should reach, and what the peers need."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.benchmarks import cases
from tests.benchmarks.engines import OURS
from tests.benchmarks.run import Plan, Results, Times

COLD_REACH = {"mlp": (0.7, 0.4), "cnn": (1.5, 0.6), "gpt": (2.0, 0.8)}  # seconds, with an empty and with a warm cache
LAZY_REACH = 3e-6
RECORDING_REACH = 1.05  # times the step without


@dataclass(frozen=True)
class Row:
    """`ours` and `peers`: seconds by round; `limit` likewise, or empty where the row has none. `reach`: times the limit, or
    seconds where there is none."""

    name: str
    title: str
    ours: Times
    limit: Times
    reach: float
    peers: dict[str, Times] = field(default_factory=dict)

    def times_limit(self, t: Times) -> list[float]:
        """Ratios to the limit of the same round; where there is no limit, the seconds."""
        return [s / self.limit[i] for i, s in t.items()] if self.limit else list(t.values())

    @property
    def reached(self) -> float:
        return statistics.median(self.times_limit(self.ours))

    @property
    def met(self) -> bool:
        return self.reached <= self.reach

    @property
    def best(self) -> str | None:
        """The quickest peer."""
        return min(self.peers, key=lambda p: statistics.median(self.times_limit(self.peers[p])), default=None)

    def ahead(self, peer: str) -> float:
        """How many times longer the peer needs: the median over the rounds that both have."""
        return statistics.median(s / self.ours[i] for i, s in self.peers[peer].items() if i in self.ours)


def numbered(values: Sequence[float]) -> Times:
    return dict(enumerate(values))


def rows(r: Results, plan: Plan) -> list[Row]:
    out = []
    for c in plan.cases:
        times = dict(r.steady.get(c.name, {}))
        if plan.wants(c.name) and OURS in times:
            ours = times.pop(OURS)
            out.append(Row(c.name, c.title, ours, {} if c.absolute else r.limits[c.name], c.reach, times))
    for network, by_engine in r.cold.items():
        title = cases.STEPS[network][0]
        for k, cache in enumerate(("empty", "warm")):
            peers = {e: numbered(t.get(cache) or t["empty"]) for e, t in by_engine.items() if e != OURS}
            ours = numbered(by_engine[OURS][cache])
            row_title = f"cold start, {cache} cache, {title}"
            out.append(Row(f"cold_{network}_{cache}", row_title, ours, {}, COLD_REACH[network][k], peers))
    if OURS in r.small_op:
        peers = {e: t for e, t in r.small_op.items() if e != OURS}
        out.append(Row("lazy_op", "one operation on 8 floats", r.small_op[OURS], {}, LAZY_REACH, peers))
    for network, by_round in r.recorded.items():
        on, off = ({i: t[k] for i, t in by_round.items()} for k in (0, 1))
        out.append(Row(f"recording_{network}", f"recording, {cases.STEPS[network][0]}", on, off, RECORDING_REACH))
    return out
