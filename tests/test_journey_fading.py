"""The Fading page in Chromium on a tiny workspace: start, reload half-way, re-attach, pause, go on, finish."""

import re

import pytest
from browser import chromium, fill, keyed, open_page, picture, press, query, settled, tiny_app
from playwright.sync_api import expect

from influence_core.events import Fading
from influence_core.runs.directory import RunDirectory
from influence_core.workspace import Workspace
from pages.components import fading_form as form

pytestmark = pytest.mark.browser

CHART = ".st-key-fading_chart .js-plotly-plot"
STEPS = 150  # enough of them that a run can be met half-way


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with tiny_app(tmp_path_factory.mktemp("fading")) as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


def place(run):
    """Where a run is: (repeat, step)."""
    steps = [event for event in run.events()[0] if isinstance(event, Fading)]
    return (steps[-1].repeat, steps[-1].step) if steps else (0, 0)


def wait_for(page, run, repeat, step):
    for _ in range(3000):  # a loaded machine takes its time to start the engine
        if place(run) >= (repeat, step):
            return
        assert not run.state().is_over, run.state()
        page.wait_for_timeout(100)
    raise AssertionError(f"the run is at {place(run)}")


def test_from_the_presets_to_a_finished_measurement(app, browser):
    page = open_page(browser)
    page.goto(f"{app.url}/fading")
    settled(page)
    expect(page.get_by_text("the prediction stops matching what happens")).to_be_visible()
    links = page.get_by_test_id("stSidebar").get_by_role("link")
    expect(links.last).to_have_text(re.compile("Results$"))
    assert [link.split()[-1] for link in links.all_inner_texts()[-4:]] == ["Correct", "Fading", "Runs", "Results"]

    # the careful preset, then smaller
    page.get_by_text("A careful look").click()
    settled(page)
    page.get_by_text("More settings").click()
    settled(page)
    for key, value in (
        (form.STEPS, STEPS),
        (form.TRAIN, 6),
        (form.TEST, 5),
        (form.REPEATS, 2),
        (form.RATE + "sgd", 0.5),
    ):
        fill(page, key, str(value))
    expect(page.get_by_text(f"2 repeats of 6 × 5 rows, {STEPS} steps", exact=True)).to_be_visible()
    press(page, form.START)
    page.wait_for_url(re.compile("run="))
    run = RunDirectory.open(str(query(page, "run")))

    # reloaded half-way: a new session reads the run from its beginning and goes on following it
    wait_for(page, run, 1, 2)
    expect(page.locator(CHART).last).to_be_visible()  # one that was on the page before may still be fading out
    page.reload()
    expect(page.get_by_text(re.compile("measured so far: repeat [12] of 2, step"))).to_be_visible()
    expect(page.locator(CHART).last).to_be_visible()
    picture(page, "fading-live-light")

    # pause within the second repeat: the first is kept
    wait_for(page, run, 2, 1)
    press(page, f"pause_{run.id}")
    expect(page.get_by_text("Paused. 1 of 2 repeats is finished and kept.")).to_be_visible()
    assert run.state().state == "finished"
    repeat, step = place(run)
    assert repeat == 2
    assert step < STEPS
    expect(page.get_by_text("One repeat: the band is a bootstrap over its training rows")).to_be_visible()

    # go on: another run of the same settings, whose first repeat comes from what is kept
    press(page, f"go_on_{run.id}")
    page.wait_for_url(lambda url: "run=" in url and run.id not in url)
    again = RunDirectory.open(str(query(page, "run")))
    assert again.spec() == run.spec()
    assert again.wait(300).state == "finished"
    first = [[event for event in each.events()[0] if isinstance(event, Fading)][:STEPS] for each in (run, again)]
    assert first[0] == first[1]
    expect(page.locator(keyed(page, f"pause_{again.id}"))).to_have_count(0)
    expect(page.get_by_text("95 % interval over 2 repeats: over so few it is wide")).to_be_visible()
    expect(page.get_by_text("The match of scores with what happens went from")).to_be_visible()
    expect(page.get_by_role("button", name=re.compile("Measure up to 5 repeats"))).to_be_visible()
    expect(page.locator(CHART)).to_have_count(1)
    picture(page, "fading-light")
    page.context.close()

    # the same address in the dark; the names of checkpoint and workspace are there without a session
    dark = open_page(browser, "dark")
    dark.goto(f"{app.url}/fading?run={again.id}")
    settled(dark)
    name = Workspace.names()[0]
    expect(dark.get_by_text(re.compile(f"This measurement: {re.escape(name)}, checkpoint"))).to_be_visible()
    expect(dark.locator(CHART).last).to_be_visible()
    picture(dark, "fading-dark")
    dark.context.close()
