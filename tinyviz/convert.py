"""From the engine's values to a wire `Program`. Done after the run, when someone looks; changes nothing in the engine."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinyviz import asm, layout, wire
from tinyviz.convert_steps import add_steps
from tinyviz.identity import Identities
from tinyviz.space import space
from tinyviz.tables import Tables

INTERPRETED = ("reference", "null")  # backends of which the time model says nothing


@dataclass
class Parts:
    """What is known of one compiled graph; None: not recorded. `firings`: stage -> rule events (see `hooks.RuleApplied`)."""

    name: str
    graph: Any = None
    simplified: Any = None
    fusion: Any = None
    nests: Sequence[Any] | None = None
    scheduled: Sequence[Any] | None = None
    plan: Any = None
    executable: Any = None
    machine: Any = None
    backend: str = ""
    certificate: Any = None
    decisions: list[Any] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    firings: dict[str, list[Any]] = field(default_factory=dict)
    fused: Any = None  # what `tinyengine.stages.fusion.steps.explain` says
    replayed: bool = False
    missing: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, lowered: Any, name: str = "", emit: bool = True) -> Parts:
        """From a `tinyengine.pipeline.Lowered`: computes the stages that were not computed yet, and replays the rules."""
        p = cls(name or "program", lowered.graph, lowered.simplified, lowered.fusion, lowered.nests, lowered.scheduled)
        p.plan, p.machine, p.backend = lowered.plan, lowered.machine, lowered.backend
        p.decisions, p.seconds = lowered.decisions, dict(lowered.seconds)
        if emit:
            p.executable = p.attempt("source and assembly", lambda: lowered.executable)
            p.decisions = [*lowered.decisions, *(p.attempt("loads and stores", p.moves) or ())]
        p.certificate = p.attempt("prediction", lambda: lowered.certificate)
        p.replay(lowered.choices, lowered.machine)
        return p

    def replay(self, choices: Any, machine: Any) -> None:
        """Derive single firings and decisions by doing the (deterministic) stages again."""
        from tinyengine.stages import simplify
        from tinyengine.stages.fusion import steps as fuse_steps

        events = self.attempt("single rewrites", lambda: simplify.explain(self.graph, choices, machine))
        if events is not None:
            self.firings, self.replayed = {"simplify": list(events)}, True
        fuse = lambda: fuse_steps.explain(self.simplified, choices, machine)  # noqa: E731
        self.fused = self.attempt("steps of fuse", fuse)

    def moves(self) -> list[Any]:
        """The decisions about loads and stores that the backend made while it wrote each kernel."""
        found = getattr(self.executable, "moves", None)
        return [d for i in range(len(self.plan.calls)) for d in found(i)] if found else []

    def attempt(self, what: str, f: Callable[[], Any]) -> Any:
        """f(), or None with a sentence in `missing`: one part that fails takes no other with it."""
        try:
            return f()
        except Exception as e:
            self.missing.append(f"{what}: not recorded, because {type(e).__name__}: {(str(e).splitlines() or [''])[0][:160]}")
            return None


def program(parts: Parts, tables: Tables) -> wire.Program:
    """The wire form of everything that `parts` knows."""
    ids = Identities()
    origins = _Origins(tables)
    recorded = ids.graph(parts.graph.nodes, fresh=True)
    roots = [ids.id(r) for r in parts.graph.roots]
    ids.hold(roots)
    frames = wire.Frames()
    for e in parts.firings.get("simplify", ()):
        ids.fire(frames, tables.rule(e.stage, e.rule, e.reason), e.before, e.after, e.seconds or None)
    simplified: list[int] = []
    if parts.simplified is not None:
        simplified = ids.graph(parts.simplified.nodes)
        ids.update_origins(parts.simplified.nodes)
    nodes = _nodes(ids, origins)
    stages = _stages(parts, recorded, simplified, roots, frames)
    births(stages, nodes, tables, parts.graph.nodes)
    decisions = [_decision(d, simplified, parts) for d in parts.decisions]
    kernels, calls = _kernels(parts, simplified, origins)
    certificate = _certificate(parts)
    out = wire.Program(
        name=parts.name, key=parts.graph.key()[0][:16], nodes=nodes, origins=origins.wire, recorded=recorded,
        simplified=simplified, roots=[ids.find(r) for r in roots], layouts={}, stages=stages, decisions=decisions,
        kernels=kernels, calls=calls,
        slots=_slots(parts, simplified), arena_bytes=None if parts.plan is None else parts.plan.arena_bytes, peak_bytes=None,
        certificate=certificate, launches=wire.Launches(), backend=parts.backend,
    )  # fmt: skip
    out.layouts = _layouts(out, ids)
    add_steps(out, parts, tables)
    out.missing = list(parts.missing)
    return out


class _Origins:
    """Gives each origin of the engine one id."""

    def __init__(self, tables: Tables) -> None:
        self.wire = wire.Origins()
        self._tables = tables
        self._known: dict[Any, int] = {}

    def id(self, o: Any) -> int:
        key = (o.frames, o.module, o.phase)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = len(self._known)
            self.wire.lines.append(list(dict.fromkeys(self._tables.line(f) for f in o.frames)))
            self.wire.module.append(o.module)
            self.wire.phase.append(o.phase)
        return found


def _nodes(ids: Identities, origins: _Origins) -> wire.Nodes:
    out = wire.Nodes()
    for i, n in enumerate(ids.node_of):
        where = list(dict.fromkeys(origins.id(o) for o in n.origin))
        out.op.append(n.op)
        out.dtype.append(n.dtype.name)
        out.shape.append(extents(n.shape))
        out.src.append(ids.src[i])
        out.arg.append(arg_text(n))
        out.phase.append(n.phase)
        out.module.append(n.origin[0].module if n.origin else "")
        out.lines.append(list(dict.fromkeys(origins.wire.lines[o][0] for o in where if origins.wire.lines[o])))
        out.origins.append(where)
        first = next((o for o in n.origin if o.forward is not None), None)
        out.forward.append(-1 if first is None or first.forward not in ids else ids.id(first.forward))
        out.derivative.append(first.derivative if first else "")
    return out


def extents(shape: Iterable[Any]) -> list[int | str]:
    """A shape as it is kept: a symbolic extent is text, with its largest value."""
    return [d if type(d) is int else f"{d}≤{getattr(d, 'max', None) or int(d)}" for d in shape]


def _range(whole: Any, part: Any, arg: tuple[Any, int]) -> str:
    """What a slice takes of an axis: "1:9:2", and ":" for all of it; an end that is known from data is left out."""
    start, step = arg
    known = all(type(x) is int for x in (whole, part, start))
    stop = start + (part - 1) * step + 1 if known else whole
    ends = "" if known and not start else start, "" if not known or stop == whole else stop
    return f"{ends[0]}:{ends[1]}{f':{step}' if step != 1 else ''}"


def arg_text(n: Any) -> str:
    """The argument as text; for a buffer its name, for a slice as in Python's brackets."""
    if n.op == "buffer":
        return str(getattr(n.arg, "name", "") or "buffer")
    if n.op == "slice":
        return f"[{','.join(map(_range, n.src[0].shape, n.shape, n.arg))}]".replace(" ", "")
    return "" if n.arg is None else repr(n.arg).replace(" ", "")


