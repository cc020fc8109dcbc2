"""The one journey, in Chromium, on the real demo: from the first page to a kept checkpoint.

With ``INFLUENCE_SCREENSHOTS`` set to a folder its pictures are left there (the README's are made so).
"""

import re
import shutil

import pytest
from browser import App, choose, chromium, keyed, open_page, picture, press, query, served, settled
from homes import living_in
from playwright.sync_api import expect

from influence_core.demo.prepare import prepare
from influence_core.labels import LabelStore
from influence_core.runs.directory import RunDirectory
from influence_core.settings import METHOD_NAMES
from influence_core.specs import RankSpec
from influence_core.spectrum import spectrum
from influence_core.workspace import Workspace

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("journey") / "home"


@pytest.fixture(scope="module", autouse=True)
def app(home):
    """The demo, prepared in a home that this process shares with the app."""
    with living_in(home):
        list(prepare())
        with served(home) as server:
            yield server


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


DARK = pytest.param("dark", "plot", "with-bo", marks=pytest.mark.full)  # the same steps once more take five minutes


@pytest.mark.parametrize(("scheme", "word", "name"), [("light", "minute", "with-ann"), DARK])
def test_from_the_first_page_to_a_kept_checkpoint(app, browser, scheme, word, name):
    workspace = Workspace.open("demo:movie-reviews")
    page = open_page(browser, scheme)

    # Mispredictions: nothing clicked yet
    page.goto(app.url)
    settled(page)
    background = page.evaluate("getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor")
    assert (max(int(part) for part in re.findall(r"\d+", background)[:3]) < 60) == (scheme == "dark"), background
    expect(page.get_by_text("151 of 1,043 wrong · showing 151")).to_be_visible()
    expect(page.locator(".js-plotly-plot").first).to_be_visible()
    picture(page, f"mispredictions-{scheme}")

    # click a cell of the confusion matrix, clear, filter by a word, explain a row that is left
    wrong = workspace.mispredictions()
    names = list(workspace.label_names)
    false_negatives = ((wrong["label"] == 1) & (wrong["prediction"] == 0)).sum()
    page.locator(".js-plotly-plot .points path").nth(2).click(force=True)  # true positive, predicted negative
    expect(page.get_by_text(re.compile(f"showing {false_negatives} "))).to_be_visible()
    page.get_by_role("button", name="Clear filters").click()
    expect(page.get_by_text("151 of 1,043 wrong · showing 151")).to_be_visible()
    page.get_by_role("textbox", name="Text contains").fill(word)
    page.get_by_role("textbox", name="Text contains").press("Enter")
    settled(page)
    left = wrong[wrong["text"].str.contains(word, case=False)]
    expect(page.get_by_text(f"151 of 1,043 wrong · showing {len(left)}")).to_be_visible()
    row = left.iloc[-1]  # the least confident of them flips soonest
    example, desired = row["id"], names[row["label"]]
    press(page, f"open_{example}")

    # Influence: proponents from the index at once, then opponents
    expect(page.get_by_role("heading", name="Influence")).to_be_visible()
    settled(page)
    assert query(page, "example") == example
    ranking = workspace.rank(example)
    expect(page.get_by_text(ranking.proponents[0].text, exact=True).first).to_be_visible()
    expect(page.get_by_text("supports").first).to_be_visible()
    picture(page, f"influence-{scheme}")
    page.get_by_role("radio", name="Opponents").or_(page.get_by_role("button", name="Opponents")).first.click()
    expect(page.get_by_text(ranking.opponents[0].text, exact=True).first).to_be_visible()
    expect(page.get_by_text("opposes").first).to_be_visible()
    page.get_by_role("radio", name="Proponents").or_(page.get_by_role("button", name="Proponents")).first.click()
    settled(page)

    # another method has its own settings, and the spectrum shows why one of them fails
    choose(page, "Method", METHOD_NAMES["hif-cg"])
    expect(page.get_by_text("These scores are not computed yet.")).to_be_visible()
    page.get_by_role("button", name="Settings").click()
    expect(page.get_by_role("spinbutton", name="Damping")).to_have_value("0")
    page.keyboard.press("Escape")
    choose(page, "Method", METHOD_NAMES["abif"])
    page.get_by_role("radio", name="Spectrum").or_(page.get_by_role("button", name="Spectrum")).first.click()
    found = spectrum(workspace, RankSpec(workspace=workspace.name, example=example))
    assert found is not None
    expect(page.get_by_text(f"{found.negative} of {len(found.values)}", exact=True)).to_be_visible()
    expect(page.locator(".js-plotly-plot").first).to_be_visible()
    picture(page, f"spectrum-{scheme}")
    page.get_by_role("radio", name="Proponents").or_(page.get_by_role("button", name="Proponents")).first.click()
    settled(page)

    # Relabel: through the list, by button and by key; "1" typed in the note labels nothing
    store = LabelStore()
    before = len(store.history(workspace.data_fingerprint))
    press(page, "relabel_these")
    expect(page.get_by_role("heading", name="Relabel")).to_be_visible()
    settled(page)
    page.get_by_role("textbox", name="Your name").fill("Ann")
    page.get_by_role("textbox", name="Your name").press("Enter")
    settled(page)
    page.get_by_role("textbox", name="Note").fill("1 clear case")
    page.get_by_role("textbox", name="Note").press("Enter")
    settled(page)
    assert len(store.history(workspace.data_fingerprint)) == before
    press(page, "label-2")
    expect(page.get_by_text("Saved").first).to_be_visible()
    settled(page)
    page.locator("body").press("s")
    expect(page.get_by_text("skipped").first).to_be_visible()
    settled(page)
    events = store.history(workspace.data_fingerprint)[before:]
    assert [event.verdict == "skip" for event in events] == [False, True]
    assert events[0].example in [found.id for found in ranking.proponents]
    assert (events[0].new, events[0].annotator, events[0].note) == ("positive", "Ann", "1 clear case")
    picture(page, f"relabel-{scheme}")

    # Correct: the defaults, live, reloaded half-way
    page.goto(f"{app.url}/correct?example={example}")
    settled(page)
    picture(page, f"correct-settings-{scheme}")
    press(page, "correct_start")
    page.wait_for_url(re.compile("run="))
    run_id = query(page, "run")
    assert run_id is not None
    page.reload()
    expect(page.locator(keyed(page, f"stop_{run_id}"))).to_be_visible()
    run = RunDirectory.open(run_id)
    expect(page.get_by_text(re.compile("Keep as checkpoint"))).to_be_visible(timeout=600_000)
    assert run.state().state == "finished"
    settled(page)
    assert page.locator(".js-plotly-plot").count() == 4
    picture(page, f"correct-{scheme}")
    steps = [event for event in run.events()[0] if event.type == "step"]
    assert steps[-1].prediction == desired
    assert steps[0].prediction != desired
    expect(page.get_by_text(f"flip at step {steps[-1].step}").first).to_be_visible()

    # Keep, and go on with the kept checkpoint
    page.get_by_role("textbox", name="Name", exact=True).fill(name)
    page.get_by_role("textbox", name="Name", exact=True).press("Enter")
    settled(page)
    page.get_by_role("button", name="Keep as checkpoint").click()
    expect(page.get_by_text(f"Kept as checkpoint {name}")).to_be_visible()
    assert [entry.name for entry in workspace.checkpoints()][-1] == name
    page.get_by_role("button", name=f"Switch to {name}").click()
    settled(page)
    after = workspace.mispredictions("test", name)
    assert example not in set(after["id"])
    page.goto(f"{app.url}/mispredictions?checkpoint={name}")
    expect(page.get_by_text(f"{len(after)} of 1,043 wrong · showing {len(after)}")).to_be_visible()
    picture(page, f"kept-{scheme}")
    for place in ("runs", "load"):
        page.goto(f"{app.url}/{place}")
        settled(page)
        picture(page, f"{place}-{scheme}")
    page.context.close()


