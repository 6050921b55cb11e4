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
    expect(panel.locator(f"[data-again='{slot}']")).to_be_checked()
    expect(panel).to_contain_text("−2 KiB")
    expect(panel).to_contain_text("inside the noise")
    expect(panel).to_contain_text('tv.pin("maximum 0123456789", "recompute")')
    page.get_by_role("tab", name="timeline", exact=True).click()
    expect(page.locator(".tv-cost")).to_contain_text("recording cost")
    row = page.locator(".tv-ledger tr").filter(has_text="time of matmul").first
    expect(page.locator(".tv-ledger tr.tv-under")).to_have_count(0)
    row.get_by_role("button").click()
    expect(page.locator(".tv-ledger tr.tv-under")).to_have_count(3)


LATE = ("fuse", "loops", "schedule", "plan", "emit")


def stage_of(sample: dict[str, Any], name: str) -> tuple[int, dict[str, Any]]:
    found: dict[str, Any]
    for i, found in enumerate(sample["recording"]["programs"][0]["stages"]):
        if found["name"] == name:
            return i, found
    raise KeyError(name)


def test_every_later_stage_can_be_stepped_through(show: Show, sample: dict[str, Any]) -> None:
    """Rule, reason, source, and the text before and after, for each step of fuse, loops, schedule, plan and emit."""
    page = show()
    page.get_by_role("tab", name="stages", exact=True).click()
    stages = page.locator(".tv-view.tv-stages")
    rules = sample["recording"]["rules"]
    for name in LATE:
        _, stage = stage_of(sample, name)
        stages.get_by_role("tab", name=name).click()
        of = stage["steps"]["rule"]
        assert len(stages.locator(".tv-rule").all()) == len(set(of))
        expect(stages.locator(".tv-stepnumber")).to_contain_text(f"of {len(of)}")
        if fold := stages.locator(".tv-stepper .tv-tools input[type=checkbox]").all():
            fold[0].uncheck()
            stages.get_by_role("button", name="first step").click()  # it may be one without effect
        row = stages.locator(".tv-step .tv-headrow").first
        expect(row).to_contain_text(rules["reason"][of[0]])
        expect(row).to_contain_text(f"{rules['file'][of[0]]}:{rules['line'][of[0]]}")
        expect(stages.locator(".tv-steptext").nth(1).locator(".tv-stepline").first).to_be_visible()
        for k in range(len(of)):
            expect(stages.locator(".tv-stepnumber")).to_have_text(f"step {k + 1} of {len(of)}")
            expect(stages.locator(".tv-rulename")).to_have_text(rules["name"][of[k]])
            if k + 1 < len(of):
                stages.get_by_role("button", name="next step").click()


def test_a_fusion_step_moves_values_to_kernels_and_no_box_on_the_screen(show: Show, sample: dict[str, Any]) -> None:
    page = show()
    page.set_viewport_size({"width": 1280, "height": 1500})
    at, stage = stage_of(sample, "fuse")
    changed = [k for k, nodes in enumerate(stage["steps"]["nodes"]) if nodes]
    page.goto(page.url.partition("#")[0] + f"#firing:0.{at}.{changed[1]}")
    page.reload()
    stages = page.locator(".tv-view.tv-stages")

    def boxes(side: int) -> dict[str, str]:
        found: dict[str, str] = stages.locator(".tv-pair .tv-picture").nth(side).evaluate(
            """side => Object.fromEntries([...side.querySelectorAll('.tv-box')].map(box => {
                const body = box.querySelector('.tv-body');
                return [box.dataset.id, body.getAttribute('x') + ' ' + body.getAttribute('y')];
            }))"""
        )
        return found

    first = boxes(0)
    assert len(first) > 30 and first == boxes(1)
    for k in changed[1:8]:
        page.evaluate(f"location.hash = '#firing:0.{at}.{k}'")
        expect(stages.locator(".tv-stepnumber")).to_contain_text(f"step {k + 1} of")
        after = stages.locator(".tv-pair .tv-picture").nth(1)
        marked = after.locator(".tv-box[data-change='new']")
        assert {box.get_attribute("data-id") for box in marked.all()} == {f"0.{n}" for n in stage["steps"]["nodes"][k]}
        expect(marked.first).to_contain_text(re.compile("inline|at loop|whole"))
        expect(marked.first).to_be_in_viewport()
        assert boxes(0) == boxes(1) == first
        news = stages.locator(".tv-steptext").nth(1).locator("[data-change='new'], [data-change='changed']")
        expect(news.first).to_be_in_viewport()


