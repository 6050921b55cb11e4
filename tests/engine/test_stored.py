"""Programs on disk: a new process does no stage, what it restores explains itself, and what is not right is a miss."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinyengine import backends, hooks, machine, nn, optim, spec, stored
from tinyengine import realize as engine
from tinyengine.backends import llvm_code
from tinyengine.choices import Choices
from tinyengine.jit import jit
from tinyengine.machine import FIXTURE
from tinyengine.runtime import cache
from tinyengine.stages import fuse
from tinyengine.tensor import Tensor, manual_seed


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, specs off as for a user, and a process that has compiled nothing."""
    monkeypatch.setenv("TINYENGINE_CACHE", str(tmp_path))
    monkeypatch.setattr(spec, "enabled", False)
    monkeypatch.setattr(llvm_code, "_linked", {})
    monkeypatch.setattr(engine, "programs", {})
    with backends.use("llvm"):
        yield tmp_path


def forget() -> None:
    """As a new process would begin."""
    llvm_code._linked.clear()
    engine.programs.clear()


@pytest.fixture
def no_stages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Counts how often `fuse` runs."""
    ran: list[str] = []
    real = fuse.run

    def counted(*arguments: Any) -> Any:
        ran.append("fuse")
        return real(*arguments)

    monkeypatch.setattr(fuse, "run", counted)
    return ran


def train(steps: int = 3) -> tuple[list[float], Any]:
    """Losses and the jitted step of a small network, from fresh Python objects."""
    manual_seed(1)
    layer = nn.Linear(6, 3)
    optimizer = optim.Adam(layer.parameters(), lr=0.1)

    @jit
    def step(x: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = layer(x).relu().square().mean()
        loss.backward()
        optimizer.step()
        return loss

    x = Tensor(np.linspace(-1, 1, 24, dtype=np.float32).reshape(4, 6))
    return [step(x).item() for _ in range(steps)], step


def test_a_new_process_does_no_stage(folder: Path, no_stages: list[str]) -> None:
    cold, _ = train()
    assert no_stages
    no_stages.clear()
    forget()
    warm, step = train()
    assert warm == cold and not no_stages
    assert not {"fuse", "plan", "emit"} & set(step.lowered[0].seconds)


STEP = """
import sys
from tinyengine import Tensor, jit, nn, optim
layer = nn.Linear(4, 2)
optimizer = optim.Adam(layer.parameters(), lr=0.1)
@jit
def step(x):
    optimizer.zero_grad()
    loss = layer(x).square().sum()
    loss.backward()
    optimizer.step()
    return loss
