"""Measurements that a click asks the kernel for: ablation, counts, bisection, and activations computed again."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator, expect

from .jupyter import MINUTE, Notebook

Open = Callable[..., Notebook]

PROGRAM = """
import numpy as np
import tinyviz as tv
from tinyviz import Tensor, jit, nn, optim
%load_ext tinyviz
layers = [nn.Linear(16 if i == 0 else 256, 256) for i in range(3)]
optimizer = optim.SGD([p for layer in layers for p in layer.parameters()], lr=0.1)
@jit
def step(x):
    optimizer.zero_grad()
    for layer in layers:
        x = layer(x).relu()
    loss = (x * x).mean()
    loss.backward()
    optimizer.step()
    return loss
x = Tensor(np.random.default_rng(0).standard_normal((64, 16)).astype(np.float32))
with tv.watch() as rec:
    for _ in range(3):
        step(x)
before = [p.numpy().copy() for layer in layers for p in layer.parameters()]
rec
"""
AFTER = """
for a, b in zip(before, [p for layer in layers for p in layer.parameters()]):
    np.testing.assert_array_equal(a, b.numpy())
p = max(rec.programs, key=lambda p: len(p.kernels))
ablated = sum(k.ablation is not None for k in p.kernels)
print(p.peak_bytes == p.certificate.peak_bytes, p.bisection.stage == "", ablated, len(p.recomputed))
"""


def show(notebook: Notebook, view: str) -> Locator:
    notebook.cell(0).get_by_role("tab", name=view, exact=True).click()
    return notebook.cell(0).locator(f".tv-view.tv-{view}")


def test_measurements_are_asked_for_by_clicks_and_stay_in_the_recording(open_notebook: Open, pictures: Path) -> None:
    notebook = open_notebook([PROGRAM, AFTER])
    notebook.run(0)
    expect(notebook.cell(0).locator("[data-live=true]").first).to_be_visible(timeout=MINUTE)

    place = show(notebook, "roofline")
    place.locator("[data-ask=ablate]").click()
    expect(place.locator(".tv-ablation tbody tr")).to_have_count(4, timeout=MINUTE)
    expect(place.locator(".tv-ablation")).to_contain_text(re.compile("bound by|wait for each other"))
    notebook.shoot(pictures, "ablation")

    place = show(notebook, "timeline")
    row = place.locator(".tv-ledger tr").filter(has_text=re.compile("^FLOPs"))
    expect(row).to_contain_text("not measured")
    place.locator("[data-ask=count]").click()
    expect(row).to_contain_text("agrees", timeout=2 * MINUTE)
    expect(place.locator(".tv-ledger tr").filter(has_text="peak memory")).to_contain_text("agrees")

    place = show(notebook, "stages")
    place.locator("[data-ask=bisect]").click()
    expect(place.locator(".tv-bisection")).to_contain_text("no step changes a value", timeout=2 * MINUTE)

    place = show(notebook, "memory")
    panel = place.locator(".tv-recompute")
    panel.get_by_role("checkbox").first.check()
    expect(panel.locator(".tv-outcome tbody tr").first).to_contain_text("peak memory, predicted", timeout=2 * MINUTE)
    expect(panel).to_contain_text("−64 KiB")
    expect(panel.locator(".tv-pin")).to_contain_text(re.compile(r'tv\.pin\("maximum [0-9a-f.]+", "recompute"\)'))
    notebook.shoot(pictures, "recompute")
    panel.get_by_role("checkbox").first.uncheck()
    expect(panel).to_contain_text("Tick activations")
    field = panel.get_by_role("spinbutton")
    field.fill(str(int(int(field.input_value()) / 0.75) - 60))  # it proposes three quarters of the peak
    field.press("Enter")
    expect(panel.locator(".tv-outcome").first).to_contain_text("of the activations computed again", timeout=2 * MINUTE)
    expect(panel.locator(".tv-outcome").first).to_contain_text("✓ taken")
    assert panel.get_by_role("checkbox", checked=True).count() >= 1
    notebook.shoot(pictures, "recompute-under")

    notebook.run(1)
    assert notebook.text(1).strip() in ("True True 1 1", "True True 1 2")


def test_the_views_of_a_large_program_are_asked_for_when_it_is_chosen(open_notebook: Open) -> None:
    two = """
import numpy as np
import tinyviz as tv
from tinyviz import explore
%load_ext tinyviz
explore.MORE_NODES = 0
with tv.watch() as rec:
    tv.Tensor(np.ones((64, 64), np.float32)).exp().sum().item()
    tv.Tensor(np.ones((3, 5), np.float32)).sqrt().max().item()
rec.view("kernel", 0)
"""
    notebook = open_notebook([two])
    notebook.run(0)
    cell = notebook.cell(0)
    expect(cell.locator("[data-live=true]").first).to_be_visible(timeout=MINUTE)
    expect(cell.locator(".tv-kernelrow").first).to_contain_text("sum_scalar")
    cell.get_by_role("combobox", name="program").select_option("1")
    expect(cell.locator(".tv-kernelrow").first).to_contain_text("max_scalar", timeout=MINUTE)
    cell.get_by_role("combobox", name="program").select_option("0")
    expect(cell.locator(".tv-kernelrow").first).to_contain_text("sum_scalar")