def test_a_run_survives_its_tab_and_the_death_of_the_app(app, browser):
    """Start, close the tab, kill -9 the app; a new app at the same address re-attaches and stops it."""
    workspace = Workspace.open("demo:movie-reviews")
    example = workspace.mispredictions()["id"].iloc[0]
    page = open_page(browser)
    page.goto(f"{app.url}/correct?example={example}")
    settled(page)
    press(page, "correct_start")
    page.wait_for_url(re.compile("run="))
    run = RunDirectory.open(str(query(page, "run")))
    address = page.url
    page.context.close()
    app.kill()
    app.start()
    again = open_page(browser)
    again.goto(address)
    expect(again.locator(keyed(again, f"stop_{run.id}"))).to_be_visible()
    assert not run.state().is_over
    again.get_by_role("button", name="Cancel").first.click()
    assert run.wait(120).state == "killed"
    expect(again.get_by_text("The run was cancelled")).to_be_visible()
    again.goto(f"{app.url}/runs")
    expect(again.get_by_text("Cancelled").nth(1)).to_be_visible()  # the first is the filter's


def test_every_page_is_guarded_as_a_deep_link_on_a_cold_server(home, browser):
    for name in ("correct", "load", "relabel"):  # each the first thing that a fresh server is asked for
        server = App(home)
        server.start()
        page = open_page(browser)
        try:
            page.goto(f"{server.url}/{name}")
            settled(page)
            expect(page.get_by_role("combobox", name="Workspace")).to_have_value("demo:movie-reviews")
            link = page.get_by_test_id("stSidebar").get_by_role("link", name="Mispredictions")
            expect(link).to_have_count(1)  # waits: a loaded machine draws the menu after the page
            assert page.get_by_test_id("stSidebarNav").count() == 0  # no phantom menu of pages/
        finally:
            page.context.close()
            server.kill()


def test_chromium_is_there():
    assert shutil.which("chromium"), "install it: apt-get install chromium"