def _stages(parts: Parts, recorded: list[int], simplified: list[int], roots: list[int], frames: wire.Frames) -> list[wire.Stage]:
    from tinyengine.pipeline import STAGES

    out = []
    for s in STAGES:
        if s.name == "run":
            continue
        stage = wire.Stage(s.name, s.question, parts.seconds.get(s.name))
        if s.name in ("record", "differentiate"):
            backward = {i for i, n in zip(recorded, parts.graph.nodes, strict=True) if n.phase == "backward"}
            if s.name == "differentiate":
                stage.before, stage.after, stage.roots = [i for i in recorded if i not in backward], recorded, []
            else:
                stage.after = [i for i in recorded if i not in backward]
        elif s.name == "simplify":
            stage.before, stage.after, stage.roots, stage.frames = recorded, simplified, roots, frames
            stage.replayed = parts.replayed
        out.append(stage)
    return out


RECORDED = ("record-line", "Operations on tensors are noted as nodes, with the line that asked for them; nothing is computed.")
GATHERED = ("gather-gradient", "What a gradient needs beside the derivative rules of the nodes that it goes through.")


def births(stages: list[wire.Stage], nodes: wire.Nodes, tables: Tables, graph: Iterable[Any] = ()) -> None:
    """The frames of the stages that only add nodes: of record one for each line of the user's in turn, of differentiate one for
    each forward node and the derivative rule that it went through. What is added replaces nothing. `graph`: where functions of
    the user's are looked for, which bring their own rule."""
    from tinyengine.stages import differentiate
    from tinyengine.stages import record as stage

    written: dict[str, Callable[..., Any]] = {
        differentiate.SEED[0]: differentiate.gradient, differentiate.FAN_OUT[0]: differentiate._add,
        **{f"d-{n.arg.call.cls.__name__}": n.arg.call.cls.backward for n in graph if n.op == "function"},
    }  # fmt: skip
    record = next((s for s in stages if s.name == "record"), None)
    derive = next((s for s in stages if s.name == "differentiate"), None)
    if record is not None:
        for group in _runs(record.after, lambda n: nodes.lines[n][:1]):
            _born(record.frames, tables.rule("record", *RECORDED, stage.run), group[0], group)
    if derive is not None:
        old = set(derive.before)
        new = [n for n in derive.after if n not in old]
        for group in _runs(new, lambda n: (nodes.forward[n], nodes.derivative[n])):
            forward, name = nodes.forward[group[0]], nodes.derivative[group[0]]
            rule = (name, differentiate.reason(name)) if name else GATHERED
            number = tables.rule("differentiate", *rule, written.get(name) if name else differentiate.gradient)
            _born(derive.frames, number, forward if forward >= 0 else group[0], group)


