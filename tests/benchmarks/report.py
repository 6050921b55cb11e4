"""From results to BENCHMARKS.md."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Sequence
from typing import Any

from tests.benchmarks import cases
from tests.benchmarks.run import Results
from tests.benchmarks.waits import row_text

COMMAND = "make bench"


def duration(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * scale >= 1 or unit == "µs":
            return f"{seconds * scale:.3g} {unit}" if seconds * scale < 1000 else f"{seconds * scale:.0f} {unit}"
    raise AssertionError


def with_spread(values: Sequence[float]) -> str:
    """Median, and half the distance between the quartiles in percent of it."""
    middle = statistics.median(values)
    if len(values) < 3:
        return duration(middle)
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{duration(middle)} ±{(high - low) / 2 / middle:.0%}".replace("%", " %")


def ratio(a: Sequence[float], b: Sequence[float]) -> float:
    """The median of the ratios of the rounds."""
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


def limit(case: cases.Case, machine: dict[str, Any]) -> float:
    """The least seconds that this machine can do it in: the FLOPs of its matrix products at the measured FMA rate, or its bytes
    at the bandwidth, all cores, of the cache level that holds them; from memory with streaming stores."""
    size, read = case.nbytes, machine["read_all"]
    if size <= machine["l2_bytes"] * machine["cores"]:
        bandwidth = read["l2"]
    elif size <= machine["l3_bytes"]:
        bandwidth = read["l3"]
    else:
        bandwidth = min(read["l3"], max(machine["copy_all"], machine["stream_all"], read["dram"]))
    return float(max(case.flops / machine["fma_flops_all"], size / bandwidth))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(r) + " |" for r in rows])


def times(a: float) -> str:
    return f"{a:.2f}×" if a < 10 else f"{a:.0f}×"


def compared(results: dict[str, list[float]], peers: Sequence[str]) -> list[str]:
    ours = results["tinyviz"]
    return [with_spread(ours), *(with_spread(results[p]) for p in peers), *(times(ratio(results[p], ours)) for p in peers)]


def peers_of(r: Results) -> list[str]:
    return [p for p in ("PyTorch", "NumPy") if p in next(iter(r.steady.values()))]


def first_figures(r: Results) -> str:
    """The short table of the README: steps and cold starts."""
    peers = peers_of(r)
    titles = {c.name: c.title.replace("training step, ", "") for c in cases.FULL}
    rows = [[f"training step, {titles[n]}", *compared(r.steady[n], peers)] for n in cases.STEPS]
    rows += [[f"cold start, {titles[n]}", *compared(r.cold[n], peers)] for n in cases.STEPS]
    return table(["", "tinyviz", *peers, *(f"{p} ÷ tinyviz" for p in peers)], rows)


def put_figures(readme: str, figures: str) -> str:
    """The README with these figures between its two marks. Raises ValueError when a mark is missing."""
    start, end = readme.find("<!-- figures"), readme.find("<!-- end of figures -->")
    if start < 0 or end < start:
        raise ValueError("README.md has no place for figures: <!-- figures ... --> and <!-- end of figures -->")
    start = readme.index("-->", start) + len("-->")
    return f"{readme[:start]}\n{figures}\n{readme[end:]}"


def markdown(r: Results, chosen: Sequence[cases.Case]) -> str:
    peers = peers_of(r)
    columns = ["tinyviz", *peers, *(f"{p} ÷ tinyviz" for p in peers)]
    m = r.machine
    steady = []
    for c in chosen:
        least = limit(c, m)
        against = [duration(least), times(statistics.median(r.steady[c.name]["tinyviz"]) / least)]
        steady.append([c.title, *compared(r.steady[c.name], peers), *against])
    titles = {c.name: c.title for c in chosen}
    cold = [[titles[name].replace("training step, ", ""), *compared(r.cold[name], peers)] for name in r.cold]
    ops = [[name, with_spread(v)] for name, v in r.small_op.items()]
    waited = [[row, row_text(row, statistics.median(v))] for row, v in r.waits.items()]
    gb = 1e9
    worst = {p: max(e[p] for e in r.errors.values()) for p in next(iter(r.errors.values()))}
    facts = [
        f"Machine: {m['name']}, {m['cores']} cores, {m['threads']} threads, vectors of {m['vector_bytes']} bytes; load average"
        f" {r.load:.1f} when the run began",
        f"Peaks, measured in this run: {m['fma_flops_all'] / gb:.0f} GFLOP/s float32; read L2 {m['read_all']['l2'] / gb:.0f},"
        f" L3 {m['read_all']['l3'] / gb:.0f}, memory {m['read_all']['dram'] / gb:.0f} GB/s; copy {m['copy_all'] / gb:.0f},"
        f" with streaming stores {m['stream_all'] / gb:.0f} GB/s",
        "Versions: " + ", ".join(f"{k} {v}" for k, v in r.versions.items()),
        "All in float32, from the same inputs. Every result was compared with float64 NumPy before it was timed; largest relative"
        " errors: " + ", ".join(f"{k} {v:.1g}" for k, v in worst.items()),
        *r.missing,
    ]
    parts = [
        "# Benchmarks",
        f"Written by `{COMMAND}` on {datetime.date.today().isoformat()}, from one interleaved run of {r.seconds:.0f} s."
        " A round takes the fastest of the calls that fit in a slice of time; times are medians of the rounds, ± is half the"
        " distance between the quartiles. A ratio is the median of the rounds' ratios: above 1 the other is slower. On a shared"
        " machine, read the ratios and not the times.",
        "\n".join(f"- {f}" for f in facts),
        "## Steady state",
        "tinyviz: a jitted function, results in fresh memory. PyTorch: eager. NumPy: by hand, gradients written out. *limit*: the"
        " least time that the measured peaks allow (matrix products at the FMA rate, or each byte moved once).",
        table(["work", *columns, "limit", "tinyviz ÷ limit"], steady),
        "## Cold start",
        "From the start of the process to the end of its first training step: imports, model, compilation, step. No compiled"
        " kernel is in the cache.",
        table(["network", *columns], cold),
        "## One operation on 8 floats",
        "tinyviz records it and computes nothing; PyTorch executes it.",
        table(["engine", "time"], ops),
        "## The wait",
        "tinyviz alone. The first step: from the start of the process, with an empty cache and with the one that the last"
        " process left. MLP 784-512-10 (SGD) and a CNN for MNIST (two blocks of two convolutions, Adam), batch 128; GPT with 4"
        " layers of width 128, 64 positions, batch 16 (Adam).",
        table(["", "time"], waited),
    ]
    return "\n\n".join(parts) + "\n"
