"""In Chromium, on a tiny workspace: five mispredictions of a confusion cell, corrected together, kept."""

import json
import re
import urllib.parse

import pytest
from browser import choose, chromium, fill, keyed, open_page, picture, press, query, settled, tiny_app
from playwright.sync_api import expect

from influence_core.events import SetStep
from influence_core.runs.directory import RunDirectory
from influence_core.specs import CorrectionSetSpec
from influence_core.workspace import Workspace
from pages.components import correction_settings as settings
from pages.components.correction_set import START

pytestmark = pytest.mark.browser

CHART = ".js-plotly-plot"


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with tiny_app(tmp_path_factory.mktemp("many")) as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


def test_five_of_a_confusion_cell_to_a_kept_checkpoint(app, browser):
    workspace = Workspace.open(Workspace.names()[0])
    wrong = workspace.mispredictions()
    true = max((0, 1), key=lambda label: int((wrong["label"] == label).sum()))
    cell = wrong[wrong["label"] == true]
    assert len(cell) >= 5
    page = open_page(browser)
    page.goto(f"{app.url}/mispredictions")
    settled(page)
    assert page.locator(keyed(page, "correct_together")).count() == 0  # nothing is narrowed down yet
    names = workspace.label_names
    word = "false negatives" if true == names.index("positive") else "false positives"
    page.get_by_role("combobox", name="Rows").click()
    page.get_by_role("option", name=re.compile(word)).first.click()
    settled(page)
    picture(page, "together-choice-light")
    press(page, "correct_together")
    expect(page.get_by_role("heading", name="Correct 5 rows together")).to_be_visible()
    settled(page)
    ids = json.loads(urllib.parse.unquote_plus(str(query(page, "set"))))
    assert ids == cell.sort_values("confidence", ascending=False, kind="stable")["id"].tolist()[:5]

    # a reload keeps the set; then fewer rows, and a rate at which they flip
    page.reload()
    expect(page.get_by_role("heading", name="Correct 5 rows together")).to_be_visible()
    settled(page)
    fill(page, settings.K, "4")
    fill(page, settings.BATCH, "16")
    choose(page, "Optimizer", "SGD")
    fill(page, settings.RATE + "sgd", "0.1")
    picture(page, "together-settings-light")
    press(page, START)
    page.wait_for_url(re.compile("run="))
    run = RunDirectory.open(str(query(page, "run")))
    page.reload()
    expect(page.locator(keyed(page, f"keep_{run.id}")).first).to_be_visible(timeout=300_000)
    settled(page)
    assert run.state().state == "finished"
    spec = run.spec()
    assert isinstance(spec, CorrectionSetSpec)
    assert (list(spec.examples), spec.k, spec.group_by) == (ids, 4, "example")
    steps = [event for event in run.events()[0] if isinstance(event, SetStep)]
    expect(page.get_by_text(f"{steps[-1].flipped} of 5 are predicted as desired after").first).to_be_visible()
    expect(page.locator(CHART)).to_have_count(4)
    expect(page.get_by_role("region", name="Which row flipped when")).to_be_visible()
    picture(page, "together-light")

    # kept, and what was kept predicts what the run did
    page.get_by_role("textbox", name="Name", exact=True).fill("five")
    page.get_by_role("textbox", name="Name", exact=True).press("Enter")
    settled(page)
    page.get_by_role("button", name="Keep as checkpoint").click()
    expect(page.get_by_text("Kept as checkpoint five")).to_be_visible()
    after = workspace.predictions("test", "five").set_index("id")["prediction"]
    assert [names[after[each.example]] for each in steps[-1].examples] == [
        each.prediction for each in steps[-1].examples
    ]
    page.context.close()

    dark = open_page(browser, "dark")
    dark.goto(f"{app.url}/correct?run={run.id}")
    expect(dark.locator(CHART)).to_have_count(4)
    settled(dark)
    picture(dark, "together-dark")
    dark.goto(f"{app.url}/correct?set={urllib.parse.quote(json.dumps(ids))}")
    expect(dark.get_by_role("heading", name="Correct 5 rows together")).to_be_visible()
    picture(dark, "together-settings-dark")
    dark.context.close()