def _runs(nodes: list[int], key: Callable[[int], Any]) -> list[list[int]]:
    """Neighbours with equal keys."""
    return [list(group) for _, group in itertools.groupby(nodes, key)]


def _born(frames: wire.Frames, rule: int, of: int, added: list[int]) -> None:
    for column, value in zip(vars(frames).values(), (rule, of, of, added, [], None), strict=True):
        column.append(value)


def _decision(d: Any, simplified: list[int], parts: Parts) -> wire.Decision:
    """Integers in a subject are numbers of the simplified graph; for a decision of simplify, of its output all the same."""
    nodes = [simplified[s] for s in d.subject if isinstance(s, int) and not isinstance(s, bool) and 0 <= s < len(simplified)]
    kernel = -1
    if parts.plan is not None:
        names = [c.kernel.name for c in parts.plan.calls]
        kernel = next((names.index(s) for s in d.subject if isinstance(s, str) and s in names), -1)
    between = ", " if d.kind == "join" else " -> "  # kernels side by side are no edge
    subject = between.join(f"%{s}" if isinstance(s, int) else str(s) for s in d.subject)
    numbers = {str(k): float(v) for k, v in d.numbers.items()}
    refused = {str(k): str(v) for k, v in d.alternatives.items()}
    return wire.Decision(d.stage, d.kind, subject, nodes, kernel, d.verdict, d.reason, numbers, refused)


def _kernels(parts: Parts, simplified: list[int], origins: _Origins) -> tuple[list[wire.Kernel], list[wire.Call]]:
    """One kernel per call of the plan: equal kernels may share code, but each serves nodes and lines of its own."""
    if parts.plan is None:
        return [], []
    before = unscheduled(parts)
    given = {n.kernel.name: _given(n, parts.simplified.number) for n in parts.nests or ()}
    kernels, calls = [], []
    for i, call in enumerate(parts.plan.calls):
        k = call.kernel
        loops = loops_code(before[k.name], simplified) if k.name in before else wire.Code()
        scheduled = loops_code(k, simplified)
        read = {simplified[n] for n in given.get(k.name, ())}
        served = sorted({n for row in [*loops.nodes, *scheduled.nodes] for n in row} - read)
        out = wire.Kernel(k.name, served, loops, [str(p) for p in k.schedule], scheduled, wire.Code(), wire.Code())
        _shares(parts, k, origins, simplified, out)
        if k.name in before:
            out.space = parts.attempt(f"iteration space of {k.name}", lambda k=k: space(before[k.name]))  # type: ignore[misc]
            _attempts(parts, before[k.name], out)
        if parts.certificate is not None:
            _cost(out, parts.certificate.kernels[i], parts.backend not in INTERPRETED)
        if parts.executable is None:
            out.missing = "it was not compiled: " + ("; ".join(parts.missing) or "nothing asked for it")
        else:
            _emitted(parts, i, out)
        kernels.append(out)
        calls.append(wire.Call(i, list(call.slots)))
    return kernels, calls


