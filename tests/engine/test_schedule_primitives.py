"""Each schedule primitive: what it makes of a nest, that the meaning stays, and what it says when it does not apply."""

from __future__ import annotations

import pytest

from tests.engine import forms
from tests.engine.forms import assert_same
from tinyengine import spec
from tinyengine.dtypes import float32
from tinyengine.index import bounds
from tinyengine.loopnest import Alloc, Buf, Kernel, Loop, Prefetch, Store, load, var, walk
from tinyengine.loopnest import apply as expr
from tinyengine.stages import emit
from tinyengine.stages.primitives import reorder
from tinyengine.stages.primitives.apply import TABLE, ScheduleError, apply, parse
from tinyengine.stages.specs.nests import SCHEDULED

LEGAL: list[tuple[str, str]] = [
    ("elementwise", "tile(j, 16)"),
    ("elementwise", "tile(i, 3); tile(j, 7); reorder(ji, jo)"),
    ("elementwise", "reorder(j, i)"),
    ("elementwise", "merge(i, j); vectorize(ij, 16); parallel(ij)"),
    ("elementwise", "merge(i, j); tile(ij, 64); parallel(ijo); vectorize(iji, 8)"),
    ("elementwise", "vectorize(j, 4); unroll(j, 2)"),
    ("elementwise", "streaming(out)"),
    ("elementwise", "prefetch(x, i, at=j)"),
    ("elementwise", "prefetch(out, i, at=j)"),
    ("matmul", "prefetch(out, i, at=k); prefetch(x, i, at=j); prefetch(w, j, at=k)"),
    ("conv", "prefetch(x, b, at=r); prefetch(out, y, at=r)"),
    ("bias", "vectorize(j, 16); parallel(i)"),
    ("bias", "unroll(i)"),
    ("matmul", "vectorize(j, 8)"),
    ("matmul", "vectorize(k, 8)"),
    ("matmul", "vectorize(k, 4); accumulate(k, 3)"),
    ("matmul", "accumulate(k, 4)"),
    ("matmul", "accumulate(k, 4, memory=local); parallel(i); parallel(j); parallel(ka); parallel(kat)"),
    ("matmul", "pack(x, at=i); parallel(i); parallel(x_1); parallel(j)"),
    ("softmax", "vectorize(c, 4); accumulate(c, 4, memory=local); parallel(i); parallel(ca); parallel(cat); parallel(j)"),
    (
        "matmul",
        "reorder(j, i); tile(j, 8); reorder(i, ji); tile(i, 4); pack(w, at=jo); reorder(k, ii, ji); vectorize(ji, 4);"
        " parallel(jo)",
    ),
    ("matmul", "reorder(k, i, j)"),
    ("matmul", "tile(k, 5); tile(j, 4); reorder(ko, ji); unroll(ki)"),
    ("matmul", "pack(x, at=i); parallel(i)"),
    (
        "matmul transposed",
        "tile(j, 16); reorder(jo, i, ji); pack(w, at=jo, axes=(1, 0)); reorder(k, ji); vectorize(ji, 16); vectorize(w_0, 16)",
    ),
    ("matmul", "split(j, 2); vectorize(j, 2); parallel(i)"),
    ("conv", "split(y, 1); split(z, 2); vectorize(z, 4)"),
    ("outer sum", "vectorize(j, 32)"),
    ("turned", "tile(i, 8); tile(j, 8); reorder(io, jo, ii, ji); vectorize(ji, 8); unroll(ii)"),
    ("pool", "vectorize(j, 8); unroll(r)"),
    ("matmul transposed", "tile(i, 2); tile(j, 3); reorder(jo, ii, ji); reorder(k, ii, ji); vectorize(k, 8)"),
    ("matmul", "tile(i, 4); reorder(ii, j); unpack(out, at=io, axes=(1, 0))"),
    ("matmul", "tile(i, 2); tile(j, 8); reorder(io, jo, ii, ji); reorder(k, ii, ji); vectorize(ji, 4); spill(acc, at=ii)"),
    ("matmul", "tile(j, 8); reorder(k, ji); spill(acc, at=ji); parallel(i)"),
    ("two sums", "tile(j, 8); reorder(k, ji); spill(acc, at=ji); spill(other, at=ji)"),
    ("bf16 matmul", "dot(k)"),
    ("matmul", "phases(j, 3); phases(i, 2); reorder(jo, io, ip, jp)"),
    ("elementwise", "phases(i, 7); vectorize(io, 4)"),
    (
        "bf16 matmul",
        "reorder(j, i); tile(j, 8); reorder(i, ji); tile(i, 4); pack(w, at=jo); dot(k); reorder(k, ii, ji); vectorize(ji, 4);"
        " vectorize(w_1, 8); parallel(jo)",
    ),
    ("bf16 matmul transposed", "tile(j, 16); reorder(jo, i, ji); pack(w, at=jo, axes=(1, 0)); dot(k); vectorize(ji, 16)"),
    ("softmax", "vectorize(r, 8); accumulate(r, 2); vectorize(c, 8); vectorize(j, 16); parallel(i)"),
    ("softmax", "vectorize(i, 4)"),
    ("softmax", "prefetch(x, i, at=c); vectorize(c, 8)"),
    ("attention", "fission(i, c)"),
    ("attention", "tile(i, 4); fission(ii, c, j); pack(k, at=io, axes=(1, 0)); reorder(c, ii); vectorize(c, 8); vectorize(e, 4)"),
    (
        "attention",
        "tile(i, 4); fission(ii, c, j); tile(c, 8); reorder(co, ii, ci); reorder(d, ii, ci); reorder(t, ii_2, j); "
        "vectorize(j, 4); unroll(r); parallel(io)",
    ),
    ("attention", "tile(i, 5); fission(ii, r)"),
    ("softmax", "fission(i, c)"),
    ("banded", "clip(k)"),
    ("banded", "clip(k); tile(i, 4); vectorize(j, 8)"),
    ("banded", "tile(i, 4); reorder(j, ii); vectorize(j, 8); clip(k)"),
    ("banded", "vectorize(k, 4); clip(k)"),
    ("banded", "accumulate(k, 4); clip(ko)"),
    ("matmul", "pack(x, at=i, of=k); pack(w, at=i, of=j)"),
    ("outer sum", "vectorize(j, 8)"),
    ("outer sum", "tile(j, 8); reorder(r, ji); vectorize(ji, 4); parallel(jo)"),
    ("outer sum", "vectorize(r, 4)"),
    ("full sum", "vectorize(s, 8)"),
    ("full sum", "merge(r, s); vectorize(rs, 16); accumulate(rs, 2)"),
    ("full sum", "reorder(s, r)"),
    ("conv", "vectorize(z, 4)"),
    ("conv", "pack(x, at=b); vectorize(z, 8); parallel(b)"),
    ("conv", "unroll(t); unroll(s); vectorize(r, 2)"),
    (
        "conv",
        "reorder(b, y, c, z); tile(y, 3); reorder(c, z, yi); tile(c, 4); reorder(z, ci, yi); tile(z, 8); pack(x, at=b); "
        "reorder(r, s, t, ci, yi, zi); vectorize(zi, 4); unroll(t); parallel(b)",
    ),
    ("conv", "pack(w, at=b, axes=(1, 2, 3, 0)); vectorize(c, 4); parallel(b)"),
    ("conv", "pack(x, at=b, by=(r, s, t, y, z)); merge(y, z); merge(r, s); vectorize(yz, 8); parallel(b)"),
    ("conv", "tile(y, 2); reorder(b, yo, c, yi, z); pack(x, at=yo, by=(t, yi, z, r, s)); vectorize(x_4, 2); parallel(b)"),
    ("weights", "tile(r, 2); reorder(ro, c, ri, s, t); pack(x, at=ro, by=(b, y, z, ri, s, t)); merge(s, t); vectorize(st, 4)"),
    ("matmul", "pack(x, at=i, by=(k,)); pack(w, at=i, by=(k, j), of=j)"),
    ("weights", "partial(acc, at=b); reorder(b, c, r, s, t, memory=local); reorder(y, z, s, t); vectorize(t, 2)"),
    (
        "weights",
        "reorder(r, s, t, c); reorder(b, t, c, memory=local); partial(acc, at=t); pack(g, at=b, axes=(0, 2, 3, 1)); "
        "reorder(y, z, c); "
        "vectorize(c, 4); vectorize(acc_0_1, 4)",
    ),
    ("matmul", "tile(k, 7); partial(acc, at=ko)"),
    ("update", "vectorize(i, 16); parallel(i)"),
    ("gather", "vectorize(j, 8); parallel(i)"),
    ("gather", "vectorize(i, 4)"),
    ("scatter", "vectorize(i, 4)"),
    ("scatter", "vectorize(i, 4); parallel(i)"),  # the sums stay behind
    ("running totals", "scan(j, 4)"),
    ("running totals", "tile(j, 8); scan(ji, 8); parallel(i)"),
    ("running totals", "split(j, 5); scan(j, 4)"),
    ("running totals", "vectorize(i, 4); parallel(i)"),
]


