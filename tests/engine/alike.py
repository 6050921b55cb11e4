"""The same text evaluated with our tensors and with PyTorch's: value, gradient, dtype and kind of exception must agree.

A form is `ours` or `ours :: theirs`: expressions over operands (x, y, w, i, m...), with T = Tensor and F = nn.functional on our
side, torch and its F on theirs (T is torch there). An operand says from what it is cut, so that views that are transposed,
reversed, strided or expanded are met as often as plain memory.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

from tinyengine import Tensor, backends, nn
from tinyengine.backends.graph_eval import evaluate
from tinyengine.stages import record

torch = pytest.importorskip("torch")

F = torch.nn.functional

LAYOUTS = ("plain", "transposed", "reversed", "strided", "expanded")
TOLERANCE = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 4e-6, "float64": 1e-11}


class Operand(NamedTuple):
    """How one operand is made; `odd`: NaN, infinities and zeros of both signs are among the values."""

    shape: tuple[int, ...]
    layout: str = "plain"
    dtype: str = "float32"
    low: float = -2.0
    high: float = 2.0
    odd: bool = False

    def data(self, seed: int) -> np.ndarray[Any, Any]:
        """What the operand is cut from."""
        shape = self.shape
        if shape and self.layout == "transposed":
            shape = shape[::-1]
        elif shape and self.layout == "strided":
            shape = (*shape[:-1], 2 * shape[-1])
        elif shape and self.layout == "expanded":
            shape = (1, *shape[1:]) if shape[0] else shape
        rng = np.random.default_rng(seed)
        if self.dtype == "bool":
            return rng.integers(0, 2, shape).astype(bool)
        if self.dtype.startswith(("int", "uint")):
            low = max(self.low, 0) if self.dtype[0] == "u" else self.low
            return rng.integers(int(low), int(self.high) + 1, shape).astype(self.dtype)
        a = np.asarray(rng.uniform(self.low, self.high, shape))
        if self.odd and a.size:
            special = np.array([math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -1.0])
            flat = a.reshape(-1)
            at = rng.permutation(flat.size)[: special.size]
            flat[at] = special[: at.size]
        return a.astype(self.dtype)

    def cut(self, base: Any) -> Any:
        """The operand itself, of our tensor or of PyTorch's."""
        if not self.shape or self.layout == "plain":
            return base
        if self.layout == "transposed":
            return base.permute(*range(len(self.shape))[::-1])
        if self.layout == "reversed":
            return base[::-1] if isinstance(base, Tensor) else base.flip(0)
        if self.layout == "strided":
            return base[..., ::2]
        return base.expand(self.shape)


class Outcome(NamedTuple):
    """What one side gave."""

    values: list[Any]
    error: Exception | None
    arrays: dict[int, np.ndarray[Any, Any]] = {}


def _flat(out: Any) -> list[Any]:
    if isinstance(out, (tuple, list)):
        return [v for o in out for v in _flat(o)]
    return [out]


def sides(form: str) -> tuple[str, str]:
    ours, _, theirs = form.partition(" :: ")
    return ours.strip(), (theirs or ours).strip()


def run(text: str, names: dict[str, Any]) -> Outcome:
    try:
        return Outcome(_flat(eval(text, names)), None)
    except Exception as e:
        return Outcome([], e)


def outcomes(form: str, operands: dict[str, Operand], seed: int = 0) -> tuple[Outcome, Outcome, dict[str, Any], dict[str, Any]]:
    """Both sides of a form, and their leaves by name."""
    ours, theirs = sides(form)
    arrays = {k: o.data(seed + 7 * n) for n, (k, o) in enumerate(operands.items())}
    xs = {k: Tensor(a, requires_grad=a.dtype.kind == "f") for k, a in arrays.items()}
    ts = {k: torch.tensor(a, requires_grad=a.dtype.kind == "f") for k, a in arrays.items()}
    mine = run(ours, {"T": Tensor, "F": nn.functional, "math": math, **{k: operands[k].cut(x) for k, x in xs.items()}})
    other = run(theirs, {"T": torch, "torch": torch, "F": F, "math": math, **{k: operands[k].cut(t) for k, t in ts.items()}})
    return mine, other, xs, ts


def evaluated(mine: Outcome, values: Values) -> Outcome:
    """With what the graphs of the results mean; an error that only a value shows is an error too."""
    tensors = [v for v in mine.values if isinstance(v, Tensor)]
    try:
        return mine._replace(arrays={id(v): a for v, a in zip(tensors, values(tensors), strict=True)})
    except Exception as e:  # an index out of range, say
        return Outcome([], e)


