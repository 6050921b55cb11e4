"""Steps, measurements and what-ifs in an exported page: links to one step, where a node came from, ablation, counts."""

from __future__ import annotations

import copy
import re
from typing import Any

from playwright.sync_api import expect

from .conftest import Show


def test_a_link_leads_to_one_step(show: Show, sample: dict[str, Any]) -> None:
    """page.html#firing:0.2.5 opens the stepper there; every step puts its own address in the bar."""
    page = show()
    stage = next(i for i, s in enumerate(sample["recording"]["programs"][0]["stages"]) if s["name"] == "simplify")
    page.goto(page.url.partition("#")[0] + f"#firing:0.{stage}.5")
    page.reload()
    stages = page.locator(".tv-view.tv-stages")
    expect(stages.locator(".tv-stepnumber")).to_contain_text("step 6 of")
    stages.locator(".tv-stepper").get_by_role("button", name="next step").click()
    page.wait_for_function(f"/^#firing:0.{stage}.[6-9]/.test(location.hash)")
    page.evaluate(f"location.hash = '#firing:0.{stage}.2'")
    expect(stages.locator(".tv-stepnumber")).to_contain_text("step 3 of")
    page.keyboard.press("Escape")


def test_the_changed_node_is_in_sight_from_the_first_step_on(show: Show) -> None:
    page = show()
    page.get_by_role("tab", name="stages", exact=True).click()
    pair = page.locator(".tv-pair .tv-picture")
    expect(pair.first.locator(".tv-box[data-change='removed'], .tv-box[data-change='new']").first).to_be_in_viewport()


def test_every_graph_stage_can_be_stepped_through(show: Show) -> None:
    page = show()
    page.get_by_role("tab", name="stages", exact=True).click()
    stages = page.locator(".tv-view.tv-stages")
    for name, what in (("record", "record-line"), ("differentiate", "d-"), ("simplify", "")):
        stages.get_by_role("tab", name=name).click()
        expect(stages.locator(".tv-rulename")).to_contain_text(what)
        expect(stages.locator(".tv-rule .tv-name").first).to_be_visible()
        stages.locator(".tv-stepper").get_by_role("button", name="next step").click()
        expect(stages.locator(".tv-stepnumber")).to_contain_text("step ")


def test_a_node_tells_where_it_came_from_and_what_became_of_it(show: Show, sample: dict[str, Any]) -> None:
    page = show()
    columns = [s["frames"] for s in sample["recording"]["programs"][0]["stages"]]
    node = next(a for f in columns for a, b in zip(f["replaced"], f["by"], strict=True) if a != b)
    page.goto(page.url.partition("#")[0] + f"#node:0.{node}")
    page.reload()
    page.get_by_role("tab", name="stages", exact=True).click()
    card = page.locator(".tv-fate .tv-card")
    expect(card).to_contain_text(f"%{node} ")
    for part in ("made by", "record-line", "what became of it", "asked for by"):
        expect(card).to_contain_text(part)
    card.get_by_role("button", name=re.compile("simplify step")).first.click()
    expect(page.locator(".tv-stages .tv-stepnumber")).to_contain_text("step ")


def test_what_was_measured_stands_in_the_page(show: Show, sample: dict[str, Any]) -> None:
    """Ablation, counts, recomputation and bisection that a recording holds; what it does not hold says how to get it."""
    page = show()
    page.get_by_role("tab", name="roofline", exact=True).click()
    expect(page.locator(".tv-ablation")).to_contain_text("rec.ablate(")
    data = copy.deepcopy(sample)
    program = data["recording"]["programs"][0]
    spread = {"seconds": 2e-6, "low": 1.9e-6, "high": 2.1e-6, "runs": 9}
    kernel = data["views"]["roofline"]["points"][0]["kernel"]
    program["kernels"][kernel]["ablation"] = {
        "whole": spread, "loads": spread, "arithmetic": {**spread, "low": 5e-7}, "empty": {**spread, "low": 1e-7},
        "bound": "memory", "predicted": "L2", "sentence": "bound by memory: a planted sentence",
    }  # fmt: skip
    none = {"stage": "", "step": "", "firing": -1, "error": 0, "tolerance": 1e-4, "checked": 7}
    program["bisection"] = {**none, "sentence": "no step changes it"}
    slot = next(i for i, s in enumerate(program["slots"]) if s["role"] == "temporary")
    program["slots"][slot]["again"] = "maximum 0123456789"
    program["recomputed"] = [{
        "slots": [slot], "names": ["maximum 0123456789"], "refused": {}, "kernels_before": 8, "kernels": 9,
        "flops_before": 100, "flops": 120, "peak_before": 4096, "peak": 2048, "counted_before": 4096, "counted": 2048,
        "seconds_predicted_before": 1e-5, "seconds_predicted": 2e-5, "before": spread, "after": spread,
        "difference": {**spread, "low": -1e-7}, "ulp": 0, "result": "",
        "pins": ['tv.pin("maximum 0123456789", "recompute")'],
    }]  # fmt: skip
    page = show(data)
    page.get_by_role("tab", name="roofline", exact=True).click()
    expect(page.locator(".tv-ablation")).to_contain_text("a planted sentence")
    expect(page.locator(".tv-ablation tbody tr")).to_have_count(4)
    page.get_by_role("tab", name="stages", exact=True).click()
    expect(page.locator(".tv-bisection")).to_contain_text("✓ no step changes it")
    page.get_by_role("tab", name="memory", exact=True).click()
    panel = page.locator(".tv-recompute")
    expect(panel.get_by_role("checkbox")).to_be_checked()
    expect(panel).to_contain_text("−2 KiB")
    expect(panel).to_contain_text("inside the noise")
    expect(panel).to_contain_text('tv.pin("maximum 0123456789", "recompute")')
    page.get_by_role("tab", name="timeline", exact=True).click()
    expect(page.locator(".tv-cost")).to_contain_text("recording cost")
    row = page.locator(".tv-ledger tr").filter(has_text="time of matmul").first
    expect(page.locator(".tv-ledger tr.tv-under")).to_have_count(0)
    row.get_by_role("button").click()
    expect(page.locator(".tv-ledger tr.tv-under")).to_have_count(3)