def unscheduled(parts: Parts) -> dict[str, Any]:
    """The kernels by name, before they were scheduled: those of the nests, and those that the plan added."""
    from tinyengine.stages import plan

    out = {n.kernel.name: n.kernel for n in parts.nests or ()}
    if parts.nests is not None and parts.plan is not None:
        out |= {c.kernel.name: plan.unscheduled_copy(c.kernel) for c in parts.plan.calls if c.kernel.name not in out}
    return out


def _attempts(parts: Parts, nest: Any, out: wire.Kernel) -> None:
    """What the tuner tried on a kernel of this form, on this machine."""
    from tinyengine import tune_store
    from tinyengine.stages.keys import kernel_key, localise

    if parts.machine is None:
        return
    store = tune_store.store(parts.machine, parts.backend)
    entry = store.entries.get(kernel_key(nest)) if store.entries else None
    if entry is not None:
        out.tuned = entry.date
        out.attempts = [attempt(a, localise(a.schedule, nest)) for a in entry.attempts]


def attempt(a: Any, schedule: Iterable[str]) -> wire.Attempt:
    """The wire form of a `tinyengine.tune_store.Attempt`."""
    return wire.Attempt(list(schedule), a.origin, a.verdict, a.reason, a.seconds, a.seconds_low, a.seconds_high, a.error)


def _given(nest: Any, number: dict[Any, int]) -> set[int]:
    """Numbers of the values that a kernel reads ready-made from another kernel."""
    outputs = set(nest.kernel.outputs)
    pairs = zip(nest.kernel.params, nest.values, strict=True)
    return {number[v] for p, v in pairs if p.name not in outputs and getattr(v, "op", "buffer") != "buffer" and v in number}


def loops_code(k: Any, simplified: list[int]) -> wire.Code:
    """The text of a kernel, each line with the nodes that it serves. `simplified`: node id by number of the simplified graph."""
    from tinyengine.loopnest import kernel_lines

    out = wire.Code("loops")
    for text, stmt in kernel_lines(k):
        out.text.append(text)
        out.nodes.append([simplified[n] for n in stmt.nodes if n < len(simplified)] if stmt is not None else [])
    return out


def _emitted(parts: Parts, call: int, out: wire.Kernel) -> None:
    source = parts.attempt(f"source of {out.name}", lambda: parts.executable.source(call))
    assembly = parts.attempt(f"assembly of {out.name}", lambda: parts.executable.assembly(call))
    if source:
        out.source = asm.source(source, parts.backend, len(out.scheduled.text))
    if assembly:
        out.assembly = asm.assembly(assembly, len(out.scheduled.text))
    if not source:
        out.missing = f"the backend {parts.backend} gives no source for it"


def _certificate(parts: Parts) -> wire.Certificate:
    """What the engine's cost model said of the whole program (`tinyengine.cost.Certificate`)."""
    from tinyengine.timing import band

    out, c = wire.Certificate(), parts.certificate
    if parts.plan is not None:
        out.kernels, out.launches = len(parts.plan.calls), len(parts.plan.calls)
    if c is not None:
        out.flops, out.bytes_read, out.bytes_written, out.peak_bytes = c.flops, c.bytes_read, c.bytes_written, c.peak_bytes
        if parts.backend in INTERPRETED:
            parts.missing.append(f"predicted times: they are of compiled code, and the backend {parts.backend} does not compile")
        else:
            out.seconds, (out.seconds_low, out.seconds_high) = c.seconds, band(c.seconds, c.error)
        found = {(k.name, a.buffer, a.reason) for k in c.kernels for a in k.addresses if a.verdict != "static"}
        out.data_dependent = [f"{kernel}: {buffer}, because {reason}" for kernel, buffer, reason in sorted(found)]
        if c.range is not None:
            out.formulas = c.range.notes()
        if not c.exact:
            out.data_dependent.append("some counts are upper bounds")
    return out