@pytest.mark.parametrize(("form", "text"), LEGAL)
def test_a_legal_schedule_keeps_the_meaning_and_the_spec(form: str, text: str) -> None:
    before = forms.FORMS[form]
    after = apply(before, text)
    spec.check("schedule", SCHEDULED, after)
    assert_same(before, after)
    assert after.schedule == tuple(map(str, parse(text)))
    assert apply(before, after.schedule) == after  # replayed from its own text


def test_every_primitive_is_tried() -> None:
    tried = {p.name for _, text in LEGAL for p in parse(text)}
    assert tried == set(TABLE) - {"fuse"}  # another word for merge


ILLEGAL: list[tuple[str, str, str]] = [
    ("matmul", "tile(q, 4)", "no loop is called 'q'; the loops of matmul are i, j, k"),
    ("matmul", "tile(i, 0)", "the size must be at least 1"),
    ("matmul", "split(i, 0)", "i never has the value 0 after its first iteration"),
    ("matmul", "tile(i, 4); tile(i, 2)", "no loop is called 'i'; the loops of matmul are io, ii, j, k"),
    ("matmul", "vectorize(j, 3)", "the number of lanes must be 2, 4, 8"),
    ("matmul", "vectorize(j, 4); vectorize(k, 4)", "k already contains vectors"),
    ("matmul", "parallel(j)", "j stands inside another loop"),
    ("matmul", "parallel(i); parallel(i)", "i is parallel already"),
    ("matmul", "parallel(i); parallel(j); parallel(j)", "j is parallel already"),
    ("matmul", "parallel(i); parallel(k)", "iterations of k may touch the same element of acc"),
    ("matmul", "parallel(i); unroll(j); parallel(j)", "j is unrolled"),
    ("matmul", "pack(x, at=i); pack(w, at=j); parallel(i); parallel(j); parallel(w_0)", "w_0 stands inside j, where each"),
    ("softmax", "accumulate(r, 4, memory=disk)", "memory=disk is neither register nor local"),
    ("matmul", "parallel(i); reorder(j, i)", "reorder before parallel"),
    ("matmul", "reorder(i, i)", "name at least two different loops"),
    ("matmul", "reorder(k, i)", "j stands between i and the loops inside it; name it too"),
    ("matmul", "pack(out, at=j)", "out is written in j"),
    ("matmul", "pack(nothing, at=j)", "no global buffer is called 'nothing'"),
    ("matmul", "pack(w, at=j, axes=(0, 0))", "is not a permutation"),
    ("matmul", "vectorize(j, 4); pack(w, at=i)", "pack before vectorize"),
    ("matmul", "pack(out, at=j, by=(k,))", "out is written in j"),
    ("conv", "pack(x, at=b, by=(r, s, t, y))", "loops around the reads in b, and those they need: r, s, t, y, z"),
    ("conv", "pack(x, at=b, by=(r, s, t, y, z, z))", "by= must name, once,"),
    ("conv", "pack(x, at=c, by=(b, r, s, t, y, z))", "by= must name, once,"),
    ("attention", "pack(q, at=i, by=(c, d, j))", "loops around the reads in i, and those they need: d"),
    ("conv", "pack(x, at=b, axes=(0, 1, 2, 3), by=(r, s, t, y, z))", "axes= has no meaning beside it"),
    ("conv", "split(y, 2); pack(x, at=b, by=(r, s, t, y, z))", "x is read in 2 ways in b"),
    ("conv", "vectorize(z, 4); pack(x, at=b, by=(r, s, t, y, z))", "pack before vectorize"),
    ("gather", "pack(table, at=i, by=(j,))", "by= must name, once,"),
    ("matmul", "merge(i, j)", "is not contiguous over all of i, j"),
    ("matmul", "unpack(x, at=i)", "no output is called 'x'"),
    ("matmul", "spill(acc, at=j)", "no loop j reads the finished acc"),
    ("matmul", "spill(nothing, at=j)", "keeps no 'nothing' in registers"),
    ("matmul", "tile(i, 2); reorder(k, ii, j); spill(acc, at=k)", "no loop k reads the finished acc"),
    ("matmul", "partial(nothing, at=k)", "matmul allocates no 'nothing'"),
    ("matmul", "partial(acc, at=j)", "nothing inside j accumulates into acc"),
    ("matmul", "reorder(k, i, j, memory=disk)", "memory=disk is neither register nor local"),
    ("matmul", "streaming(x)", "the kernel reads x too"),
    ("matmul", "accumulate(j, 2)", "accumulates into nothing outside it"),
    ("bias", "merge(i, j)", "is not contiguous over all of i, j"),
    ("matmul", "tile(k, 2); dot(ki)", "the terms are no products of two bfloat16 values"),
    ("bf16 matmul", "dot(j)", "j is no whole reduction"),
    ("bf16 matmul", "tile(k, 3); dot(ki)", "3 terms do not come in pairs"),
    ("bf16 matmul", "vectorize(k, 2); dot(k)", "k is no whole reduction"),
    ("matmul", "fission(i, k)", "k does not stand directly in i"),
    ("attention", "parallel(i); fission(i, c)", "i is parallel; take it apart before parallel"),
    ("scatter", "fission(s, i)", "i does not stand directly in s"),
    ("matmul", "pack(w, at=i, of=i)", "w is not read inside i"),
    ("softmax", "merge(i, j)", "the body of i is not just the loop j"),
    ("softmax", "reorder(r, c)", "do not stand inside each other"),
    ("full sum", "parallel(r)", "iterations of r may touch the same element of acc"),
    ("scatter", "vectorize(s, 4)", "may add to the same element of out, which is not private"),
    ("scatter", "parallel(s)", "iterations of s may touch the same element of out"),
    ("update", "streaming(p)", "the kernel reads p too"),
    ("running totals", "vectorize(j, 4)", "iterations of j depend on each other through total"),
    ("running totals", "scan(j, 3)", "the number of lanes must be 2, 4, 8"),
    ("running totals", "scan(i, 4)", "must have step 1 and no loops or memory inside"),
    ("running totals", "scan(j, 4); scan(j, 4)", "j already contains vectors"),
    ("elementwise", "scan(j, 4)", "j carries no total"),
    ("elementwise", "prefetch(nothing, i, at=j)", "nothing is not touched in i"),
    ("elementwise", "prefetch(x, j, at=i)", "i does not stand inside j"),
]


