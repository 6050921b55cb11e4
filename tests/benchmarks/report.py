"""From results to BENCHMARKS.md."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Iterable, Mapping, Sequence

from tests.benchmarks.bounds import BOUNDS
from tests.benchmarks.engines import ENGINES, KEEPING, OURS, UNSET
from tests.benchmarks.rows import Row, rows
from tests.benchmarks.run import Plan, Results

COMMAND = "make bench"
TIE = 0.97  # of two times: closer than this they are equal
FIGURES = ("mlp", "cnn", "gpt", "cold_mlp_empty", "cold_cnn_empty", "cold_gpt_empty")  # of the README


def duration(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * scale >= 1 or unit == "µs":
            return f"{seconds * scale:.3g} {unit}" if seconds * scale < 1000 else f"{seconds * scale:.0f} {unit}"
    raise AssertionError


def spread(values: Sequence[float]) -> float:
    """Half the distance between the quartiles, relative to the median."""
    if len(values) < 3:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / 2 / statistics.median(values)


def with_spread(values: Iterable[float]) -> str:
    """Median, and its spread."""
    v = list(values)
    return duration(statistics.median(v)) + (f" ±{100 * spread(v):.0f} %" if len(v) > 2 else "")


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    every = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return "\n".join(every + ["| " + " | ".join(r) + " |" for r in lines])


def times(a: float) -> str:
    return f"{a:.2f}×" if a < 10 else f"{a:.0f}×"


def value(row: Row, a: float) -> str:
    """Of a row: times its limit, or seconds; of a recording what it adds."""
    if row.name.startswith("recording"):
        return f"{100 * (a - 1):+.1f} %"
    return times(a) if row.limit else duration(a)


def line(row: Row) -> list[str]:
    """A row of the first table."""
    best = row.best
    plain = bool(row.limit) and not row.name.startswith("recording")
    ratios = row.times_limit(row.ours)
    return [
        row.title,
        duration(statistics.median(row.limit.values())) if plain else "",
        with_spread(row.ours.values()),
        f"{value(row, row.reached)}" + (f" ±{100 * spread(ratios):.0f} %" if plain and len(ratios) > 2 else ""),
        value(row, row.reach),
        "yes" if row.met else "**no**",
        f"{best}: {value(row, statistics.median(row.times_limit(row.peers[best])))}" if best else "",
        times(row.ahead(best)) if best else "",
    ]


HEAD = ["work", "limit", "tinyviz", "reached", "to reach", "met", "best peer", "best peer ÷ tinyviz"]


def put_figures(readme: str, figures: str) -> str:
    """The README with these figures between its two marks. Raises ValueError when a mark is missing."""
    start, end = readme.find("<!-- figures"), readme.find("<!-- end of figures -->")
    if start < 0 or end < start:
        raise ValueError("README.md has no place for figures: <!-- figures ... --> and <!-- end of figures -->")
    start = readme.index("-->", start) + len("-->")
    return f"{readme[:start]}\n{figures}\n{readme[end:]}"


def first_figures(r: Results, plan: Plan) -> str:
    """The short table of the README: steps and cold starts."""
    return table(HEAD, [line(row) for row in rows(r, plan) if row.name in FIGURES])


def peers_table(chosen: Sequence[Row]) -> str:
    """Every engine in every row: times the limit, or seconds where there is none."""
    engines = [e for e in ENGINES if any(e in row.peers for row in chosen)]
    lines = []
    for row in chosen:
        each = [value(row, statistics.median(row.times_limit(row.peers[e]))) if e in row.peers else "" for e in engines]
        lines.append([row.title, value(row, row.reached), *each])
    return table(["work", OURS, *engines], lines)


def misses(chosen: Sequence[Row], bounds: Mapping[str, str] = BOUNDS) -> str:
    """What bounds each row that misses."""
    lines = []
    for row in chosen:
        why = [] if row.met else [f"reached {value(row, row.reached)} of {value(row, row.reach)}"]
        if row.best and behind(row):
            why.append(f"{row.best} is {times(1 / row.ahead(row.best))} quicker")
        if why:
            lines.append(f"- {row.title}: {'; '.join(why)}. {bounds.get(row.name, 'Not analysed yet.')}")
    return "\n".join(lines) or "None."


def behind(row: Row) -> bool:
    """Whether a peer is quicker by more than a tie."""
    return row.best is not None and row.ahead(row.best) < TIE


def missing(row: Row) -> bool:
    """Whether a row misses what it should reach, or a peer is quicker."""
    return not row.met or behind(row)


def stale(chosen: Sequence[Row], bounds: Mapping[str, str] = BOUNDS) -> list[str]:
    """Rows of `bounds` that miss nothing in this run."""
    return [row.name for row in chosen if row.name in bounds and not missing(row)]


def markdown(r: Results, plan: Plan) -> str:
    chosen = rows(r, plan)
    m, gb = r.machine, 1e9
    met = sum(row.met for row in chosen)
    errors = {e: [found[e] for found in r.errors.values() if e in found] for e in ENGINES}
    worst = {e: max(v) for e, v in errors.items() if v}
    fma = [f"{v / gb:.0f}" for v in (min(r.probes["fma"]), max(r.probes["fma"]))] if r.probes.get("fma") else ["", ""]
    facts = [
        f"Machine: {m['name']}, {m['cores']} cores, {m['threads']} threads, vectors of {m['vector_bytes']} bytes, L2"
        f" {m['l2_bytes'] >> 10} KiB per core, L3 {m['l3_bytes'] >> 20} MiB; load average {r.load:.1f} when the run began",
        f"Peaks, measured when it began: {m['fma_flops_all'] / gb:.0f} GFLOP/s float32 (in the rounds {fma[0]} to {fma[1]}); read"
        f" L2 {m['read_all']['l2'] / gb:.0f}, L3 {m['read_all']['l3'] / gb:.0f}, memory {m['read_all']['dram'] / gb:.0f} GB/s;"
        f" copy {m['copy_all'] / gb:.0f}, with streaming stores {m['stream_all'] / gb:.0f} GB/s",
        "Versions: " + ", ".join(f"{k} {v}" for k, v in r.versions.items()),
        f"Unset for every process: {', '.join(UNSET)} (they slow NumPy down, or make Python compile its files at every start)."
        f" *Keeping malloc*: {', '.join(f'{k}={v}' for k, v in KEEPING.items())}, so that large results do not come from fresh"
        " pages",
        "All in float32, from the same inputs, on all cores. Every result was compared with float64 NumPy before it was timed,"
        " training steps one by one, by the loss and by how every parameter moved; largest relative errors: "
        + ", ".join(f"{k} {v:.1g}" for k, v in worst.items()),
        *r.missing, *r.failed,
    ]  # fmt: skip
    parts = [
        "# Benchmarks",
        f"Written by `{COMMAND}` on {datetime.date.today().isoformat()}, from one interleaved run of {r.seconds:.0f} s."
        f" {met} of {len(chosen)} rows reach what they should."
        " A round takes the fastest of the calls that fit in a slice of time; times are medians of the rounds, ± is half the"
        " distance between the quartiles. On a shared machine, read the ratios and not the times.",
        "\n".join(f"- {f}" for f in facts),
        "## What was to be reached",
        "*limit*: the least time that the machine allowed in the same round: matrix products at the rate of fused multiply-adds,"
        " or bytes at the rate of copying (results, and as much of what is read) and reading (what is read beyond) arrays of that"
        " size."
        " *reached*: times that limit; a row without a limit has its time. *best peer ÷ tinyviz*: above 1 the peer is slower.",
        table(HEAD, [line(row) for row in chosen]),
        "tinyviz: a jitted function, its results in memory that the engine keeps. Cold start: from the start of the process to"
        " the end of its first training step, with an empty cache and with the one that such a process left; imports, model,"
        " initialisation, compilation and step; PyTorch and NumPy keep nothing on disk. One operation: tinyviz records it with"
        " the user's line and computes nothing, as tinygrad; PyTorch executes it; JAX dispatches it. Recording: what"
        " `tv.watch()` adds to a jitted step; without it nothing is added, which the tests count.",
        "## Every engine",
        "Times the limit; seconds where there is none.",
        peers_table([row for row in chosen if not row.name.startswith("recording")]),
        "## What misses, and what bounds it",
        misses(chosen),
    ]
    return "\n\n".join(parts) + "\n"