def meant(tensors: Sequence[Tensor]) -> list[np.ndarray[Any, Any]]:
    """What the graphs under the tensors mean, by NumPy; the record spec is checked on the way."""
    return evaluate(record.run([t.node for t in tensors])) if tensors else []


def compiled(tensors: Sequence[Tensor]) -> list[np.ndarray[Any, Any]]:
    """What the default backend makes of them, by way of every stage and its spec."""
    if tensors:
        tensors[0].realize(*tensors[1:])
    return [t.numpy() for t in tensors]


Values = Callable[[Sequence[Tensor]], list[np.ndarray[Any, Any]]]


def _lacks_a_kernel(e: Exception) -> bool:
    """PyTorch has no code for a dtype: no rule that anybody relies on."""
    return isinstance(e, RuntimeError) and any(s in str(e) for s in ("not implemented for", "does not support bool"))


def _name(dtype: Any) -> str:
    return str(dtype).replace("torch.", "")


def differences(
    form: str, operands: dict[str, Operand], seed: int = 0, rtol: float = 0.0, values: Values = meant
) -> Iterator[str]:
    """What disagrees, one sentence each."""
    mine, other, xs, ts = outcomes(form, operands, seed)
    mine = evaluated(mine, values)
    if other.error is not None:
        if mine.error is None and _lacks_a_kernel(other.error):
            return  # a kernel that PyTorch lacks for a dtype is no rule
        if mine.error is None:
            yield f"PyTorch raises {type(other.error).__name__}: {str(other.error)[:90]!r}; ours does not"
        elif not isinstance(mine.error, type(other.error)):
            yield (
                f"PyTorch raises {type(other.error).__name__} ({str(other.error)[:60]!r}),"
                f" ours {type(mine.error).__name__}: {str(mine.error)[:90]!r}"
            )
        return
    if mine.error is not None:
        yield f"ours raises {type(mine.error).__name__}: {str(mine.error)[:140]!r}"
        return
    if len(mine.values) != len(other.values):
        yield f"{len(mine.values)} results, PyTorch has {len(other.values)}"
        return
    ints = {o.dtype for o in operands.values() if not o.dtype.startswith("float")}
    positions = any(s in form for s in ("arg", "nonzero", "indices", "one_hot"))  # int32 here
    wide = ints == {"int64"} and len(other.values) == 1 and not positions
    pairs = []
    dtypes = [o.dtype for o in operands.values()]
    for a, b in zip(mine.values, other.values, strict=True):
        if not isinstance(b, torch.Tensor):
            if isinstance(a, Tensor):
                yield f"a tensor where PyTorch gives {b!r}"
            elif a != b and _name(a) != _name(b) and not (isinstance(b, float) and math.isclose(a, b, rel_tol=1e-5)):
                yield f"{a!r} where PyTorch gives {b!r}"
            continue
        if not isinstance(a, Tensor):
            yield f"{type(a).__name__} where PyTorch gives a tensor"
            return
        if a.shape != tuple(b.shape):
            yield f"shape {list(a.shape)}, PyTorch {list(b.shape)}"
            return
        mine_d, their_d = _name(a.dtype), _name(b.dtype)
        if mine_d != their_d and not (their_d == "int64" and mine_d == "int32" and not wide):
            yield f"dtype {mine_d}, PyTorch {their_d}"
        pairs.append((a, b))
    for a, b in pairs:
        yield from _near(mine.arrays[id(a)], b, rtol, "value", dtypes)
    flowing = [(a, b) for a, b in pairs if b.requires_grad and b.is_floating_point()]
    if not flowing:
        return
    ours: Any = 0.0
    theirs: Any = 0.0
    for k, (a, b) in enumerate(flowing):
        weights = np.asarray(np.random.default_rng(99 + k).uniform(-1, 1, tuple(b.shape)))
        ours = ours + (a.double() * Tensor(weights)).sum()
        theirs = theirs + (b.double() * torch.tensor(weights)).sum()
    theirs_error = mine_error = None
    try:
        theirs.backward()
    except Exception as e:
        theirs_error = e
    try:
        ours.backward()
    except Exception as e:
        mine_error = e
    if theirs_error is not None or mine_error is not None:
        if mine_error is not None and (theirs_error is None or not isinstance(mine_error, type(theirs_error))):
            yield f"backward raises {type(mine_error).__name__}: {str(mine_error)[:140]!r}"
        return
    for k, t in ts.items():
        if t.grad is None:
            continue
        g = xs[k].grad
        if g is None:
            if t.grad.abs().sum() != 0:
                yield f"no gradient by {k}"
            continue
        if _name(g.dtype) != _name(t.grad.dtype):
            yield f"gradient by {k} has dtype {_name(g.dtype)}, PyTorch {_name(t.grad.dtype)}"
        got, wanted = values([g])[0], t.grad.detach()
        if operands[k].odd:  # a slope at an infinity or at NaN means nothing
            finite = np.isfinite(xs[k].numpy())
            got, wanted = np.where(finite, got, 0), torch.where(torch.tensor(finite), wanted, 0)
        yield from _near(got, wanted, 10 * rtol, f"gradient by {k}", dtypes, 8.0)


