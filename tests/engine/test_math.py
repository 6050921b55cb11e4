"""The engine's own exp, log, sin, tanh and erf: errors in units in the last place, special values, and the random generator.

References: NumPy's 80-bit long double (64 mantissa bits, so 1/2048 ulp of float64), math.erf in float64 for float32, and a series
in exact integers for erf in float64. The bounds asserted here are those that the docstrings of `stages.arithmetic.math` state.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.engine import nests
from tinyengine import dtypes
from tinyengine.backends.llvm import LLVMBackend
from tinyengine.backends.reference import ReferenceBackend
from tinyengine.dtypes import float16, float32, float64, uint32
from tinyengine.loopnest import Kernel, Let, Loop, Store, apply, const, load_index, name, subexprs, walk
from tinyengine.ops import OPS, threefry2x32
from tinyengine.stages.arithmetic import expand
from tinyengine.stages.arithmetic import math as expand_math

N = 1 << 18
rng = np.random.default_rng(3)
wide = np.finfo(np.longdouble).nmant > 60
pytestmark = pytest.mark.skipif(not wide, reason="long double is no wider than double here: no reference for float64")


def compute(op, d, x):
    return nests.run(nests.elementwise(op, (d,), d, len(x)), x0=x)["y"]


def ulps(got, want, d):
    """|got - want| in units in the last place of `want` as a number of dtype d (denormals have that of the smallest normal)."""
    info = np.finfo(d.numpy)
    with np.errstate(divide="ignore"):
        exponent = np.floor(np.log2(np.maximum(np.abs(want), info.tiny)))
    return np.abs(got.astype(np.longdouble) - want) / np.exp2(exponent - info.nmant)


def erf_series(x: float) -> np.longdouble:
    """erf by its Taylor series in integers with 400 binary digits."""
    one = 1 << 400
    a = int(math.ldexp(x, 60)) * one >> 60 if abs(x) >= 1e-3 else int(x * 2**200) * one >> 200
    square, term, total, k = a * a >> 400, a, a, 0
    while term:
        k += 1
        term = -(term * square >> 400) // k if term > 0 else (-term * square >> 400) // k
        total += term // (2 * k + 1) if term > 0 else -(-term // (2 * k + 1))
    pi = 3141592653589793238462643383279502884197169399375105820974944592307816406286208998628034825342117067982148
    scale = math.isqrt((pi * one // 10**105) << 400)
    value = 2 * total * one // scale
    return np.longdouble(value >> 320) / np.longdouble(2) ** 80


def erf_reference(x):
    return np.array([erf_series(float(v)) for v in x])


def erf_double(x):
    return np.array([math.erf(v) for v in x.astype(float)], np.longdouble)


LIMIT = {float32: (-87.3, 88.72), float64: (-708.3, 709.78)}  # where exp is a normal number
LOWEST = {float32: -103.9, float64: -745.1}
HARDEST = {"exp": (5.1997986, -26.68565, -87.69625), "exp2": (0.5000243, -0.499652, -126.49958)}  # of all numbers of float32


@pytest.mark.parametrize("d", [float32, float64], ids=str)
@pytest.mark.parametrize(
    "op,ranges,bound32,bound64",
    [
        ("exp", ["normal", "denormal", (-1, 1), "hardest"], 0.91, 0.95),
        ("exp2", ["normal", "denormal", (-1, 1), "hardest"], 0.9, 0.91),
        ("log", ["powers", (0.5, 2), (0.99, 1.01), "tiny"], 0.84, 0.84),
        ("sin", [(-1, 1), (-10, 10), (-1e3, 1e3), (-1e6, 1e6)], 1.62, 1.62),
        ("sin", ["quarters"], 1.92, 1.0),
        ("tanh", [(-9.5, 9.5), (-0.7, 0.7), "powers"], 2.53, 2.7),
    ],
    ids=lambda p: p if isinstance(p, str) else "",
)
def test_error_in_ulp(op, ranges, bound32, bound64, d):
    low, high, lowest = (v * (np.log2(np.e) if op == "exp2" else 1) for v in (*LIMIT[d], LOWEST[d]))
    for r in ranges:
        if r == "normal":
            x = rng.uniform(low, high, N)
        elif r == "denormal":
            x = rng.uniform(lowest, low, N)
        elif r == "hardest":
            x = np.array(HARDEST[op])
        elif r == "powers":
            x = np.exp(rng.uniform(low, min(high, 80) if op == "log" else 3, N))
        elif r == "tiny":
            x = np.arange(1, N + 1) * float(np.finfo(d.numpy).smallest_subnormal)
        elif r == "quarters":
            x = np.arange(1, N + 1) * (np.pi / 2)
        else:
            x = rng.uniform(*r, N)
        x = x.astype(d.numpy)
        want = getattr(np, op)(x.astype(np.longdouble))
        worst = ulps(compute(op, d, x), want, d)
        at = worst.argmax()
        assert worst[at] <= (bound32 if d is float32 else bound64), f"{op}({x[at]!r}) is {float(worst[at]):.3f} ulp off in {r}"


@pytest.mark.parametrize(
    "d,n,reference,bound",
    [(float32, 1 << 16, erf_double, 1.53), (float64, 1500, erf_reference, 1.08)],
    ids=["float32", "float64"],
)
def test_error_of_erf(d, n, reference, bound):
    for x in (rng.uniform(-6, 6, n), rng.uniform(-1.2, 1.2, n), rng.uniform(0.9, 0.95, n), rng.uniform(0.05, 0.15, n)):
        x = x.astype(d.numpy)
        assert ulps(compute("erf", d, x), reference(x), d).max() <= bound


def test_the_reference_of_erf_agrees_with_libm():
    x = np.linspace(-5, 5, 101)
    assert ulps(np.array([math.erf(v) for v in x]), erf_reference(x), float64).max() <= 1.0


@pytest.mark.parametrize("d", [float32, float64], ids=str)
def test_special_values(d):
    info = np.finfo(d.numpy)
    inf, nan, small = np.inf, np.nan, float(info.smallest_subnormal)
    cases = {
        "exp": {0.0: 1, inf: inf, -inf: 0, nan: nan, float(info.max): inf, -float(info.max): 0, small: 1},
        "exp2": {0.0: 1, inf: inf, -inf: 0, nan: nan, 2.0 * info.maxexp: inf, -149.0: 2.0**-149, 1e30: inf, -1e30: 0, 12.0: 4096},
        "log": {0.0: -inf, 1.0: 0, inf: inf, -inf: nan, nan: nan, -1.0: nan, -small: nan},
        "sin": {0.0: 0.0, inf: nan, -inf: nan, nan: nan, small: small, -small: -small},
        "tanh": {0.0: 0.0, inf: 1, -inf: -1, nan: nan, small: small, -small: -small, 1e30: 1, -1e30: -1},
        "erf": {0.0: 0.0, inf: 1, -inf: -1, nan: nan, 1e30: 1, -1e30: -1, small: small, -small: -small},
    }
    for op, table in cases.items():
        # a list, because 0.0 and -0.0 are one key
        pairs = [*table.items(), (-0.0, math.copysign(table[0.0], -1.0) if op in ("sin", "tanh", "erf") else table[0.0])]
        x, want = np.array(pairs, d.numpy).T
        y = compute(op, d, x.copy())
        np.testing.assert_array_equal(y, want, err_msg=op)
        if op in ("sin", "tanh", "erf"):
            assert np.array_equal(np.signbit(y)[want == 0], np.signbit(x)[want == 0]), op


def test_monotone_and_bounded():
    x = np.linspace(-12, 12, N).astype(np.float32)
    for op in ("tanh", "erf"):
        y = compute(op, float32, x)
        assert np.abs(y).max() == 1 and y[0] == -1 and y[-1] == 1
    assert np.abs(compute("sin", float32, np.float32(10.0) ** np.arange(38))).max() <= 1


def test_gelu_keeps_its_far_negative_tail_small():
    """x/2 (1 + erf(x / sqrt 2)) is absolutely, not relatively, accurate there."""
    x = np.linspace(-8, -3, 5000).astype(np.float32)
    y = x / 2 * (1 + compute("erf", float32, (x / np.sqrt(2)).astype(np.float32)))
    want = [v / 2 * math.erfc(-v / math.sqrt(2)) for v in x.tolist()]
    assert np.abs(y - want).max() < 3e-7


@pytest.mark.parametrize("op", ["exp", "exp2", "log", "sin", "tanh", "erf"])
def test_half_precision_is_rounded_once_from_float32(op):
    x = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    y = compute(op, float16, x)
    with np.errstate(all="ignore"):
        want = compute(op, float32, x.astype(np.float32)).astype(np.float16)
    np.testing.assert_array_equal(y, want)


@pytest.mark.parametrize("op", ["exp", "exp2", "log", "sin", "tanh", "erf"])
@pytest.mark.parametrize("d", [float32, float64], ids=str)
def test_a_machine_without_scalef_gets_the_same_bits(op, d):
    """2**n by exponent bits, in two steps, against the one instruction; and scalar code against vector code."""
    from tinyengine.backends import llvm_code, llvm_jit

    largest = float(np.finfo(d.numpy).max)
    special = [0.0, np.inf, np.nan, largest, 1e5, LIMIT[d][1] + 0.01, -LIMIT[d][0], -LOWEST[d], -LOWEST[d] + 1]
    x = [rng.standard_normal(4096) * 50, rng.uniform(LOWEST[d], 0, 4096), special, np.negative(special)]
    x = np.concatenate(x).astype(d.numpy)
    fast = compute(op, d, x)
    host = llvm_jit.host()
    plain = llvm_jit.Target(host.triple, "x86-64-v3" if host.triple.startswith("x86_64") else host.cpu, "")
    assert not plain.scales
    kernel = expand.expand_kernel(nests.elementwise(op, (d,), d, len(x)))
    np.testing.assert_array_equal(nests.run(kernel, x0=x)["y"], fast)
    for lanes in (1, 2, 4, 5, 8, 64):
        np.testing.assert_array_equal(nests.run(nests.elementwise(op, (d,), d, len(x), lanes), x0=x)["y"], fast)
    assert llvm_code.link([nests_code(kernel)], plain)  # it compiles for such a machine too


@pytest.mark.parametrize("scales", [False, True], ids=["portable", "scalef"])
def test_exponentials_take_so_many_instructions(scales):
    """For a vector of float32; compare and select of the mask and of the upper bound are two each, and may become one."""
    for op, most in (("exp", 15 if scales else 20), ("exp2", 13 if scales else 19)):
        e = expand.expander(scales)(apply(op, (name("x", float32, 16),)))
        assert sum(bool(x.args) and x.op != "bitcast" for x in subexprs(e)) == most


@pytest.mark.parametrize("scales", [False, True], ids=["portable", "scalef"])
def test_a_power_and_a_constant_take_one_fma_where_nothing_below_the_normal_range_counts(scales):
    for op, least in (("exp", 16), ("exp2", 15)):
        power = apply(op, (name("x", float32, 16),))
        lower = expand.expander(scales)

        def count(e, lower=lower):
            return sum(bool(x.args) and x.op != "bitcast" for x in subexprs(lower(e)))

        for k in (1.0, -3.0):
            both = (const(k, float32, 16), power)
            assert count(apply("add", both)) == count(apply("add", both[::-1])) == (count(power) + 1 if scales else least)
        for k in (0.0, 1e-30, math.inf, math.nan):
            assert count(apply("add", (power, const(k, float32, 16)))) == count(power) + 1
        assert count(apply("add", (power, power))) == count(power) + 1


@pytest.mark.parametrize("d", [float32, float64], ids=str)
@pytest.mark.parametrize("op", ["exp", "exp2"])
@pytest.mark.parametrize("k", [1.0, -1.0, 2.0**-64, 1e30])
def test_a_power_and_a_constant_have_the_bits_of_two_steps(op, k, d):
    """Also where they stand in two statements, as kernels have them."""
    largest, low = float(np.finfo(d.numpy).max), LOWEST[d]
    special = [0.0, np.inf, np.nan, largest, LIMIT[d][1] + 0.01, 128.0, 127.99, 126.0, 1024.0, -low]
    x = np.concatenate([special, np.negative(special), rng.uniform(low, -low, 4096), rng.standard_normal(4096)]).astype(d.numpy)
    with np.errstate(all="ignore"):
        want = compute(op, d, x) + d.numpy.type(k)
    for lanes in (1, 4, 8, 16, 64):
        np.testing.assert_array_equal(nests.run(power_and_constant(op, k, d, len(x), lanes), x0=x)["y"], want)


def power_and_constant(op, k, d, n, lanes, again=False):
    """y = op(x0) + k by two statements; `again`: and the power once more."""
    kernel = nests.elementwise(op, (d,), d, n, lanes)

    def statements(body):
        for s in body:
            if isinstance(s, Loop):
                yield replace(s, body=tuple(statements(s.body)))
            elif isinstance(s, Store):
                wide = s.value.lanes
                yield Let("a", s.value.args[0])
                yield Let("p", apply(op, (name("a", d, wide),)))
                total = apply("add", (name("p", d, wide), const(k, d, wide)))
                yield Let("r", apply("mul", (total, name("p", d, wide))) if again else total)
                yield replace(s, value=name("r", d, wide))
            else:
                yield s

    return replace(kernel, body=tuple(statements(kernel.body)))


def test_a_power_that_something_else_uses_is_computed_once():
    from tinyengine.backends import llvm_jit, llvm_module

    target = llvm_jit.Target("x86_64-unknown-linux-gnu", "x86-64-v3", "")
    counts = []
    for again in (False, True):
        kernel = power_and_constant("exp2", 1.0, float32, 64, 8, again)
        text = llvm_jit.assembly(llvm_module.module([nests_code(kernel)], target), target)
        counts.append((text.count("vfmadd"), text.count("vpslld")))
    assert counts == [(7, 1), (6, 2)]


@pytest.mark.parametrize("cpu,features,scaled", [("x86-64-v4", "+avx512f,+avx512vl", True), ("x86-64-v3", "", False)])
def test_lanes_that_vanish_are_masked_where_exp_is_one_scalef(cpu, features, scaled):
    from tinyengine.backends import llvm_jit, llvm_module

    target = llvm_jit.Target("x86_64-unknown-linux-gnu", cpu, features)
    text = llvm_jit.assembly(llvm_module.module([nests_code(nests.elementwise("exp", (float32,), float32, 64))], target), target)
    found = [line for line in text.splitlines() if "vscalef" in line]
    assert all("{z}" in line for line in found) and len(found) == scaled


def nests_code(kernel):
    from tinyengine.stages.emit import prepare

    return prepare(kernel)


def test_threefry_is_the_published_generator():
    counter, key = rng.integers(0, 2**32, 1000, dtype=np.uint32), rng.integers(0, 2**32, 1000, dtype=np.uint32)
    for lanes in (1, 16):
        y = nests.run(nests.elementwise("threefry", (uint32, uint32), uint32, 1000, lanes), x0=counter, x1=key)["y"]
        np.testing.assert_array_equal(y, threefry2x32(counter, key))


def test_remainder_of_large_quotients_is_exact():
    a, b = (
        (rng.uniform(1, 10, 1000) * 10.0 ** rng.integers(0, 20, 1000)).astype(np.float32),
        rng.uniform(0.1, 10, 1000).astype(np.float32),
    )
    y = nests.run(nests.elementwise("mod", (float32, float32), float32, 1000), x0=a, x1=b)["y"]
    np.testing.assert_array_equal(y, np.mod(a, b))


def test_double_to_half_is_rounded_once():
    """Just above a tie of half precision, by less than float32 can hold."""
    x = (1 + 2.0**-11 + 2.0**-40) * np.array([1.0, -1.0, 2.0**5, 2.0**-14])
    y = nests.run(nests.elementwise("cast", (float64,), float16, 4), x0=x)["y"]
    np.testing.assert_array_equal(y, x.astype(np.float16))


# ---- the stage


def test_every_expansion_has_a_name_and_a_reason():
    names = [x.name for x in expand.EXPANSIONS]
    assert len(set(names)) == len(names)
    for x in expand.EXPANSIONS:
        assert x.name == x.name.lower() and " " not in x.name and 0 < len(x.reason) <= 90 and x.op in OPS


@pytest.mark.parametrize("op", ["exp", "exp2", "log", "sin", "tanh", "erf", "threefry"])
def test_nothing_is_left_that_no_machine_has(op):
    d = uint32 if op == "threefry" else float32
    kernel = expand.expand_kernel(nests.elementwise(op, (d,) * OPS[op].arity, d, 64))
    used = {e.op for s in walk(kernel.body) for e in expressions(s)}
    assert not used & {"exp", "exp2", "log", "sin", "tanh", "erf", "threefry"}
    assert used <= set(OPS) | {"load", "var", "name", "ramp", "splat"}
    assert any(isinstance(s, Let) for s in walk(kernel.body))


def expressions(s):
    from tinyengine.loopnest import Loop, stmt_exprs
    from tinyengine.stages.arithmetic.affine import order

    for root in () if isinstance(s, Loop) else stmt_exprs(s):
        yield from order(root, ())


def test_expanded_kernels_print_in_few_lines():
    """Every value that is used twice has a name: the text stays as short as the arithmetic."""
    for op, most in (("exp", 20), ("exp2", 20), ("tanh", 25), ("sin", 25), ("log", 30), ("erf", 40)):
        text = expand.expand_kernel(nests.elementwise(op, (float32,), float32, 64)).text()
        assert len(text) < 200 * most and text.count("\n") < most, (op, len(text), text.count("\n"))


@pytest.mark.parametrize("op", ["exp", "exp2", "log", "sin", "tanh", "erf"])
def test_the_interpreter_runs_the_expansion_too(op):
    """Interpreter and machine agree to an ulp or two: NumPy rounds a * b + c twice where the machine rounds once."""
    kernel = expand.expand_kernel(nests.elementwise(op, (float32,), float32, 64))
    x = np.abs(rng.standard_normal(64)).astype(np.float32)
    p = nests.program(kernel)
    results = []
    for backend in (LLVMBackend(), ReferenceBackend()):
        memory = nests.buffers(p, {"x0": x})
        backend.compile(p).run(memory)
        results.append(memory[1].array)
    np.testing.assert_allclose(results[0], results[1], rtol=5e-6, atol=1e-7)


def test_load_index_is_left_alone():
    """Index arithmetic of scalars is exact already: expansion changes values, not addresses."""
    k = nests.matmul(6, 64, 8)
    new: Kernel = expand.expand_kernel(k)
    assert new == k
    assert load_index  # the name that the backends read indices by


def test_docstrings_state_the_measured_error():
    for f in (expand_math.exp, expand_math.exp2, expand_math.log, expand_math.sin, expand_math.tanh, expand_math.erf):
        assert f.__doc__ and "ulp" in f.__doc__ and "Measured" in f.__doc__


def test_formats_match_numpy():
    for d, f in expand_math.FORMATS.items():
        info = np.finfo(d.numpy)
        assert (f.mantissa, f.bias) == (info.nmant, info.maxexp - 1)
        assert dtypes.by_name(f.bits.name).itemsize == d.itemsize
