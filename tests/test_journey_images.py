"""The Fashion-MNIST demo in Chromium: a grid of images, cards for proponents, a correction with live charts."""

import re

import pytest
from browser import chromium, fill, keyed, open_page, picture, press, query, served, settled
from homes import living_in
from playwright.sync_api import Page, expect

from influence_core.demo.prepare import prepare
from influence_core.home import read_json
from influence_core.labels import LabelStore
from influence_core.runs.directory import RunDirectory
from influence_core.workspace import Workspace

pytestmark = pytest.mark.browser
DEMO = "demo:fashion-mnist"


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """The demo, prepared in a home that this process shares with the app."""
    with living_in(tmp_path_factory.mktemp("images") / "home") as home:
        list(prepare(DEMO))
        with served(home) as server:
            yield server


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


def check_images(page: Page, alt: str, side: int, count: int = 1) -> None:
    """Wait for so many images whose description begins so, and see that each was decoded at its size."""
    images = page.locator(f"img[alt^='{alt}']")
    expect(images).to_have_count(count)
    page.wait_for_function("[...document.images].every(image => image.complete)")
    sizes = images.evaluate_all("all => all.map(image => [image.naturalWidth, image.naturalHeight])")
    assert sizes == [[side, side]] * count


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_images_from_the_grid_to_a_correction(app, browser, scheme):
    workspace = Workspace.open(DEMO)
    wrong, names = workspace.mispredictions(), list(workspace.label_names)
    page = open_page(browser, scheme)

    # the grid: twenty images, most confident first, none broken
    page.goto(app.url)
    settled(page)
    expect(page.get_by_text(f"{len(wrong):,} of 10,000 wrong · showing {len(wrong):,}")).to_be_visible()
    check_images(page, "true ", 140, 20)
    first = page.locator("img[alt^='true ']").first.get_attribute("alt")
    assert first == f"true {names[wrong['label'].iloc[0]]}, predicted {names[wrong['prediction'].iloc[0]]}"
    expect(page.locator(".js-plotly-plot").first).to_be_visible()
    picture(page, f"images-mispredictions-{scheme}")

    # another order, and on to the first of it
    page.get_by_role("combobox", name="Order").click()
    page.get_by_role("option", name="Smallest margin first").click()
    settled(page)
    row = wrong.sort_values("margin", kind="stable").iloc[0]
    example, desired = row["id"], names[row["label"]]
    press(page, f"open_{example}")

    # proponents from the shipped index at once, as cards with images
    expect(page.get_by_role("heading", name="Influence")).to_be_visible()
    settled(page)
    assert query(page, "example") == example
    ranking = workspace.rank(example)
    assert ranking.method == "abif"
    check_images(page, "training row ", 84, 10)
    best = ranking.proponents[0]
    expect(page.get_by_alt_text(f"training row 1 of this list, labelled {best.label}", exact=True)).to_be_visible()
    expect(page.get_by_text(f"{best.id} · score")).to_be_visible()
    expect(page.get_by_text("supports").first).to_be_visible()
    check_images(page, f"test example, true {desired}", 252)
    picture(page, f"images-influence-{scheme}")
    page.get_by_role("radio", name="Opponents").or_(page.get_by_role("button", name="Opponents")).first.click()
    expect(page.get_by_text(f"{ranking.opponents[0].id} · score")).to_be_visible()
    page.get_by_role("radio", name="Proponents").or_(page.get_by_role("button", name="Proponents")).first.click()
    settled(page)

    # one label, by its key
    store = LabelStore()
    before = len(store.history(workspace.data_fingerprint))
    press(page, "relabel_these")
    expect(page.get_by_role("heading", name="Relabel")).to_be_visible()
    settled(page)
    page.get_by_role("textbox", name="Your name").fill("Ann")
    page.get_by_role("textbox", name="Your name").press("Enter")
    settled(page)
    check_images(page, "training row, labelled ", 336)
    page.get_by_role("heading", name="Relabel").click()  # keys typed in the field label nothing
    page.locator("body").press("0")  # the tenth class
    expect(page.get_by_text("Saved").first).to_be_visible()
    settled(page)
    (event,) = store.history(workspace.data_fingerprint)[before:]
    assert (event.example in [found.id for found in ranking.proponents], event.new) == (True, names[9])
    picture(page, f"images-relabel-{scheme}")

    # a correction of a row that takes some steps: the charts grow while it runs
    row = wrong.loc[(wrong["margin"] - 0.4).abs().idxmin()]
    desired = names[row["label"]]
    page.goto(f"{app.url}/correct?example={row['id']}")
    settled(page)
    fill(page, "correct_rate_adam", "1e-4")
    press(page, "correct_start")
    page.wait_for_url(re.compile("run="))
    run = RunDirectory.open(str(query(page, "run")))
    page.wait_for_function(  # four charts while it goes on
        "document.querySelectorAll('.js-plotly-plot').length == 4"
        f" && document.querySelector(`{keyed(page, f'stop_{run.id}')}`) !== null",
        timeout=600_000,
    )
    expect(page.get_by_text(re.compile("Keep as checkpoint"))).to_be_visible(timeout=600_000)
    assert run.state().state == "finished"
    settled(page)
    assert page.locator(".js-plotly-plot").count() == 4
    outcome = read_json(run.result / "result.json")
    assert outcome["steps"] > 1
    ending = f"Flipped to “{desired}” at step {outcome['flip_step']}" if outcome["flipped"] else "Not flipped to"
    expect(page.get_by_text(ending).first).to_be_visible()
    for word in ("fixed", "broken"):
        expect(page.get_by_text(re.compile(f"^{word.capitalize()}: {len(outcome[word]):,} row"))).to_be_visible()
    picture(page, f"images-correct-{scheme}")
    page.context.close()


def test_suspects_are_found_among_images(app, browser):
    page = open_page(browser)
    page.goto(f"{app.url}/relabel?source=Suspects")
    settled(page)
    expect(page.get_by_role("button", name=re.compile("Relabel these"))).to_be_visible()
    page.get_by_role("button", name=re.compile("Relabel these")).click()
    settled(page)
    check_images(page, "training row, labelled ", 336)
    picture(page, "images-suspects-light")
    page.context.close()