def _cost(out: wire.Kernel, c: Any, times: bool) -> None:
    """Fill in what the cost model said of one kernel (`tinyengine.cost.KernelCost`)."""
    from tinyengine.timing import band

    out.flops, out.flops_expanded = c.flops, c.flops_expanded
    out.bytes_read, out.bytes_written, out.bytes_issued, out.exact = c.bytes_read, c.bytes_written, c.bytes_issued, c.exact
    if times:
        out.seconds_predicted, out.bound = c.seconds, c.bound
        out.seconds_predicted_low, out.seconds_predicted_high = band(c.seconds, c.error)


def _shares(parts: Parts, kernel: Any, origins: _Origins, simplified: list[int], out: wire.Kernel) -> None:
    """For which nodes, and so for which lines of the user's code in which phase, a kernel works."""
    from tinyengine import cost

    def shares() -> Any:
        weights = cost.node_weights(kernel, parts.machine)
        return weights, cost.shares(kernel, parts.simplified.nodes, parts.machine, origins.id, weights)

    weights, found = parts.attempt(f"shares of {kernel.name}", shares) or ({}, {})
    sums: dict[int, float] = {}
    for n, weight in weights.items():
        if n < len(simplified):
            sums[simplified[n]] = sums.get(simplified[n], 0.0) + weight
    total = sum(weights.values())
    out.weights = [round(sums.get(n, 0.0) / total, 5) for n in out.nodes] if total else []
    for origin, share in sorted(found.items(), key=lambda kv: (-kv[1], kv[0])):
        lines = origins.wire.lines[origin]
        out.shares.line.append(lines[0] if lines else -1)
        out.shares.phase.append(origins.wire.phase[origin])
        out.shares.origin.append(origin)
        out.shares.share.append(share)


def _slots(parts: Parts, simplified: list[int]) -> list[wire.Slot]:
    if parts.plan is None:
        return []
    values = {n.kernel.name: n.values for n in parts.nests or ()}
    number = parts.simplified.number
    touched: dict[int, list[int]] = {}
    holds: dict[int, int] = {}
    for i, c in enumerate(parts.plan.calls):
        behind = values.get(c.kernel.name, ())
        for k, s in enumerate(c.slots):
            touched.setdefault(s, []).append(i)
            if k < len(behind) and behind[k] in number:
                holds.setdefault(s, simplified[number[behind[k]]])
    out = []
    again = parts.attempt("what can be computed again", lambda: _again(parts, simplified)) or {}
    for i, s in enumerate(parts.plan.slots):
        calls = touched.get(i, [])
        offset = s.offset if s.role == "temporary" else None
        first, last = min(calls, default=-1), max(calls, default=-1)
        node = holds.get(i, -1)
        name, kept = again.get(node, ("", "")) if s.role == "temporary" else ("", "")
        out.append(wire.Slot(s.name, s.dtype.name, extents(s.shape), s.nbytes, s.role, offset, first, last, node, name, kept))
    return out


def _again(parts: Parts, simplified: list[int]) -> dict[int, tuple[str, str]]:
    """Node id of an activation that the gradient reads -> (its name for being computed again, why it cannot be)."""
    from tinyengine.stages.fusion import recompute

    possible = recompute.candidates(parts.fusion)
    names, number = recompute.names(possible), parts.simplified.number
    return {simplified[number[n]]: (names[n], why) for n, why in possible.items()}


def _layouts(p: wire.Program, ids: Identities) -> dict[str, wire.Layout]:
    recorded = layout.layout(p.nodes, p.recorded, [p.nodes.src[i] for i in p.recorded])
    frames = [s.frames for s in p.stages if s.name not in ("record", "differentiate")]  # what these add has its place
    total = len(p.nodes)
    out = {"recorded": recorded, "stages": layout.follow(recorded, p.recorded, frames, total)}
    if p.simplified:
        src = [[ids.find(s) for s in p.nodes.src[i]] for i in p.simplified]
        out["simplified"] = layout.layout(p.nodes, p.simplified, src, hint=out["stages"])
    return out


def fold(values: Iterable[float]) -> tuple[float, float, float]:
    """(first quartile, median, third quartile), by linear interpolation between the sorted values."""
    v = sorted(values)

    def at(q: float) -> float:
        x = q * (len(v) - 1)
        i = int(x)
        return v[i] + (v[min(i + 1, len(v) - 1)] - v[i]) * (x - i)

    return at(0.25), at(0.5), at(0.75)