@pytest.mark.parametrize(("form", "text", "says"), ILLEGAL)
def test_an_illegal_schedule_says_why(form: str, text: str, says: str) -> None:
    with pytest.raises(ScheduleError) as e:
        apply(forms.FORMS[form], text)
    assert says in str(e.value)


@pytest.mark.parametrize("text", ["prefetch(x, i, at=ji); vectorize(ji, 32)", "vectorize(ji, 32); prefetch(x, i, at=ji)"])
def test_every_line_of_a_wide_vector_is_fetched_ahead(text: str) -> None:
    """One hint fetches 64 bytes: 32 floats need two."""
    out = apply(forms.elementwise(8, 128), f"tile(j, 64); {text}")
    assert [bounds(s.index[-1])[0] for s in walk(out.body) if isinstance(s, Prefetch)] == [0, 16]


def test_dependent_iterations_are_neither_vectors_nor_threads() -> None:
    k = forms.recurrence(20)
    for text in ("vectorize(i, 4)", "parallel(i)", "tile(i, 4); reorder(ii, io)"):
        with pytest.raises(ScheduleError, match=r"depend on each other|may touch the same element of out"):
            apply(k, text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tile i 32", "is not a schedule primitive"),
        ("til(i, 3)", "unknown primitive 'til'; known: tile"),
        ("tile(i)", "takes 2 arguments, got 1"),
        ("tile(i, j)", "expected a whole number, got 'j'"),
        ("tile(3, 3)", "expected the name of a loop or buffer"),
        ("pack(w)", "needs at=LOOP"),
        ("pack(w, at=j, order=2)", "has no option 'order'"),
        ("pack(w, at=j, axes=1)", "expected a tuple of axes"),
        ("pack(w, at=j, by=k)", "expected a tuple of loops"),
        ("tile(i, 4, 5)", "got 3"),
    ],
)
def test_text_that_is_no_schedule(text: str, says: str) -> None:
    with pytest.raises(ScheduleError) as e:
        parse(text)
    assert says in str(e.value)


