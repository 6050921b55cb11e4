"""What-ifs, edited schedules and tuning: asked for by clicks, answered by the kernel, on copies."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator, expect

from .jupyter import MINUTE, Notebook

Open = Callable[..., Notebook]

# what the tuner finds here is for this notebook alone
PROGRAM = """
import os, tempfile
os.environ["TINYENGINE_CACHE"] = tempfile.mkdtemp()
import numpy as np
import tinyviz as tv
%load_ext tinyviz
x = tv.Tensor(np.random.default_rng(0).standard_normal((64, 100)).astype(np.float32))
lowered = tv.lower(x.softmax(1))
lowered
"""
SAME = """
np.testing.assert_array_equal(x.numpy(), np.random.default_rng(0).standard_normal((64, 100)).astype(np.float32))
print(tv.pins(), len(lowered.plan.calls))
"""


def show(notebook: Notebook, view: str) -> Locator:
    notebook.cell(0).get_by_role("tab", name=view, exact=True).click()
    return notebook.cell(0).locator(f".tv-view.tv-{view}")


def opened(open_notebook: Open, *more: str) -> Notebook:
    notebook = open_notebook([PROGRAM, *more])
    notebook.run(0)
    expect(notebook.cell(0).locator("[data-live=true]").first).to_be_visible(timeout=MINUTE)
    return notebook


def test_a_what_if_is_answered_with_numbers_and_a_pin_that_works(open_notebook: Open, pictures: Path) -> None:
    notebook = opened(open_notebook, SAME, "")
    place = show(notebook, "fusion")
    place.get_by_role("option", name=re.compile("exp → .*sum")).click()
    asked = place.locator(".tv-whatif")
    expect(asked.get_by_role("button", name="at loop")).to_be_disabled()
    asked.get_by_role("button", name="whole").click()
    answer = asked.locator(".tv-outcome")
    expect(answer).to_contain_text("exp -> %5 sum would be whole", timeout=MINUTE)
    rows = answer.locator("tbody tr")
    expect(rows.nth(0)).to_contain_text("compiled anew: max_exp_64x100, sum_div_64x100")
    expect(rows.nth(0).locator("td").nth(1)).to_have_text("1")
    expect(rows.nth(0).locator("td").nth(2)).to_have_text("2")
    expect(rows.nth(3)).to_contain_text(re.compile(r"half of \d+ runs"))
    expect(rows.nth(4)).to_contain_text("ulp")
    expect(answer.locator(".tv-strip")).to_be_visible()
    line = answer.locator(".tv-pin").inner_text()
    assert re.fullmatch(r'tv\.pin\("exp->sum\.0 [0-9a-f]{10}", "whole"\)', line)
    answer.get_by_role("button", name="copy the line").click()
    notebook.shoot(pictures, "what-if")

    # asked again, the answer is there at once; another verdict is another question
    asked.get_by_role("button", name="inline").click()
    expect(answer).to_contain_text("would be inline", timeout=MINUTE)
    asked.get_by_role("button", name="whole").click()
    expect(answer).to_contain_text("would be whole")

    notebook.run(1)  # the page's questions have changed nothing
    assert notebook.text(1).strip() == "{} 1"
    notebook.replace(2, f"{line}\nprint(len(tv.lower(x.softmax(1)).plan.calls))")
    notebook.run(2)
    assert notebook.text(2).strip() == "2"


def test_a_verdict_that_cannot_be_followed_says_why(open_notebook: Open) -> None:
    place = show(opened(open_notebook), "fusion")
    place.get_by_role("option", name=re.compile("max .*→ .*sub")).click()
    place.locator(".tv-whatif").get_by_role("button", name="inline").click()
    answer = place.locator(".tv-outcome")
    expect(answer).to_contain_text("not legal: the reduction would run 100 times per result", timeout=MINUTE)
    expect(place.locator(".tv-outcome .tv-pin")).to_have_count(0)


def test_a_schedule_is_edited_checked_and_restored(open_notebook: Open, pictures: Path) -> None:
    notebook = opened(open_notebook, SAME)
    place = show(notebook, "kernel")
    lines = place.locator(".tv-lines input")
    own = [lines.nth(i).input_value() for i in range(lines.count())]
    (first,) = [i for i, line in enumerate(own) if re.fullmatch(r"vectorize\(j, (8|16)\)", line)]  # by the machine's vectors

    # a legal edit: checked, measured, and its code in the columns
    lines.nth(first).fill("vectorize(j, 4)")
    lines.nth(first).press("Enter")
    answer = place.locator(".tv-tryanswer")
    expect(answer).to_contain_text("✓ equal to the reference interpreter", timeout=MINUTE)
    expect(answer.locator(".tv-strip")).to_be_visible()
    expect(answer.locator(".tv-pin")).to_contain_text('tv.pin("max_sum_div_64x100 ')
    expect(place.locator(".tv-editnote")).to_have_text("the columns show your edit")
    expect(place.locator('.tv-panes [data-pane="loops"]').last).to_contain_text("step 4")
    notebook.shoot(pictures, "schedule-edit")

    # one that is not legal: the reason stands at its line
    place.get_by_role("button", name="+ add a primitive").click()
    added = lines.nth(lines.count() - 1)
    added.fill("vectorize(i, 4)")
    added.press("Enter")
    expect(place.locator(".tv-lines li").last).to_contain_text("vectorize(i, 4): i already contains vectors", timeout=MINUTE)
    expect(answer).to_contain_text("is not legal")

    # order, removal, and the trail
    place.get_by_role("button", name=f"remove: primitive {len(own) + 1}").click()
    expect(answer).to_contain_text("✓ equal", timeout=MINUTE)
    place.locator("summary", has_text="trail of attempts").click()
    trail = place.locator(".tv-trail li")
    expect(trail).to_have_count(4)
    expect(trail.nth(2)).to_contain_text("not legal")
    place.get_by_role("button", name="restore attempt 1").click()
    expect(place.locator(".tv-editnote")).to_have_text("")
    assert [lines.nth(i).input_value() for i in range(lines.count())] == own

    notebook.run(1)
    assert notebook.text(1).strip() == "{} 1"


def test_the_tuner_draws_its_landscape_and_an_iteration_its_addresses(open_notebook: Open, pictures: Path) -> None:
    notebook = opened(open_notebook)
    place = show(notebook, "kernel")
    place.locator("summary", has_text="tuning").click()
    place.get_by_role("combobox", name="for").select_option("1")
    place.get_by_role("button", name="tune this kernel").click()
    marks = place.locator(".tv-landscape .tv-attempt")
    expect(marks.first).to_be_visible(timeout=MINUTE)
    expect(place.locator('.tv-attempt[data-verdict="default"]')).to_have_count(1)
    assert marks.count() >= 2
    marks.nth(1).click()  # its schedule goes into the editor
    expect(place.locator(".tv-tryanswer")).to_contain_text("✓ equal", timeout=MINUTE)

    place.locator("summary", has_text="iteration space").click()
    x = place.locator("figure.tv-buffer").first
    expect(x).to_contain_text("read [0, 0–99]")
    place.get_by_role("button", name="next iteration of i").click()
    expect(x).to_contain_text("read [1, 0–99]")
    place.get_by_label("all iterations of i").check()
    expect(x).to_contain_text("(first 4096 points)")
    notebook.shoot(pictures, "tuning")


def test_without_the_kernel_the_controls_say_so(open_notebook: Open) -> None:
    notebook = opened(open_notebook)
    notebook.save()
    notebook.restart()
    expect(notebook.cell(0).locator(".tinyviz").first).to_have_attribute("data-live", "false")
    place = show(notebook, "fusion")
    place.locator(".tv-edgerow").nth(1).click()
    expect(place.locator(".tv-whatif")).to_contain_text("this needs a live kernel")
    expect(place.locator(".tv-whatif")).to_contain_text('lowered.what_if((')
    assert place.locator(".tv-whatif button:enabled").count() == 0
    place = show(notebook, "kernel")
    expect(place).to_contain_text("Editing: this needs a live kernel")
    place.locator("summary", has_text="iteration space").click()
    place.get_by_role("button", name="next iteration of i").click()
    expect(place.locator("figure.tv-buffer").first).to_contain_text("read [1, 0–99]")