def test_a_schedule_step_shows_which_words_changed(show: Show, sample: dict[str, Any]) -> None:
    page = show()
    at, stage = stage_of(sample, "schedule")
    k = next(i for i, text in enumerate(stage["steps"]["text"]) if text.startswith("vectorize("))
    page.goto(page.url.partition("#")[0] + f"#firing:0.{at}.{k}")
    page.reload()
    stages = page.locator(".tv-view.tv-stages")
    left, right = stages.locator(".tv-steptext").nth(0), stages.locator(".tv-steptext").nth(1)
    expect(right.locator("ins").first).to_be_visible()
    assert left.locator("ins").count() == 0 == right.locator("del").count()
    assert left.locator(".tv-stepline").count() == right.locator(".tv-stepline").count(), "lines stand side by side"
    top = [stages.locator(".tv-pair").bounding_box() for _ in range(2)]
    stages.get_by_role("button", name="next step").click()
    top[1] = stages.locator(".tv-pair").bounding_box()
    assert top[0] is not None and top[1] is not None and top[0]["y"] == top[1]["y"], "the texts stay where they are"
    # lines that stand for a node: chosen by the keyboard, all of them one stop of the Tab key, and keys go on stepping
    lines = right.locator("[role=button]")
    lines.first.focus()
    assert right.locator("[tabindex='0']").count() == 1 < lines.count() and right.get_attribute("tabindex") == "-1"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(lines.nth(1)).to_have_class(re.compile("tv-lit"))
    assert page.url.endswith(f"#node:0.{lines.nth(1).get_attribute('data-node')}")
    number = stages.locator(".tv-stepnumber")
    before = number.text_content() or ""
    for _ in range(2):
        page.keyboard.press("ArrowRight")
        expect(number).not_to_have_text(before)
        before = number.text_content() or ""
    assert right.evaluate("body => body.matches(':focus-within')")
    # to another kernel, and from another view to this one
    select = stages.get_by_role("combobox", name="kernel")
    other = [o.get_attribute("value") for o in select.locator("option").all()][-1]
    select.select_option(other)
    expect(stages.locator(".tv-step")).to_contain_text(f"k{other}")
    stages.get_by_role("button", name="open in the view kernel").click()
    expect(page.get_by_role("tab", name="kernel", exact=True)).to_have_attribute("aria-selected", "true")
    expect(page.locator(".tv-kernel .tv-title").filter(has_text=f"k{other}").first).to_be_visible()


def test_a_refusal_is_a_step_that_is_folded_until_it_is_asked_for(show: Show, sample: dict[str, Any]) -> None:
    page = show()
    page.get_by_role("tab", name="stages", exact=True).click()
    stages = page.locator(".tv-view.tv-stages")
    stages.get_by_role("tab", name="schedule").click()
    _, stage = stage_of(sample, "schedule")
    effect = set(stage["edits"]["step"]) | {k for k, moved in enumerate(stage["steps"]["moved"]) if moved}
    refused = [k for k in range(len(stage["steps"]["rule"])) if k not in effect]
    expect(stages.locator(".tv-stepper .tv-tools")).to_contain_text(f"fold {len(refused)} without effect")
    stages.locator(".tv-stepper .tv-tools input[type=checkbox]").uncheck()
    at, _ = stage_of(sample, "schedule")
    page.evaluate(f"location.hash = '#firing:0.{at}.{refused[0]}'")
    expect(stages.locator(".tv-step")).to_contain_text("changes nothing")
    expect(stages.locator(".tv-stepline[data-change]")).to_have_count(0)


