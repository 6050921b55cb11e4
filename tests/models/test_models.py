"""The networks of `tinyviz.examples` beside PyTorch, with the same weights: loss, every gradient, every parameter after one
step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models.twins import PROOFS, Proof, as_torch, torch
from tinyengine import Tensor, jit, no_grad, optim, state

F = torch.nn.functional


def near(ours: Any, theirs: Any, tolerance: float, what: str) -> None:
    """Equal within a share of the largest element: float32 sums in another order."""
    a, b = ours.numpy(), theirs.detach().numpy()
    assert a.shape == b.shape, what
    worst = np.abs(a - b).max() / max(np.abs(b).max(), 1e-6)
    assert worst < tolerance, f"{what}: {worst}"


def twins(proof: Proof, folder: Path) -> tuple[Any, Any]:
    """Both networks, with the values that ours has: by way of a safetensors file."""
    ours, theirs = proof.ours(), proof.theirs()
    mine = state.get_state_dict(ours)
    state.safe_save(mine, folder / "model.safetensors")
    read = state.safe_load(folder / "model.safetensors")
    assert {k: v.shape for k, v in read.items()} == {k: tuple(v.shape) for k, v in theirs.state_dict().items()}
    theirs.load_state_dict({k: as_torch(v.numpy()) for k, v in read.items()})
    return ours, theirs


@pytest.mark.parametrize("name", PROOFS)
def test_a_step_of_training_is_pytorchs(name: str, tmp_path: Path) -> None:
    proof = PROOFS[name]
    ours, theirs = twins(proof, tmp_path)
    x, y = proof.batch()
    optimizer = optim.SGD(ours.parameters(), lr=proof.lr, momentum=0.9)
    their_optimizer = torch.optim.SGD(theirs.parameters(), lr=proof.lr, momentum=0.9)
    loss = proof.loss(ours(Tensor(x)), Tensor(y), Tensor.cross_entropy)
    loss.backward()
    gradients = {k: p.grad for k, p in ours.named_parameters()}
    optimizer.step()
    loss.realize(*[g for g in gradients.values() if g is not None])

    their_loss = proof.loss(theirs(as_torch(x)), as_torch(y), F.cross_entropy)
    their_loss.backward()
    their_optimizer.step()

    near(loss, their_loss, 1e-5, "loss")
    assert gradients.keys() == dict(theirs.named_parameters()).keys()
    for k, p in theirs.named_parameters():
        near(gradients[k], p.grad, 2e-4, f"gradient of {k}")
    after = ours.state_dict()
    for k, t in theirs.state_dict().items():
        near(after[k], t, 2e-5, f"{k} after a step")


@pytest.mark.parametrize("name", PROOFS)
def test_jitted_steps_are_those_of_eager_code(name: str) -> None:
    proof = PROOFS[name]
    batches = [tuple(map(Tensor, proof.batch(seed))) for seed in (1, 2)]
    found = []
    for wrap in (lambda f: f, jit):
        model = proof.ours()
        optimizer = optim.SGD(model.parameters(), lr=proof.lr, momentum=0.9)

        def step(x: Tensor, y: Tensor, model: Any = model, optimizer: Any = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = proof.loss(model(x), y, Tensor.cross_entropy)
            loss.backward()
            optimizer.step()
            return loss

        run = wrap(step)
        losses = [run(x, y).item() for x, y in batches]
        found.append((losses, {k: t.numpy() for k, t in model.state_dict().items()}))
    (eager, after), (jitted, after_jitted) = found
    np.testing.assert_allclose(jitted, eager, rtol=1e-5)
    for k, a in after.items():
        np.testing.assert_allclose(after_jitted[k], a, rtol=1e-4, atol=1e-4 * np.abs(a).max(), err_msg=k)


@pytest.mark.parametrize("name", ["resnet18", "unet"])
def test_evaluation_uses_the_running_statistics(name: str, tmp_path: Path) -> None:
    proof = PROOFS[name]
    ours, theirs = twins(proof, tmp_path)
    for seed in range(2):
        x = proof.batch(seed)[0]
        with no_grad():
            ours(Tensor(x)).realize()
        theirs(as_torch(x))
    x = proof.batch(5)[0]
    ours.eval()
    theirs.eval()
    near(ours(Tensor(x)), theirs(as_torch(x)), 1e-4, "logits")
    assert ours.state_dict()["bn1.num_batches_tracked" if name == "resnet18" else "down1.1.num_batches_tracked"].item() == 2


def test_a_language_model_writes_what_pytorchs_writes(tmp_path: Path) -> None:
    proof = PROOFS["lstm"]
    ours, theirs = twins(proof, tmp_path)
    text = proof.batch()[0][:1, :3].tolist()[0]
    mine, other = list(text), list(text)
    for _ in range(4):
        mine.append(int(ours(Tensor([mine]))[0, -1].argmax().item()))
        other.append(int(theirs(torch.tensor([other]))[0, -1].argmax()))
    assert mine == other
