"""The exported page, from file:// and without a network: every view, light and dark, wide and narrow; broken and hostile data."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect

import tinyviz as tv
from tinyviz import record, views
from tinyviz.recording import Recording

SIZES = [("light", 1600), ("dark", 700)]

Show = Callable[..., Page]


@pytest.mark.parametrize(("theme", "width"), SIZES)
def test_every_view_fits_and_explains_itself(show: Show, pictures: Path, theme: str, width: int) -> None:
    pictures.mkdir(parents=True, exist_ok=True)
    page = show(theme=theme, width=width)
    expect(page.locator(".tinyviz-explorer")).to_have_attribute("data-ground", theme)
    for name in views.NAMES:
        page.get_by_role("tab", name=name, exact=True).click()
        view = page.locator(f".tv-view.tv-{name}")
        expect(view.get_by_role("button", name="How to read this")).to_be_visible()
        view.get_by_role("button", name="How to read this").click()
        expect(view.locator(".tv-howto li")).to_have_count(3)
        view.get_by_role("button", name="How to read this").click()
        assert view.get_by_role("list", name="legend").get_by_role("listitem").count() >= 2
        assert view.locator("details summary").count() >= 1, f"{name} has no table twin"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is wider than the page"
        if name in ("lines", "timeline", "memory", "roofline"):
            wide = view.evaluate("v => [...v.querySelectorAll('.tv-scroll')].some(e => e.scrollWidth > e.clientWidth)")
            assert not wide, f"a table of {name} scrolls sideways"
        page.wait_for_timeout(150)  # for what follows a resize
        page.screenshot(path=pictures / f"page-{name}-{theme}-{width}.png", full_page=True)


def test_one_selection_lights_every_view(show: Show) -> None:
    page = show()
    page.get_by_role("option", name="k0 ").first.click()
    lit = {
        "overview": ".tv-lineRow.tv-lit",
        "graph": ".tv-box.tv-lit",
        "fusion": ".tv-edgerow.tv-lit",
        "kernel": ".tv-kernelrow.tv-lit",
        "timeline": ".tv-launch.tv-lit",
        "lines": "tr.tv-lit",
        "memory": "[data-slot].tv-lit",
        "roofline": ".tv-point.tv-lit",
    }
    for name, what in lit.items():
        page.get_by_role("tab", name=name, exact=True).click()
        expect(page.locator(f".tv-{name} {what}").first).to_be_attached()
        expect(page.locator(f".tv-{name} .tv-kernelrow.tv-lit, .tv-{name} .tv-launch.tv-lit")).to_have_count(
            {"overview": 2, "kernel": 1, "timeline": 1, "memory": 1, "roofline": 2}.get(name, 0)
        )


def test_the_wheel_scrolls_the_page_until_the_graph_has_the_focus(show: Show) -> None:
    page = show(width=900)
    page.get_by_role("tab", name="graph", exact=True).click()
    picture = page.locator(".tv-graph .tv-picture")

    def scale() -> str:
        layer: str = picture.locator("svg > g").get_attribute("transform") or ""
        return layer.rpartition("scale")[2]

    page.set_viewport_size({"width": 900, "height": 500})
    picture.hover(position={"x": 100, "y": 100})
    before = scale()
    page.mouse.wheel(0, 100)
    page.wait_for_function("scrollY > 0")
    assert scale() == before
    picture.focus()
    page.mouse.wheel(0, -300)
    page.wait_for_function(f"!document.querySelector('.tv-picture svg > g').getAttribute('transform').endsWith('scale{before}')")


def test_a_group_opens_without_moving_and_search_finds_nodes(show: Show) -> None:
    page = show()
    page.get_by_role("tab", name="graph", exact=True).click()
    graph = page.locator(".tv-graph")
    graph.get_by_role("combobox", name="group").select_option("kernel")
    graph.get_by_role("button", name="close all").click()
    group = graph.locator(".tv-box[data-shape='group']").filter(has_text="k1").first
    before = group.locator(".tv-body").bounding_box()
    assert before
    page.mouse.click(before["x"] + 12, before["y"] + before["height"] / 2)
    frame = graph.locator(".tv-frame[data-group='k1'] rect")
    expect(frame).to_be_attached()
    after = frame.bounding_box()
    assert after and abs(after["x"] - before["x"]) < 2 and abs(after["y"] - before["y"]) < 2

    graph.get_by_role("combobox", name="group").select_option("flat")
    search = graph.get_by_role("searchbox")
    search.fill("op:maximum phase:forward")
    expect(graph.locator(".tv-search [role=status]")).to_have_text("1 found")
    search.press("Enter")
    expect(graph.locator(".tv-box.tv-sel .tv-name")).to_have_text("maximum")
    search.fill("/(/")
    expect(graph.locator(".tv-search [role=status]")).to_have_text("not a regular expression")


def test_arrows_walk_through_the_graph(show: Show) -> None:
    page = show()
    page.get_by_role("tab", name="graph", exact=True).click()
    page.locator(".tv-graph .tv-picture").focus()
    seen = []
    for key in ["ArrowDown", "ArrowDown", "ArrowDown", "ArrowUp"]:
        page.keyboard.press(key)
        seen.append(page.locator(".tv-crumb").inner_text())
    assert len(set(seen)) >= 3 and seen[3] != seen[2]
    page.keyboard.press("Escape")
    expect(page.locator(".tv-crumb")).to_have_count(0)


def test_memory_steps_through_buffers_by_key_and_its_selection_goes_along(show: Show, sample: dict[str, Any]) -> None:
    page = show()
    page.get_by_role("tab", name="memory", exact=True).click()
    memory = page.locator(".tv-memory")
    assert memory.locator("[data-slot]").count() == len(sample["recording"]["programs"][0]["slots"])
    memory.get_by_role("application").focus()
    page.keyboard.press(".")
    expect(memory.locator("[data-slot].tv-sel")).to_have_count(1)
    first = memory.locator(".tv-card strong").inner_text()
    page.keyboard.press(".")
    expect(memory.locator(".tv-card strong")).not_to_have_text(first)
    page.keyboard.press(",")
    expect(memory.locator(".tv-card strong")).to_have_text(first)
    memory.get_by_role("button", name="role", exact=True).click()
    expect(memory.get_by_role("cell", name="temporary", exact=True)).to_be_visible()
    page.get_by_role("tab", name="roofline", exact=True).click()
    expect(page.locator(".tv-roofline .tv-kernelrow.tv-lit")).not_to_have_count(0)


def test_roofline_selects_from_its_list_its_picture_and_its_findings(show: Show, sample: dict[str, Any]) -> None:
    page = show()
    page.get_by_role("tab", name="roofline", exact=True).click()
    roofline = page.locator(".tv-roofline")
    points = sample["views"]["roofline"]["points"]
    expect(roofline.locator(".tv-point")).to_have_count(sum(bool(x["intensity"]) for x in points))
    roofline.get_by_role("listbox").focus()
    page.keyboard.press("ArrowDown")
    expect(roofline.locator(f".tv-point[data-kernel='{points[0]['kernel']}']")).to_have_class(re.compile("tv-lit"))
    finding = roofline.locator(".tv-finding").last
    finding.focus()
    page.keyboard.press("Enter")
    expect(finding).to_have_class(re.compile("tv-lit"))
    found = sample["views"]["roofline"]["diagnoses"]
    same = [x for x in found if found[-1]["kernel"] in (x["kernel"], *x["also"])]
    expect(roofline.locator(".tv-finding.tv-lit")).to_have_count(len(same))


def test_rows_are_walked_through_and_chosen_by_key(show: Show) -> None:
    page = show()
    for name, rows in (("lines", ".tv-linestable tbody tr"), ("timeline", ".tv-ledger tr[tabindex]")):
        page.get_by_role("tab", name=name, exact=True).click()
        row = page.locator(f".tv-{name} {rows}")
        row.first.focus()
        page.keyboard.press("ArrowDown")
        expect(row.nth(1)).to_be_focused()
        page.keyboard.press("Enter")
        expect(row.nth(1)).to_have_class("tv-lit tv-sel")
        page.keyboard.press("ArrowUp")
        expect(row.first).to_be_focused()
        assert page.locator(f".tv-{name} {rows}[tabindex='0']").count() == 1, "one stop of the Tab key for all rows"


def test_what_changed_is_walked_through_by_key(show: Show) -> None:
    x = tv.Tensor(np.ones((8, 8), np.float32))
    before, after = (Recording(record.build_lowered(tv.lower(f(x + 1).sum()))) for f in (tv.Tensor.relu, tv.Tensor.sigmoid))
    page = show(tv.compare(before, after).page)
    listed = page.locator(".tv-compare .tv-changes")
    changes = listed.get_by_role("option")
    kinds = changes.locator(".tv-where").all_inner_texts()
    assert any("added" in kind for kind in kinds) and any("removed" in kind for kind in kinds)
    listed.focus()
    for i, kind in enumerate(kinds):
        page.keyboard.press("ArrowDown")
        expect(changes.nth(i)).to_have_attribute("aria-selected", "true")
        expect(listed.locator("[aria-selected=true]")).to_have_count(1)
        expect(page.locator(".tv-crumb")).to_have_count(0 if "removed" in kind else 1)  # what went can be selected nowhere


def test_tables_and_steps_are_whole_on_a_phone(show: Show) -> None:
    x = tv.Tensor(np.ones((8, 8), np.float32))
    before, after = (Recording(record.build_lowered(tv.lower(f(x + 1).sum()))) for f in (tv.Tensor.relu, tv.Tensor.sigmoid))
    wide = "all => all.filter(e => e.scrollWidth > e.clientWidth).map(e => e.className)"
    page = show(tv.compare(before, after).page, width=400)
    tables = page.locator(".tv-compare > .tv-scroll")
    assert tables.count() == 3 and tables.evaluate_all(wide) == []
    lines = "all => all.map(e => e.getBoundingClientRect().height).filter(high => high > 30)"
    assert tables.locator("th").evaluate_all(lines) == [], "a heading is broken"
    page = show(width=400)
    for name, what in (("timeline", ".tv-ledger .tv-scroll"), ("stages", ".tv-step")):
        page.get_by_role("tab", name=name, exact=True).click()
        expect(page.locator(f".tv-{name} {what}").first).to_be_visible()
        assert page.locator(f".tv-{name} {what}").evaluate_all(wide) == []


def test_a_view_with_broken_data_fails_in_its_place(show: Show, sample: dict[str, Any]) -> None:
    data = copy.deepcopy(sample)
    data["views"]["graph"]["layout"] = "no such layout"
    data["views"]["fusion"]["edges"][0]["decision"] = 999_999
    data["views"]["kernel"]["rows"] = None
    data["views"]["timeline"]["error"] = "the timeline could not be made"
    page = show(data)
    for name in ("graph", "fusion", "kernel", "timeline"):
        page.get_by_role("tab", name=name, exact=True).click()
        expect(page.locator(f".tv-{name} [role=alert]")).to_contain_text(f"The view “{name}” failed")
        expect(page.locator(f".tv-{name} .tinyviz-text")).to_contain_text(sample["texts"][name].splitlines()[0])
    page.get_by_role("tab", name="overview", exact=True).click()
    expect(page.locator(".tv-overview .tv-kernelrow").first).to_be_visible()


@pytest.mark.parametrize("damage", ["recording", "views", "version", "none"])
def test_a_page_without_its_parts_says_so_and_leaves_its_text(show: Show, sample: dict[str, Any], damage: str) -> None:
    data = copy.deepcopy(sample)
    if damage == "version":
        data["recording"]["version"] = 99
    elif damage == "none":
        data["views"] = dict.fromkeys(data["views"])
    else:
        del data[damage]
    page = show(data)
    expect(page.get_by_role("alert")).to_contain_text("The view “explorer” failed")
    expect(page.locator(".tinyviz-text")).to_have_text("the text twin")


def test_names_with_markup_are_text(show: Show, sample: dict[str, Any]) -> None:
    evil = '<img src=x onerror="window.hit=1"><script>window.hit=1</script>'
    text = json.dumps(sample)
    data = json.loads(text)
    program = data["recording"]["programs"][0]
    data["recording"]["title"] = program["name"] = evil
    for table, columns in (
        (program["nodes"], ("op", "arg", "module", "derivative", "dtype")),
        (data["recording"]["lines"], ("text", "function")),
        (data["recording"]["rules"], ("name", "reason", "file")),
    ):
        for column in columns:
            table[column] = [evil] * len(table[column])
    for kernel in program["kernels"]:
        kernel["name"] = kernel["bound"] = evil
        kernel["schedule"] = [evil]
        kernel["source"]["text"] = [evil] * len(kernel["source"]["text"])
    for decision in program["decisions"]:
        decision["reason"] = decision["subject"] = evil
        decision["alternatives"] = {evil: evil}
        decision["numbers"] = {evil: 1.0}
    for file in data["recording"]["files"]:
        file["name"] = evil
    for view in filter(None, data["views"].values()):
        view["title"], view["howto"] = evil, [evil] * 3
        for category in view["legend"]:
            category["label"], category["mark"], category["light"] = evil, evil, "red;}*{color:red}"
    page = show(data)
    for name in views.NAMES:
        page.get_by_role("tab", name=name, exact=True).click()
        expect(page.locator(f".tv-view.tv-{name}")).to_be_visible()
        for summary in page.locator(f".tv-view.tv-{name} details summary").all():
            summary.click()
        row = page.locator(f".tv-view.tv-{name} [role=option], .tv-view.tv-{name} tr[tabindex='0']")
        if row.count():
            row.first.click()
    assert page.locator(".tinyviz img, .tinyviz script").count() == 0
    assert page.evaluate("window.hit") is None


def in_view(page: Page, pane: str, line: str) -> bool:
    """Whether the first such line is inside of its pane."""
    seen: bool = page.evaluate(
        """([pane, line]) => {
            const [outer, inner] = [document.querySelector(pane), document.querySelector(`${pane} ${line}`)];
            const [a, b] = [outer.getBoundingClientRect(), inner.getBoundingClientRect()];
            return b.top >= a.top - 2 && b.bottom <= a.bottom + 2;
        }""",
        [pane, line],
    )
    return seen


def test_what_is_lit_is_brought_into_view(show: Show) -> None:
    page = show(width=1400)
    page.get_by_role("tab", name="kernel", exact=True).click()
    loops = page.locator(".tv-kernel [data-pane=loops] .tv-codeline[data-id]")
    for line in (loops.last, loops.first):
        line.click()
        for pane in ("llvm", "assembly"):
            if page.locator(f".tv-kernel [data-pane={pane}] .tv-codeline.tv-lit").count():
                assert in_view(page, f".tv-kernel [data-pane={pane}] .tv-code", ".tv-codeline.tv-lit"), pane
    assert page.locator(".tv-kernel [data-pane=assembly] .tv-codeline.tv-lit").count()
    page.keyboard.press("Escape")
    page.get_by_role("tab", name="fusion", exact=True).click()
    page.locator(".tv-fusion .tv-edgerow").last.click()
    page.get_by_role("tab", name="overview", exact=True).click()
    page.get_by_role("tab", name="fusion", exact=True).click()
    assert in_view(page, ".tv-fusion .tv-edges", ".tv-edgerow.tv-sel")


def test_an_edge_opens_the_kernel_that_it_stands_in(show: Show, sample: dict[str, Any]) -> None:
    page = show(width=1400)
    page.get_by_role("tab", name="fusion", exact=True).click()
    frames = page.locator(".tv-fusion .tv-frame")
    for _ in range(frames.count()):
        box = frames.first.locator("rect").bounding_box()
        assert box
        page.mouse.click(box["x"] + 9, box["y"] + 9)
    edge = next(e for e in sample["views"]["fusion"]["edges"] if e["producer"] != e["consumer"] and e["verdict"] == "inline")
    page.locator(f".tv-fusion .tv-edgerow[data-id='0.{edge['decision']}']").click()
    for node in (edge["producer"], edge["consumer"]):
        expect(page.locator(f".tv-fusion .tv-box[data-id='0.{node}']").first).to_have_class(re.compile("tv-lit"))


def test_another_program_of_the_recording_is_one_choice_away(show: Show, sample: dict[str, Any]) -> None:
    data = copy.deepcopy(sample)
    programs, views_ = data["recording"]["programs"], copy.deepcopy(data["views"])
    programs += [copy.deepcopy(programs[0]), copy.deepcopy(programs[0])]
    programs[1]["name"], programs[2]["name"] = "evaluation", "too large to be on the page"
    programs[1]["kernels"][0]["name"] = "other_kernel"
    for view in filter(None, views_.values()):
        view["program"] = 1
    data["more"] = [{"program": 1, "views": views_, "texts": data["texts"]}]
    page = show(data)
    expect(page.locator(".tv-crumbs")).to_contain_text("training step")
    choice = page.get_by_role("combobox", name="program")
    expect(choice.locator("option")).to_have_count(3)
    expect(choice.locator("option").nth(2)).to_be_disabled()
    page.get_by_role("tab", name="kernel", exact=True).click()
    choice.select_option("1")
    expect(page.get_by_role("tab", name="kernel", exact=True)).to_have_attribute("aria-selected", "true")
    expect(page.locator(".tv-kernel .tv-kernelrow").first).to_contain_text("other_kernel")
    expect(page.locator(".tv-crumbs")).to_contain_text("evaluation")
    page.locator(".tv-kernel .tv-kernelrow").first.click()
    expect(page.locator(".tv-crumb")).to_contain_text("other_kernel")


def test_a_click_on_an_element_goes_to_the_iteration_that_writes_it(show: Show) -> None:
    page = show(width=1400)
    page.get_by_role("tab", name="addresses", exact=True).click()
    view = page.locator(".tv-addresses")
    view.get_by_role("combobox", name="kernel").select_option("0")
    written = view.locator("figure.tv-buffer").filter(has_text="written").first
    before = written.locator(".tv-faint").inner_text()
    box = written.locator("svg").bounding_box()
    assert box
    page.mouse.click(box["x"] + 3, box["y"] + 3)
    written = view.locator("figure.tv-buffer").filter(has_text="written").first
    expect(written.locator(".tv-faint")).not_to_have_text(before)
    expect(written.locator(".tv-faint")).to_contain_text("written [0")
    sliders = view.locator(".tv-loop").filter(has_text="for").get_by_role("slider")
    assert [sliders.nth(i).input_value() for i in range(sliders.count())] == ["0"] * sliders.count()


def test_a_module_can_be_selected_and_lights_its_lines_and_kernels(show: Show, sample: dict[str, Any]) -> None:
    page = show(width=1400)
    page.get_by_role("tab", name="graph", exact=True).click()
    graph = page.locator(".tv-graph")
    graph.get_by_role("button", name="close all").click()
    box = graph.locator(".tv-box[data-shape='group']").filter(has_text="model").first.locator(".tv-body").bounding_box()
    assert box
    page.mouse.click(box["x"] + box["width"] - 8, box["y"] + 8)
    expect(page.locator(".tv-crumb")).to_have_text("module model")
    page.get_by_role("tab", name="lines", exact=True).click()
    lit = page.locator(".tv-lines tr.tv-lit")
    expect(lit.filter(has_text="self.fc1(x)")).to_have_count(1)
    expect(lit.filter(has_text="optimizer.step()")).to_have_count(0)
    page.get_by_role("tab", name="kernel", exact=True).click()
    assert 2 <= page.locator(".tv-kernel .tv-kernelrow.tv-lit").count() < len(sample["recording"]["programs"][0]["kernels"])


def test_a_part_of_the_optimizer_lights_its_line_and_kernels(show: Show) -> None:
    page = show(width=1400)
    page.get_by_role("tab", name="graph", exact=True).click()
    graph = page.locator(".tv-graph")
    graph.get_by_role("combobox", name="group").select_option("module")
    graph.get_by_role("button", name="close all").click()
    box = graph.locator(".tv-box[data-shape='group']").filter(has_text="optimizer").first.locator(".tv-body").bounding_box()
    assert box
    page.mouse.click(box["x"] + box["width"] - 8, box["y"] + 8)
    for name, what in {"lines": "tr.tv-lit", "kernel": ".tv-kernelrow.tv-lit", "timeline": ".tv-launch.tv-lit"}.items():
        page.get_by_role("tab", name=name, exact=True).click()
        expect(page.locator(f".tv-{name} {what}").first).to_be_attached()
    page.get_by_role("tab", name="lines", exact=True).click()
    expect(page.locator(".tv-lines tr.tv-sel")).to_contain_text("optimizer.step()")
