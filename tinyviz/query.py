"""The recording as plain tables, for scripts, pandas and JSON: one function per table, one dict per row; None is "not known"."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tinyviz import analysis, steps, texts, units, views
from tinyviz.svg import cut
from tinyviz.viewdata import LedgerRow
from tinyviz.views.graph import operands
from tinyviz.views.lines import where
from tinyviz.wire import Kernel, Program, Recording

Row = dict[str, Any]


def rows(r: Recording, table: str, program: int | None = None) -> list[Row]:
    """The rows of one table. Raises ValueError for a table or a program that there is not."""
    if table not in TABLES:
        raise ValueError(f"there is no table {table!r}; tables: {', '.join(TABLES)}")
    return list(TABLES[table](r, r.programs[views.choose(r, program, None)]))


def programs(r: Recording, _: Program) -> Iterator[Row]:
    for i, p in enumerate(r.programs):
        c, n = p.certificate, p.launches
        sizes = {"kernels": len(p.kernels), "launches": len(p.calls), "nodes": len(p.simplified or p.recorded)}
        counted = {name: getattr(c, name) for name in ("flops", "bytes_read", "bytes_written", "peak_bytes")}
        times = {"seconds": n.host_median, "seconds_low": n.host_low, "seconds_high": n.host_high, "seconds_predicted": c.seconds}
        yield {"program": i, "name": p.name, "backend": p.backend, "runs": n.count, **sizes, **counted, **times, "key": p.key}


def kernels(_: Recording, p: Program) -> Iterator[Row]:
    for x in analysis.kernel_rows(p):
        k = p.kernels[x.kernel]
        yield {
            "kernel": x.kernel, "name": k.name, "launches": len(x.calls), "seconds": x.seconds, "seconds_low": x.seconds_low,
            "seconds_high": x.seconds_high, "seconds_predicted": x.seconds_predicted, "share": x.share, "flops": x.flops,
            "bytes_read": x.bytes_read, "bytes_written": x.bytes_written, "bytes_issued": k.bytes_issued, "bound": x.bound,
            "phases": x.phases, "schedule": k.schedule, **_counted(k), "bound_measured": k.ablation.bound if k.ablation else None,
            "not_finite": analysis.flag(p, x.kernel).removeprefix("▲ ") or None,
        }  # fmt: skip


def _counted(k: Kernel) -> Row:
    """What was counted in a run of one launch (see `Recording.count`)."""
    names = ("flops", "bytes_read", "bytes_written", "bytes_issued")
    return {f"{name}_counted": getattr(k.counted, name) if k.counted is not None else None for name in names}


def lines(r: Recording, p: Program) -> Iterator[Row]:
    for x in analysis.line_rows(p)[0]:
        phases = {f"seconds_{name}": x.by_phase.get(name) for name in ("forward", "backward", "optimizer")}
        yield {
            "line": where(r, x.line), "code": "" if x.line < 0 else r.lines.text[x.line], "seconds": x.seconds,
            "seconds_predicted": x.seconds_predicted, "share": x.share, **phases, "bytes_read": x.bytes_read,
            "bytes_written": x.bytes_written, "flops": x.flops, "kernels": x.kernels,
        }  # fmt: skip


def nodes(r: Recording, p: Program) -> Iterator[Row]:
    of, n = analysis.node_kernels(p), p.nodes
    for i, src in operands(p, list(p.simplified or p.recorded)).items():
        yield {
            "node": i, "op": n.op[i], "dtype": n.dtype[i], "shape": n.shape[i], "arg": n.arg[i], "src": src, "phase": n.phase[i],
            "module": n.module[i], "lines": [where(r, line) for line in n.lines[i]], "forward": n.forward[i],
            "derivative": n.derivative[i], "kernels": of.get(i, []),
        }  # fmt: skip


def stages(_: Recording, p: Program) -> Iterator[Row]:
    for s in p.stages:
        made = sum(d.stage == s.name for d in p.decisions)
        yield {"stage": s.name, "question": s.question, "seconds": s.seconds, "firings": steps.count(s), "decisions": made}


def firings(r: Recording, p: Program) -> Iterator[Row]:
    """Single firings of rules; `steps` has those of the stages that make no new graph."""
    for s in p.stages:
        f = s.frames
        for k in range(len(f)):
            yield {
                "stage": s.name, "firing": k, "rule": r.rules.name[f.rule[k]], "reason": r.rules.reason[f.rule[k]],
                "replaced": f.replaced[k], "by": f.by[k], "added": f.added[k], "removed": f.removed[k], "seconds": f.seconds[k],
            }  # fmt: skip


def steps_(r: Recording, p: Program) -> Iterator[Row]:
    """What each decision and each primitive did, in the stages from fuse on."""
    for s in p.stages:
        x = s.steps
        for k, made in enumerate(steps.edits(s)):
            lines = {"lines_new": sum(len(e.text) for e in made), "lines_gone": sum(e.gone for e in made)}
            yield {
                "stage": s.name, "step": k, "rule": r.rules.name[x.rule[k]], "reason": r.rules.reason[x.rule[k]],
                "what": x.text[k], "decision": x.decision[k], "kernel": x.kernel[k], "nodes": x.nodes[k], **lines,
                "seconds": x.seconds[k],
            }  # fmt: skip


def decisions(_: Recording, p: Program) -> Iterator[Row]:
    for i, d in enumerate(p.decisions):
        yield {
            "decision": i, "stage": d.stage, "kind": d.kind, "subject": d.subject, "nodes": d.nodes, "kernel": d.kernel,
            "verdict": d.verdict, "reason": d.reason, **d.numbers, "alternatives": d.alternatives,
        }  # fmt: skip


def launches(_: Recording, p: Program) -> Iterator[Row]:
    """Every launch of the runs that were kept in full."""
    for i, run in enumerate(p.launches.runs):
        for c, seconds in enumerate(run.seconds):
            k, start = p.calls[c].kernel, run.starts[c] if run.starts else None
            which = {"run": i, "call": c, "kernel": k, "name": p.kernels[k].name}
            yield {**which, "began": run.began, "start": start, "seconds": seconds}


def memory(_: Recording, p: Program) -> Iterator[Row]:
    for i, s in enumerate(p.slots):
        yield {
            "slot": i, "name": s.name, "role": s.role, "dtype": s.dtype, "shape": s.shape, "nbytes": s.nbytes, "offset": s.offset,
            "first_call": s.first, "last_call": s.last, "node": s.node,
        }  # fmt: skip


def ledger(r: Recording, p: Program) -> Iterator[Row]:
    from tinyviz.views import timeline

    found: list[LedgerRow] = timeline.ledger(p)
    for x in found:
        yield dict(vars(x))


TABLES: dict[str, Callable[[Recording, Program], Iterator[Row]]] = {
    f.__name__.rstrip("_"): f
    for f in (programs, kernels, lines, nodes, stages, firings, steps_, decisions, launches, memory, ledger)
}


WIDE = 60  # characters of one cell of a printed table


def text(rows: list[Row]) -> str:
    """The rows as an aligned table; numbers in full, lists and sentences cut to `WIDE` characters."""
    head = list(rows[0]) if rows else []

    def cell(value: Any) -> str:
        return units.MISSING if value is None else f"{value:.6g}" if isinstance(value, float) else cut(str(value), WIDE)

    numbers = [i for i, name in enumerate(head) if isinstance(rows[0][name], (int, float))]
    return texts.table(head, [[cell(x.get(name)) for name in head] for x in rows], numbers) if rows else "no rows"