def test_a_node_leads_to_its_kernel_and_the_primitives_that_touched_it(show: Show, sample: dict[str, Any]) -> None:
    page = show()
    program = sample["recording"]["programs"][0]
    kernel = next(k for k in program["kernels"] if len(k["schedule"]) > 3)
    _, fuse = stage_of(sample, "fuse")
    placed = {n for nodes in fuse["steps"]["nodes"] for n in nodes}
    node = next(n for n in kernel["nodes"] if n in placed and program["nodes"]["op"][n] == "sum")
    page.goto(page.url.partition("#")[0] + f"#node:0.{node}")
    page.reload()
    page.get_by_role("tab", name="stages", exact=True).click()
    card = page.locator(".tv-fate .tv-card")
    _, schedule = stage_of(sample, "schedule")
    touched = [text for text, nodes in zip(schedule["steps"]["text"], schedule["steps"]["nodes"], strict=True) if node in nodes]
    assert len(set(touched)) > 3
    for part in ("fuse", "loops", "schedule", "emit", kernel["name"], *touched):
        expect(card).to_contain_text(part)
    card.get_by_role("button", name=kernel["schedule"][0], exact=True).first.click()
    expect(page.locator(".tv-stages .tv-title").filter(has_text="schedule:")).to_be_visible()
    expect(page.locator(".tv-stages .tv-step code").first).to_be_visible()


def test_steps_fit_a_narrow_and_a_wide_page(show: Show, sample: dict[str, Any]) -> None:
    page = show()
    at, stage = stage_of(sample, "schedule")
    k = next(i for i, text in enumerate(stage["steps"]["text"]) if text.startswith("tile("))
    for width in (700, 1600):
        page.set_viewport_size({"width": width, "height": 1000})
        page.goto(page.url.partition("#")[0] + f"#firing:0.{at}.{k}")
        page.reload()
        expect(page.locator(".tv-steptext").nth(1)).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{width} px"


def test_nothing_moves_from_step_to_step(show: Show, sample: dict[str, Any]) -> None:
    """However long a reason or a word diff is, and whatever it lights, what stands below stays where it is."""
    page = show()
    page.get_by_role("tab", name="stages", exact=True).click()
    stages = page.locator(".tv-view.tv-stages")
    for width in (1200, 700):
        page.set_viewport_size({"width": width, "height": 1000})
        for name in ("record", "differentiate", "simplify", *LATE):
            stages.get_by_role("tab", name=name).click()
            tops = stages.evaluate(
                """stages => {
                    const buttons = [...stages.querySelectorAll('.tv-stepper button')];
                    const button = name => buttons.find(b => b.ariaLabel?.startsWith(name));
                    button('first step').click();
                    const tops = new Set();
                    for (let i = +stages.querySelector('.tv-slider').max; i >= 0; i--) {
                        tops.add([...stages.querySelectorAll('.tv-pair')].map(pair => pair.getBoundingClientRect().top).join());
                        button('next step').click();
                    }
                    return [...tops];
                }"""
            )
            assert len(tops) == 1, (name, width, tops)


def test_a_rule_shows_how_it_is_written(show: Show, sample: dict[str, Any]) -> None:
    page = show()
    page.get_by_role("tab", name="stages", exact=True).click()
    stages = page.locator(".tv-view.tv-stages")
    for name in ("record", "simplify", "fuse", "schedule"):
        stages.get_by_role("tab", name=name).click()
        stages.locator(".tv-rulecode summary").click()
        expect(stages.locator(".tv-rulesource")).to_contain_text("def ")
    assert all(sample["recording"]["rules"]["file"]), "every rule has its place"
