"""Loads and stores in OpenCL C, for one vector of at most 16 lanes.

Neighbouring lanes are one vloadN or vstoreN, equal ones a scalar and a splat, evenly spaced ones perhaps loads of what lies
between and shuffles; anything else is a gather or, for writes, lane after lane in order. OpenCL has no masked vector access: a
helper tests whether all lanes are on, which is one access then, and else goes lane by lane. A float16 is stored as its bits, a
bool as one byte.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinyengine import dtypes
from tinyengine.backends.opencl_ops import (
    LANES,
    MEMORY,
    REGISTER,
    Helpers,
    bare,
    bits_half,
    half_bits,
    literal,
    pieces,
    register,
    wide,
)  # fmt: skip
from tinyengine.backends.strided import interleaved
from tinyengine.dtypes import DType

HAS_BUILTIN = "#ifndef __has_builtin\n#define __has_builtin(x) 0\n#endif\n"
DIGITS = "0123456789abcdefghijklmnopqrstuv"
SPACES = {"global": "", "private": "private_", "local": "local_"}


def pointer(d: DType, space: str, const: bool = False) -> str:
    return f"{space} {'const ' if const else ''}{MEMORY[d.name]}*"


def moved(base: str, offset: str) -> str:
    return base if offset == "0" else f"{base} + {bare(offset)}"


def _from(h: Helpers, d: DType, w: int, text: str) -> str:
    if d is dtypes.float16:
        return bits_half(h, w, text)
    if d is dtypes.bool_:
        return f"({text} != 0)" if w == 1 else f"convert_int{w}({text} != ({wide('uchar', w)})(0))"
    return text


def _into(h: Helpers, d: DType, w: int, value: str) -> str:
    if d is dtypes.float16:
        return half_bits(h, w, value)
    return f"convert_{wide('uchar', w)}(-{value})" if d is dtypes.bool_ and w > 1 else value


def load_one(h: Helpers, d: DType, base: str, offset: str) -> str:
    """The element at `offset`."""
    return _from(h, d, 1, f"{base}[{bare(offset)}]")


def load(h: Helpers, d: DType, w: int, base: str, offset: str) -> str:
    """`w` neighbours from `offset` on."""
    return load_one(h, d, base, offset) if w == 1 else _from(h, d, w, f"vload{w}(0, {moved(base, offset)})")


def store_one(h: Helpers, d: DType, base: str, offset: str, value: str) -> str:
    return f"{base}[{bare(offset)}] = {bare(_into(h, d, 1, value))};"


def store(h: Helpers, d: DType, w: int, base: str, offset: str, value: str) -> str:
    if w == 1:
        return store_one(h, d, base, offset, value)
    return f"vstore{w}({bare(_into(h, d, w, value))}, 0, {moved(base, offset)});"


def lane(d: DType, value: str, k: int) -> str:
    """Lane k of a vector as a scalar of the same dtype."""
    return f"(-{value}.s{LANES[k]})" if d is dtypes.bool_ else f"{value}.s{LANES[k]}"


def as_lane(d: DType, scalar: str) -> str:
    """A scalar as one lane of a vector: only bools differ."""
    return f"-{scalar}" if d is dtypes.bool_ else scalar


def _kind(d: DType) -> str:
    return {"bool": "bool", "float16": "half"}.get(d.name, REGISTER[d.name])


def load_masked(h: Helpers, d: DType, w: int, space: str, base: str, offset: str, m: str) -> str:
    """`w` > 1 neighbours; lanes that are off are 0 and not read. Halves are tried where not all or none are on."""
    name = ""
    for n in (2, 4, 8, 16)[: w.bit_length() - 1]:
        t, smaller = register(d, n), name
        name = f"load_{SPACES[space]}{_kind(d)}{n}"
        if n == 2:
            halves = [f"m.s{k} ? {as_lane(d, load_one(h, d, 'p', str(k)))} : {literal(0, d)}" for k in (0, 1)]
        else:
            halves = [f"{smaller}(p, m.lo)", f"{smaller}(p + {n // 2}, m.hi)"]
        body = f"  if (all(m)) return {load(h, d, n, 'p', '0')};\n"
        if n > 4:
            body += f"  if (!any(m)) return ({t})({literal(0, d)});\n"
        h.add(name, f"{t} {name}({pointer(d, space, True)} p, int{n} m) {{\n{body}  return ({t})({', '.join(halves)});\n}}")
    return f"{name}({moved(base, offset)}, {bare(m)})"


def load_prefix(h: Helpers, d: DType, w: int, base: str, offsets: Sequence[str], n: int) -> str:
    """The first `n` of `w` neighbours, and zeros."""
    if n == w:
        return load(h, d, w, base, offsets[0])
    parts = [load(h, d, size, base, offsets[at]) for at, size in pieces(n)]
    parts = [as_lane(d, x) if size == 1 else x for x, (_, size) in zip(parts, pieces(n), strict=True)]
    return f"({register(d, w)})({', '.join([*parts, *[literal(0, d)] * (w - n)])})"


def store_prefix(h: Helpers, d: DType, w: int, base: str, offsets: Sequence[str], value: str, n: int) -> list[str]:
    """Statements that write the first `n` of `w` lanes; `value` is a name."""
    if n == w:
        return [store(h, d, w, base, offsets[0], value)]
    parts = [lane(d, value, at) if size == 1 else f"{value}.s{LANES[at : at + size]}" for at, size in pieces(n)]
    return [store(h, d, size, base, offsets[at], x) for (at, size), x in zip(pieces(n), parts, strict=True)]


def store_masked(h: Helpers, d: DType, w: int, space: str, base: str, offset: str, value: str, m: str) -> str:
    """`w` > 1 neighbours, of which those are written whose lanes are on."""
    name = ""
    for n in (2, 4, 8, 16)[: w.bit_length() - 1]:
        smaller, name = name, f"store_{SPACES[space]}{_kind(d)}{n}"
        if n == 2:
            halves = [f"if (m.s{k}) {store_one(h, d, 'p', str(k), lane(d, 'v', k))}" for k in (0, 1)]
        else:
            halves = [f"{smaller}(p, v.lo, m.lo);", f"{smaller}(p + {n // 2}, v.hi, m.hi);"]
        body = f"  if (all(m)) {store(h, d, n, 'p', '0', 'v')}\n  else {'if (any(m)) ' if n > 4 else ''}{{\n"
        body += "".join(f"    {x}\n" for x in halves) + "  }"
        h.add(name, f"void {name}({pointer(d, space)} p, {register(d, n)} v, int{n} m) {{\n{body}\n}}")
    return f"{name}({moved(base, offset)}, {bare(value)}, {bare(m)});"


def _lanes(t: str, one: Sequence[str], m: str | None) -> str:
    """The body of a function that returns a vector of type `t` of these lanes; those that are off are 0 and not evaluated."""
    if m is None:
        return f"  return ({t})({', '.join(one)});"
    lanes = "\n".join(f"  if (m.s{LANES[k]}) v.s{LANES[k]} = {x};" for k, x in enumerate(one))
    return f"  {t} v = 0;\n{lanes}\n  return v;"


def gather(h: Helpers, d: DType, w: int, space: str, base: str, offsets: str, index: str, m: str | None) -> str:
    """One element per lane, at vector `offsets` of scalar type `index`."""
    t, p = register(d, w), pointer(d, space, True)
    name = f"gather_{SPACES[space]}{_kind(d)}{w}_{index}" + ("" if m is None else "_masked")
    one = [as_lane(d, load_one(h, d, "p", f"at.s{LANES[k]}")) for k in range(w)]
    body = _lanes(t, one, m)
    h.add(name, f"{t} {name}({p} p, {index}{w} at{'' if m is None else f', int{w} m'}) {{\n{body}\n}}")
    return f"{name}({base}, {bare(offsets)}{'' if m is None else ', ' + bare(m)})"


def load_apart(h: Helpers, d: DType, w: int, space: str, base: str, offset: str, step: int, m: str | None) -> str:
    """`w` > 1 elements, each `step` after the one before, one by one; lanes that are off are 0 and not read."""
    t, p = register(d, w), pointer(d, space, True)
    name = f"load_apart_{SPACES[space]}{_kind(d)}{w}" + ("" if m is None else "_masked")
    one = [as_lane(d, load_one(h, d, "p", f"{k} * step")) for k in range(w)]
    body = _lanes(t, one, m)
    h.add(name, f"{t} {name}({p} p, long step{'' if m is None else f', int{w} m'}) {{\n{body}\n}}")
    return f"{name}({moved(base, offset)}, {step}{'' if m is None else ', ' + bare(m)})"


def shuffle(h: Helpers, t: str, w: int, x: str, y: str, picks: Sequence[int]) -> str:
    """Elements `picks` of two vectors of `w` of the scalar type `t`, one after the other. Where the compiler has an operation for
    it, it is told: from single lanes it makes one insertion for each."""
    v = wide(t, w)
    name = f"shuffle_{v}_{''.join(map(DIGITS.__getitem__, picks))}"
    lanes = ", ".join(f"{'ab'[p // w]}.s{LANES[p % w]}" for p in picks)
    text = ", ".join(map(str, picks))
    h.add(
        name,
        f"{HAS_BUILTIN}{v} {name}({v} a, {v} b) {{\n#if __has_builtin(__builtin_shufflevector)\n"
        f"  return __builtin_shufflevector(a, b, {text});\n#else\n  return ({v})({lanes});\n#endif\n}}",
    )
    return f"{name}({x}, {y})"


def load_near(h: Helpers, d: DType, w: int, space: str, base: str, offset: str, step: int) -> str:
    """The same for a small `step`: what lies between the first and the last, and nothing else, is loaded as it lies."""
    raw, v = MEMORY[d.name], wide(MEMORY[d.name], w)
    name = f"load_near_{SPACES[space]}{raw}{w}_{step}"
    lines, out, reach = [f"  {v} v0 = vload{w}(0, p);"], "v0", w
    for piece in range(1, step):
        start = min(piece * w, step * (w - 1) + 1 - w)
        lines.append(f"  {v} v{piece} = vload{w}(0, p + {start});")
        place = step if piece == 1 else 1  # of the lanes that are there already
        picks = [place * k if step * k < reach else w + min(step * k - start, w - 1) for k in range(w)]
        out, reach = shuffle(h, raw, w, out, f"v{piece}", picks), start + w
    body = "\n".join(lines)
    h.add(name, f"{v} {name}({pointer(d, space, True)} p) {{\n{body}\n  return {out};\n}}")
    return _from(h, d, w, f"{name}({moved(base, offset)})")


def column(h: Helpers, d: DType, w: int, space: str, base: str, offset: str, step: int, k: int) -> str:
    """Column `k` of the w x w block that begins at `offset`, its rows `step` apart: the block is loaded by rows and turned by
    rounds of interleaving them. The compiler does what several columns share once."""
    raw, v = MEMORY[d.name], wide(MEMORY[d.name], w)
    name = f"column{k}_{SPACES[space]}{raw}{w}"
    lines: dict[str, str] = {}

    def row(r: int, i: int) -> str:
        """Row i after r rounds."""
        label = f"r{r}_{i}"
        if label not in lines:
            if r == 0:
                text = f"vload{w}(0, p + {i} * step)"
            else:
                text = shuffle(h, raw, w, row(r - 1, i // 2), row(r - 1, i // 2 + w // 2), interleaved(w, i))
            lines[label] = f"  {v} {label} = {text};"
        return label

    last = row(w.bit_length() - 1, k)
    body = "\n".join(lines.values())
    h.add(name, f"{v} {name}({pointer(d, space, True)} p, long step) {{\n{body}\n  return {last};\n}}")
    return _from(h, d, w, f"{name}({moved(base, offset)}, {step})")


def backwards(h: Helpers, d: DType, w: int, base: str, offset: str) -> str:
    """`w` > 1 neighbours in falling order; `offset` is that of the last lane."""
    return f"{load(h, d, w, base, offset)}.s{LANES[:w][::-1]}"


def stream(h: Helpers, d: DType, w: int, base: str, offset: str, value: str) -> str:
    """A store past the caches, where the compiler knows how; the address must be aligned to the vector."""
    t = wide(MEMORY[d.name], w)
    name = f"stream_{t}"
    h.add(
        name,
        f"{HAS_BUILTIN}void {name}(global {MEMORY[d.name]}* p, {t} v) {{\n#if __has_builtin(__builtin_nontemporal_store)\n"
        f"  __builtin_nontemporal_store(v, (global {t}*)p);\n#else\n  {store(h, d, w, 'p', '0', 'v')}\n#endif\n}}",
    )
    return f"{name}({moved(base, offset)}, {bare(value)});"