def test_comments_and_lines() -> None:
    listed = parse("tile(i, 4)  # rows\n\n  vectorize(j,8) ; pack(w, at=jo, axes=(1,0))")
    assert list(map(str, listed)) == ["tile(i, 4)", "vectorize(j, 8)", "pack(w, at=jo, axes=(1, 0))"]
    assert parse([listed[0], "unroll(k)"]) == [listed[0], *parse("unroll(k)")]


def _loops(k: Kernel, name: str) -> list[Loop]:
    return [s for s in walk(k.body) if isinstance(s, Loop) and s.name == name]


def test_a_tile_has_a_static_tail_of_the_same_names() -> None:
    k = apply(forms.elementwise(2, 40), "tile(j, 16)")
    assert [(s.start, s.stop, s.step) for s in _loops(k, "jo")] == [(0, 32, 16), (32, 40, 16)]
    assert [s.trips for s in _loops(k, "ji")] == [16, 8]


def test_a_tail_goes_to_the_threads_beside_its_main_part() -> None:
    k = apply(forms.elementwise(2, 40), "reorder(j, i); tile(j, 16); parallel(jo)")
    assert [(s.start, s.stop, s.kind) for s in k.body if isinstance(s, Loop)] == [(0, 32, "parallel"), (32, 40, "parallel")]
    assert k.parallel is k.body[0]
    (part,) = emit.split(k)
    assert part.loops == k.body and part.trips == 3, "one launch for both"


