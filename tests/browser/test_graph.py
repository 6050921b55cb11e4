"""The graph view: parts that open on demand, figures, neighbourhoods, search; and ten thousand nodes on one canvas."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tinyviz import codec, layout, wire
from tinyviz.explore import page as page_of
from tinyviz.views.graph import operands

Show = Callable[..., Page]
COPIES = 90


@pytest.fixture(scope="session")
def large(sample: dict[str, Any]) -> dict[str, Any]:
    """The sample's step 90 times beside itself, as modules of one model: about ten thousand nodes."""
    r: wire.Recording = codec.from_json(wire.Recording, json.loads(json.dumps(sample["recording"])))
    p = r.programs[0]
    src, once = operands(p, p.simplified), p.simplified
    place = {n: i for i, n in enumerate(once)}
    nodes = wire.Nodes(*([] for _ in vars(p.nodes)))
    for copy in range(COPIES):
        base = copy * len(once)
        for n in once:
            for name, column in vars(p.nodes).items():
                getattr(nodes, name).append(column[n])
            nodes.src[-1] = [base + place[s] for s in src[n]]
            forward = nodes.forward[-1]
            nodes.forward[-1] = base + place[forward] if forward in place else -1
            nodes.module[-1] = nodes.module[-1] and nodes.module[-1].replace("model", f"model.blocks.{copy}")
            nodes.lines[-1] = nodes.lines[-1][:1]
    kernels = []
    for copy in range(COPIES):
        for k in p.kernels:
            empty = wire.Code()
            made = [copy * len(once) + place[n] for n in k.nodes if n in place]
            weights = [w for n, w in zip(k.nodes, k.weights, strict=True) if n in place]
            kernels.append(wire.Kernel(k.name, made, empty, [], empty, empty, empty, seconds_predicted=1e-6, weights=weights))
    p.nodes, p.kernels, p.simplified, p.recorded = nodes, kernels, list(range(len(nodes))), list(range(len(nodes)))
    p.roots, p.stages, p.decisions, p.calls, p.slots, p.launches = [], [], [], [], [], wire.Launches()
    p.layouts = {"simplified": layout.layout(nodes, p.simplified, nodes.src)}
    return page_of(r, ("graph",), "graph")  # type: ignore[no-any-return]


def graph_of(page: Page) -> Locator:
    page.get_by_role("tab", name="graph", exact=True).click()
    return page.locator(".tv-graph")


def test_parts_open_on_demand_and_the_search_opens_them(show: Show) -> None:
    page = show()
    graph = graph_of(page)
    expect(graph.get_by_role("combobox", name="group")).to_have_value("module")
    optimizer = graph.locator(".tv-box[data-shape='group']").filter(has_text="optimizer")
    assert 10 < graph.locator(".tv-box").count() <= 45, "some parts are open at first"
    graph.get_by_role("button", name="close all").click()
    expect(graph.locator(".tv-box")).to_have_count(3)
    expect(optimizer).to_have_count(1)
    search = graph.get_by_role("searchbox")
    search.fill("phase:optimizer op:assign")
    expect(graph.locator(".tv-search [role=status]")).to_have_text(re.compile(r"\d+ found"))
    expect(optimizer).to_have_class(re.compile("tv-found"))
    search.press("Enter")
    expect(graph.locator(".tv-box.tv-sel .tv-name")).to_have_text("assign")
    expect(optimizer).to_have_count(0)
    expect(graph.locator(".tv-graphpath button")).to_have_text(
        ["all", "optimizer", re.compile("weight|bias"), re.compile("assign")]
    )


def test_a_gradient_stands_beside_its_forward_node_and_names_its_rule(show: Show) -> None:
    page = show()
    graph = graph_of(page)
    graph.get_by_role("button", name="open all").click()
    forward = graph.locator(".tv-box").filter(has_text="maximum").filter(has_not_text="d-").first
    gradients = graph.locator(".tv-box").filter(has_text="d-maximum").filter(has_text="phase: backward")
    assert gradients.count() >= 2
    a = forward.locator(".tv-body").bounding_box()
    assert a
    boxes = [box.locator(".tv-body").bounding_box() for box in gradients.all()]
    assert all(b and b["x"] > a["x"] and abs(b["y"] - a["y"]) < 2.5 * a["height"] for b in boxes)
    graph.get_by_role("checkbox", name="gradients").uncheck()
    expect(gradients).to_have_count(0)


