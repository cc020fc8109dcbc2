"""In Chromium, on a tiny workspace: a correction, its control by one click, both compared, the report from disk."""

import re

import pytest
from browser import chromium, fill, keyed, open_page, picture, press, query, settled, tiny_app
from playwright.sync_api import expect

from influence_core.charts import percent
from influence_core.home import read_json
from influence_core.runs.directory import RunDirectory
from influence_core.workspace import Workspace
from pages.components import correction_settings as form

pytestmark = pytest.mark.browser

CHART = ".js-plotly-plot"


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with tiny_app(tmp_path_factory.mktemp("compared")) as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


def finished(page) -> RunDirectory:
    """Wait until the run of the address has ended well and the page offers its report."""
    page.wait_for_url(re.compile("run="))
    run = RunDirectory.open(query(page, "run"))
    expect(page.locator(keyed(page, f"report_{run.id}"))).to_be_visible(timeout=300_000)
    settled(page)
    assert run.state().state == "finished"
    return run


def compared(page) -> None:
    """Wait until the page shows runs on the same charts, with the table of them."""
    expect(page.get_by_role("region", name="The runs that are compared")).to_be_visible()
    expect(page.locator(f"{keyed(page, 'compared_')} {CHART}")).to_have_count(3)
    settled(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_run_its_control_the_comparison_and_the_report(app, browser, scheme, tmp_path):
    workspace = Workspace.open(Workspace.names()[0])
    example = workspace.mispredictions()["id"].iloc[0]
    page = open_page(browser, scheme)
    page.goto(f"{app.url}/correct?example={example}")
    settled(page)
    fill(page, form.K, "8")
    fill(page, form.BATCH, "8")
    fill(page, form.STEPS, "6")
    press(page, "correct_start")
    own = finished(page)

    # the same with random rows, by one click
    press(page, f"control_{own.id}")
    page.wait_for_url(re.compile(f"run=(?!{own.id})"))
    page.wait_for_url(re.compile(f"with={own.id}"))
    page.reload()  # before it is over
    control = finished(page)
    first, second = own.spec(), control.spec()
    assert first.strategy == "proponents"
    assert second == first.model_copy(update={"strategy": "random"})

    # both on the same charts, with what each run recorded, without another click
    compared(page)
    drawn = page.locator(keyed(page, "compared_probability") + f" {CHART}")
    names = drawn.evaluate("chart => chart.data.map(trace => trace.name)")
    assert any("this run" in (name or "") for name in names), names
    assert any(own.id[:8] in (name or "") for name in names), names
    assert "without correction" in names  # of the same seed, so one of both
    picture(page, f"compared-{scheme}")

    # the address leads back to it, also in another browser, which takes nothing from this one
    page.reload()
    compared(page)
    other = open_page(browser, scheme)
    other.goto(page.url)
    compared(other)
    other.locator(keyed(other, "compare_")).get_by_text("Compare with other runs").click()
    expect(other.locator(f"{keyed(other, 'compared_')} {CHART}")).to_have_count(0)
    settled(other)
    assert query(other, "with") is None
    other.reload()
    settled(other)
    expect(other.locator(f"{keyed(other, 'compared_')} {CHART}")).to_have_count(0)
    other.context.close()
    page.reload()
    compared(page)
    assert query(page, "with") == own.id

    # the report, saved and opened from disk without any network
    with page.expect_download() as waiting:
        press(page, f"report_{control.id}")
    file = tmp_path / "report.html"
    waiting.value.save_as(file)
    context = browser.new_context(offline=True, color_scheme=scheme, viewport={"width": 1200, "height": 1000})
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    report = context.new_page()
    report.goto(file.as_uri())
    expect(report.locator(CHART).first).to_be_visible()
    body = report.locator("body").inner_text()
    outcome = read_json(control.result / "result.json")
    assert example in body
    assert percent(outcome["before"]) in body
    assert percent(outcome["after"]) in body
    assert {url.split(":")[0] for url in asked} <= {"file", "data", "blob"}
    report.screenshot(path=str(tmp_path / "report.png"), full_page=True)
    context.close()
    page.context.close()