def test_the_register_tile_turns_the_accumulator_into_an_array() -> None:
    k = apply(forms.matmul(8, 32, 5), "tile(i, 4); tile(j, 16); reorder(jo, ii, ji); reorder(k, ii, ji); vectorize(ji, 16)")
    acc = [s.buf for s in walk(k.body) if isinstance(s, Alloc)]
    assert [(b.name, b.shape, b.space) for b in acc] == [("acc", (4, 16), "register")]
    (reduction,) = _loops(k, "k")
    assert reduction.reduce and [s.kind for s in walk(reduction.body) if isinstance(s, Loop)] == ["unroll", "unroll"]


def test_a_large_accumulator_is_local_memory() -> None:
    k = apply(forms.outer_sum(4, 2000), "reorder(r, j)")
    assert [s.buf.space for s in walk(k.body) if isinstance(s, Alloc)] == ["local"]


def test_packing_a_padded_image_removes_the_masks() -> None:
    before, after = forms.conv(1, 2, 3, 8), apply(forms.conv(1, 2, 3, 8), "pack(x, at=c)")
    masked = [line for line in before.text().split("\n") if " if " in line]
    left = [line.strip() for line in after.text().split("\n") if " if " in line]
    assert len(masked) == 1 and len(left) == 1 and left[0].startswith("x_pack[")
    assert [s.buf.shape for s in walk(after.body) if isinstance(s, Alloc) and s.buf.name == "x_pack"] == [(1, 2, 10, 10)]