def test_figures_mark_nodes_and_parts_and_say_what_they_are(show: Show) -> None:
    page = show()
    graph = graph_of(page)
    mark = graph.get_by_role("combobox", name="mark")
    for name in ("time", "bytes", "FLOPs", "memory"):
        mark.select_option(name)
        expect(graph.locator(".tv-graphnote")).to_contain_text("a full bar is the most")
        assert graph.locator(".tv-bar").count() > 3
        assert graph.locator(".tv-box .tv-small").filter(has_text="%").count() > 3
    mark.select_option("dtype")
    expect(graph.locator(".tv-graphnote .tv-key")).to_have_count(3)  # float32, int32, bool
    assert graph.locator(".tv-letter text", has_text="S").count() > 3


def test_the_neighbourhood_of_a_node(show: Show) -> None:
    page = show()
    graph = graph_of(page)
    expect(graph.get_by_role("button", name="around it")).to_be_disabled()
    search = graph.get_by_role("searchbox")
    search.fill("op:maximum")
    search.press("Enter")
    graph.locator(".tv-picture").focus()
    page.keyboard.press("n")
    near = graph.locator(".tv-box").count()
    expect(graph.locator(".tv-graphnote")).to_contain_text(f"{near} nodes within 2 steps of")
    graph.get_by_role("combobox", name="steps").select_option("1")
    assert 3 <= graph.locator(".tv-box").count() < near
    graph.get_by_role("button", name="show all").click()
    expect(graph.get_by_role("button", name="show all")).to_be_hidden()


def test_ten_thousand_nodes(show: Show, large: dict[str, Any]) -> None:
    """First a few closed parts; flat, one canvas on which a frame paints only what is in view."""
    total = len(large["recording"]["programs"][0]["nodes"]["op"])
    assert total > 10_000
    page = show(large)
    graph = page.locator(".tv-graph")
    expect(graph.get_by_role("application")).to_have_attribute("aria-label", re.compile(f"^{total} nodes"))
    assert 2 <= graph.locator(".tv-box").count() <= 45
    page.evaluate(
        """() => {
            window.drawn = { frames: 0, texts: 0 };
            const { clearRect, fillText } = CanvasRenderingContext2D.prototype;
            CanvasRenderingContext2D.prototype.clearRect = function (...a) {
                if (this.canvas.classList.contains('tv-drawing')) drawn.frames++;
                return clearRect.apply(this, a);
            };
            CanvasRenderingContext2D.prototype.fillText = function (...a) { drawn.texts++; return fillText.apply(this, a); };
        }"""
    )
    graph.get_by_role("combobox", name="group").select_option("flat")
    expect(graph.locator("canvas.tv-drawing")).to_have_count(1)
    assert graph.locator(".tv-box").count() == 0
    picture = graph.locator(".tv-picture")
    picture.focus()
    page.wait_for_function("drawn.frames > 0")
    page.evaluate("() => void Object.assign(drawn, { frames: 0, texts: 0 })")
    moved = page.evaluate(
        """async () => {
            const picture = document.querySelector('.tv-picture');
            for (let i = 0; i < 10; i++) {
                const key = { key: 'ArrowRight', shiftKey: true, bubbles: true };
                for (let j = 0; j < 5; j++) picture.dispatchEvent(new KeyboardEvent('keydown', key));
                await new Promise(requestAnimationFrame);
            }
            return drawn;
        }"""
    )
    assert 0 < moved["frames"] <= 11, "at most one painting for each frame of the screen, however many events"
    assert moved["texts"] < 600 * moved["frames"], "what is not in view is not painted"

    search = graph.get_by_role("searchbox")
    search.fill(f"module:blocks.{COPIES - 1}.fc2 op:sum phase:forward")
    expect(graph.locator(".tv-search [role=status]")).to_have_text("1 found")
    graph.get_by_role("combobox", name="group").select_option("module")
    search.press("Enter")
    path = ["all", "model", "blocks", str(COPIES - 1), "fc2", re.compile("sum")]
    expect(graph.locator(".tv-graphpath button")).to_have_text(path)