print(float(step(Tensor([[1.0, 2.0, 3.0, 4.0]])).item()))
late = ("stages.simplify", "stages.fuse", "stages.schedule", "backends.llvm_module", "loopnest", "stages.emit", "state.gguf")
print(*[m for m in late if "tinyengine." + m in sys.modules])
"""


def test_a_new_process_does_not_even_import_the_stages(tmp_path: Path) -> None:
    path = os.pathsep.join(map(str, [Path(engine.__file__).parents[1], Path(__file__).parents[2]]))
    env = {**os.environ, "TINYENGINE_CACHE": str(tmp_path), "PYTHONPATH": path, "TINYENGINE_BACKEND": "llvm"}

    def process() -> tuple[str, list[str]]:
        loss, modules = subprocess.run(
            [sys.executable, "-c", STEP], env=env, capture_output=True, text=True, check=True
        ).stdout.split("\n")[:2]
        return loss, modules.split()

    cold, imported = process()
    assert len(imported) == 6
    assert process() == (cold, [])


def test_what_was_restored_explains_itself(folder: Path, no_stages: list[str]) -> None:
    _, first = train(1)
    forget()
    _, second = train(1)
    no_stages.clear()
    a, b = first.lowered[0], second.lowered[0]
    assert b.text() == a.text() and no_stages
    assert [k.source for k in b.kernels] == [k.source for k in a.kernels]
    assert [(d.stage, d.kind, d.verdict, d.reason) for d in b.decisions] == [
        (d.stage, d.kind, d.verdict, d.reason) for d in a.decisions if d.stage != "emit"
    ]
    assert [d.verdict for d in b.executable.decisions] == [d.verdict for d in a.decisions if d.stage == "emit"]  # type: ignore[attr-defined]


def test_a_failed_check_says_the_same(folder: Path, no_stages: list[str]) -> None:
    def gather() -> str:
        with pytest.raises(IndexError) as caught:
            Tensor(np.arange(8, dtype=np.float32))[Tensor(np.array([1, 9], np.int32))].numpy()
        return str(caught.value)

    cold = gather()
    forget()
    no_stages.clear()
    assert gather() == cold and not no_stages


def entry(folder: Path) -> Path:
    """The file of the newest program."""
    found = [p for p in folder.rglob("o-*") if p.read_bytes().startswith(b"{")]
    return max(found, key=lambda p: p.stat().st_mtime)


def test_a_damaged_entry_is_a_miss(folder: Path, no_stages: list[str]) -> None:
    cold, _ = train()
    for p in folder.rglob("o-*"):
        if p.read_bytes().startswith(b"{"):
            p.write_bytes(p.read_bytes()[:-7])
    forget()
    no_stages.clear()
    assert train()[0] == cold and no_stages


def test_an_entry_without_its_object_code_is_a_miss(folder: Path, no_stages: list[str]) -> None:
    cold, _ = train()
    for p in folder.rglob("o-*"):
        if not p.read_bytes().startswith(b"{"):
            p.unlink()
    forget()
    no_stages.clear()
    assert train()[0] == cold and no_stages


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("slots"), lambda d: d.update(key="another"), lambda d: d.update(root_slots=[999]),
        lambda d: d["image"]["parts"][0].__setitem__(1, [999]), lambda d: d["image"].update(given=1),
        lambda d: d["image"].update(offsets=[1 << 40]),
    ],
)  # fmt: skip
def test_an_intact_entry_that_is_wrong_is_a_miss(folder: Path, no_stages: list[str], change: Any) -> None:
    def run() -> list[float]:
        return (Tensor(np.ones((4, 4), np.float32)).softmax(1) * 3).sum(0).tolist()  # type: ignore[no-any-return]

    cold = run()
    data = json.loads(entry(folder).read_bytes())
    key = data["key"]
    change(data)
    cache.default().store([key], json.dumps(data).encode())
    forget()
    no_stages.clear()
    assert run() == cold and no_stages


def test_choices_and_the_machine_and_the_engine_are_part_of_the_key(
    folder: Path, no_stages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> None:
        forget()
        no_stages.clear()
        (Tensor(np.ones(40, np.float32)) * 3).realize()

    run()
    run()
    assert not no_stages
    with monkeypatch.context() as m:
        m.setattr(engine, "_choices", [Choices(vector_width=1)])
        run()
        assert no_stages
    with monkeypatch.context() as m:
        m.setattr(machine, "current", lambda: FIXTURE)
        run()
        assert no_stages
    with monkeypatch.context() as m:
        m.setattr(stored, "engine_version", lambda: "another")
        run()
        assert no_stages
    run()
    assert not no_stages


def test_who_watches_sees_the_stages(folder: Path) -> None:
    train(1)
    forget()
    seen: list[hooks.Event] = []
    with hooks.subscribed(seen.append, hooks.StageFinished, hooks.KernelEmitted):
        train(1)
    stages = {e.stage for e in seen if isinstance(e, hooks.StageFinished)}
    assert stages >= {"simplify", "fuse", "loops", "schedule", "plan", "emit"}
    assert all(e.cached for e in seen if isinstance(e, hooks.KernelEmitted))


def test_a_new_cell_with_the_same_model_compiles_nothing(folder: Path, no_stages: list[str]) -> None:
    """New Python objects, equal shapes: in this process no disk is needed for it, watched or not."""
    first, _ = train()
    no_stages.clear()
    cache.clear()
    seen: list[hooks.Event] = []
    with hooks.subscribed(seen.append):
        watched, _ = train()
    unwatched, _ = train()
    assert first == watched == unwatched and not no_stages
    assert not [e for e in seen if isinstance(e, hooks.KernelEmitted)]
    assert {e.stage for e in seen if isinstance(e, hooks.StageStarted)} == {"differentiate"}  # a part of recording
    assert {e.cache for e in seen if isinstance(e, hooks.CacheHit)} >= {"program"}
    assert {(e.cache, e.guard) for e in seen if isinstance(e, hooks.CacheMiss)} == {("jit", "first call")}