def _near(g: np.ndarray[Any, Any], b: Any, rtol: float, what: str, dtypes: Sequence[str], slack: float = 1.0) -> Iterator[str]:
    e = b.detach()
    expected = (e.float() if _name(e.dtype) == "bfloat16" else e).numpy()
    tol = max(slack * max(TOLERANCE.get(d, 0.0) for d in (_name(e.dtype), *dtypes)), rtol)
    if expected.dtype.kind in "biu":
        if not np.array_equal(g, expected):
            bad = np.argwhere(np.asarray(g != expected))[0]
            yield f"{what} {g[tuple(bad)]} at {bad.tolist()}, PyTorch {expected[tuple(bad)]}"
        return
    with np.errstate(all="ignore"):
        size = np.where(np.isfinite(expected), np.abs(expected), 0).max(initial=1e-30 if slack == 1 else 0.1)
        ok = np.isclose(g.astype(np.float64), expected.astype(np.float64), rtol=tol, atol=tol * min(size, 1e30), equal_nan=True)
    if not ok.all():
        bad = np.argwhere(~ok)[0] if ok.ndim else ()
        yield f"{what} {g[tuple(bad)]!r} at {list(bad)}, PyTorch {expected[tuple(bad)]!r} ({(~ok).sum()} of {ok.size})"


def forms_of(text: str) -> list[str]:
    """One form a line; empty lines and comments left out."""
    return [line.strip() for line in text.strip().splitlines() if line.strip() and not line.strip().startswith("#")]


def agree(forms: str, operands: Sequence[dict[str, Operand]], rtol: float = 0.0, by: Values | None = None) -> None:
    """Every form on every set of operands gives what PyTorch gives, by the values that `by` gives; None: by what the graphs mean,
    and one set of each form is compiled too. AssertionError names all that do not."""
    wrong = []
    for form in forms_of(forms):
        runs = [(named, by or meant) for named in operands]
        if by is None:
            runs.append((operands[zlib.crc32(form.encode()) % len(operands)], compiled))
        for named, values in runs:
            found = list(differences(form, named, rtol=rtol, values=values))
            if found:
                made = ", ".join(f"{k}: {o.dtype}{list(o.shape)} {o.layout}" for k, o in named.items())
                wrong.append(f"{form}  [{made}, {values.__name__}]\n    " + "\n    ".join(found))
    assert not wrong, f"{len(wrong)} differ from PyTorch\n" + "\n".join(wrong[:12])


EVERY = ("llvm", "reference", "opencl")


def on_backends(forms: str, operands: dict[str, Operand], names: Sequence[str] = EVERY[:2], rtol: float = 2e-5) -> None:
    """All forms in one program on these backends (OpenCL takes seconds to compile, so few ask for it): what each computes is what
    PyTorch gives."""
    for name in names:
        try:
            backends.get(name)
        except backends.BackendError:
            continue
        pairs = []
        for form in forms_of(forms):
            mine, other, _, _ = outcomes(form, operands)
            assert mine.error is None and other.error is None, (form, mine.error, other.error)
            pairs += [(form, a, b) for a, b in zip(mine.values, other.values, strict=True) if isinstance(b, torch.Tensor)]
        with backends.use(name):
            pairs[0][1].realize(*[a for _, a, _ in pairs[1:]])
        for form, a, b in pairs:
            for sentence in _near(a.numpy(), b, rtol, f"{form} on {name}: value", ()):
                raise AssertionError(sentence)
