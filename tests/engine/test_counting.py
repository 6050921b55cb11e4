"""Counting while a program runs, beside what the certificate said before: where it claims to be exact the two are equal."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.networks import MLP
from tinyengine import Tensor, backends, counting, jit, optim, pipeline
from tinyengine.counting import count
from tinyengine.jit import jit as Jit
from tinyengine.machine import FIXTURE
from tinyengine.node import Graph

rng = np.random.default_rng(0)


def tensor(*shape: int) -> Tensor:
    return Tensor(rng.standard_normal(shape).astype(np.float32))


def lowered(*tensors: Tensor) -> pipeline.Lowered:
    return pipeline.lower(Graph([t.node for t in tensors]), machine=FIXTURE, backend="llvm")


PROGRAMS: dict[str, Callable[[], Tensor]] = {
    "softmax": lambda: tensor(24, 40).softmax(1),
    "product": lambda: (tensor(12, 30) @ tensor(30, 20)).relu(),
    "convolution": lambda: tensor(2, 3, 9, 9).conv2d(tensor(4, 3, 3, 3), padding=1).relu(),
    "normalisation": lambda: tensor(8, 16).layernorm() * 3,
    "shifted": lambda: tensor(8, 16)[1:, 2:] + tensor(7, 14),
    "two kernels": lambda: (tensor(6, 8) @ tensor(8, 6)) @ tensor(6, 3),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_is_counted_is_what_was_certified(name: str) -> None:
    low = lowered(PROGRAMS[name]())
    counted, said = count(low), low.certificate
    assert counted.peak_bytes == said.peak_bytes
    for a, b in zip(counted.kernels, said.kernels, strict=True):
        assert a.flops == b.flops > 0, a.name
        if b.exact:
            assert (a.bytes_read, a.bytes_written) == (b.bytes_read, b.bytes_written), a.name
        else:
            assert a.bytes_read <= b.bytes_read and a.bytes_written <= b.bytes_written, a.name


def test_a_prediction_that_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting owes the certificate nothing: a planted error there leaves the count as it is."""
    low = lowered(tensor(24, 40).softmax(1))
    right = count(low)
    monkeypatch.setattr("tinyengine.cost._touched", lambda found: (1, True))
    wrong = lowered(tensor(24, 40).softmax(1))
    assert wrong.certificate.bytes_read == 1 and count(wrong).kernels[0].bytes_read == right.kernels[0].bytes_read > 1


def test_a_training_step_is_counted_without_changing_it() -> None:
    with backends.use("llvm"):
        model = MLP()
        optimizer = optim.SGD(list(model.parameters()), lr=0.1)

        @jit
        def step(x: Tensor, y: Tensor) -> Tensor:
            optimizer.zero_grad()
            loss = model(x).cross_entropy(y)
            loss.backward()
            optimizer.step()
            return loss

        assert isinstance(step, Jit)
        low = step.lower(tensor(8, 64), Tensor(np.zeros(8, np.int32)))
        before = [p.numpy() for p in model.parameters()]
        counted = count(low)
        assert len(counted.kernels) == len(low.plan.calls) and counted.peak_bytes == low.certificate.peak_bytes
        assert sum(k.flops for k in counted.kernels) == low.certificate.flops
        for a, p in zip(before, model.parameters(), strict=True):
            np.testing.assert_array_equal(a, p.numpy())


def test_a_gather_counts_what_its_data_asks_for() -> None:
    """The certificate can only bound it: two of a hundred rows are read."""
    table, index = tensor(100, 8), Tensor(np.array([3, 3, 7], np.int32))
    low = lowered(table[index])
    (a,), (b,) = count(low).kernels, low.certificate.kernels
    assert a.bytes_read == 2 * 8 * 4 + 3 * 4 and not b.exact and b.bytes_read > a.bytes_read


def test_what_would_take_minutes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "LIMIT", 1000)
    with pytest.raises(ValueError, match=r"count: the program makes [\d,]+ accesses .*a smaller batch"):
        count(lowered(tensor(50, 40).softmax(1)))