def test_tails_of_vectors_are_narrow_where_a_power_of_two_is_left() -> None:
    k = apply(forms.elementwise(1, 40), "vectorize(j, 16)")
    assert " if " not in k.text() and "x[i, 32 : 32 + 8]" in k.text()
    k = apply(forms.elementwise(1, 37), "vectorize(j, 16)")
    assert "if (32 : 32 + 8) < 37" in k.text()


def test_what_does_not_change_is_computed_before_the_loop() -> None:
    k = apply(forms.elementwise(3, 32, bias=True), "reorder(j, i)")
    lines = [line.strip() for line in k.text().split("\n")]
    assert lines[1:4] == ["for j in 0..32:", "v2 = y[j]", "for i in 0..3:"]


def test_split_settles_what_is_tested() -> None:
    """A concatenation: each part reads one operand, without a mask."""
    k = apply(forms.FORMS["cat"], "split(j, 5)")
    first, second = [s for s in walk(k.body) if isinstance(s, Loop) and s.name == "j"]
    assert (first.start, first.stop, second.start, second.stop) == (0, 5, 5, 9)
    assert " if " not in k.text() and "if" in forms.cat(3, 5, 4).text()


def test_digits_of_a_flat_index_keep_iterations_apart() -> None:
    """y[8 i + 2 j + k], j in 0..4, k in 0..2: i, j and k are digits; with j in 0..5 they are not."""
    from tests.engine.forms import F, add, index, ir, loop, v
    from tinyengine.dependence import carried
    from tinyengine.loopnest import Buf, Store, const

    for count in (4, 5):
        i, j, k = v("i", 6), v("j", count), v("k", 2)
        at = add(ir.apply("mul", (i, index(8))), ir.apply("mul", (j, index(2))), k)
        nest = loop(i, loop(j, loop(k, Store(Buf("y", F, (64,)), (at,), const(0, F)))))
        assert bool(carried(nest)) == (count == 5)
        middle = nest.body[0]
        assert isinstance(middle, Loop) and not carried(middle)


def test_merge_looks_at_each_view_of_an_access_once(monkeypatch):
    """And not at accesses without divisions: those hold none however their axes are joined."""
    asked = []
    real = reorder._flat
    monkeypatch.setattr(reorder, "_flat", lambda buf, at, axes: asked.append((buf.name, at, tuple(axes))) or real(buf, at, axes))
    i, j, k = var("i", 0, 3), var("j", 0, 4), var("k", 0, 5)
    x, y, out = Buf("x", float32, (4, 5, 6)), Buf("y", float32, (6,)), Buf("out", float32, (4, 5, 6))
    value = expr("add", (load(x, (i, j, k)), load(y, (k,))))
    body = Loop(i, 0, 4, 1, (Loop(j, 0, 5, 1, (Loop(k, 0, 6, 1, (Store(out, (i, j, k), value),)),)),))
    merged = apply(Kernel("sum", (x, y, out), (body,), ("out",)), ("merge(i, j)",))
    assert [p.shape for p in merged.params] == [(20, 6), (6,), (20, 6)]
    before = [a for a in asked if a[1][0].op != "var"]
    assert not any(name == "y" for name, _, _ in asked)
    assert len(before) - 2 * 2 == len(set(before))  # the two that join are made once more
