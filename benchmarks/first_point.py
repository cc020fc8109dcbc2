"""From the click on a correction's Start to the first point on its chart, in Chromium, the worker warm.

Beside it, in the same run: when the run's address is there, when the worker has written the point, and the correction's
own step, in the app and with no browser beside it. The demo with its shipped index; "plain" is the form's settings but
without curves of what influence predicts, whose step is the shorter.
"""

import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.timing import Measurement, Target, measurement

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from influence_core.specs import CorrectionSpec

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

REPEATS, BEYOND = 5, 1.0  # corrections; seconds
POINTS = 3  # that are waited for
LOOK = 0.01  # seconds between two looks at what the worker has written
SHOWN = """() => [...document.querySelectorAll('[class*="st-key-correct_chart_probability"] .js-plotly-plot')].some(
    plot => (plot.data || []).some(trace => trace.x && trace.x.length))"""


@dataclass(frozen=True)
class Times:
    """Seconds of one correction, from the click but for the last."""

    address: float  # the page has the run's address
    written: float  # the worker has written the point of step 0
    shown: float  # the chart shows it
    step: float  # from the point of step 1 to that of step 2: the first also does what step 0 left for later


def run(repeats: int = REPEATS) -> list[Measurement]:
    """Correct so many of the demo's mispredictions one after another in one browser; the ratio is to a step."""
    from browser import chromium, open_page, served
    from homes import living_in

    from influence_core.runs import client
    from influence_core.specs import CorrectionSpec
    from influence_core.workspace import Workspace

    with tempfile.TemporaryDirectory() as folder, living_in(Path(folder) / "home") as home:
        prepare = [sys.executable, "-m", "influence_core", "demo", "prepare", "movie-reviews"]
        subprocess.run(prepare, check=True, capture_output=True)
        workspace = Workspace.open(Workspace.names()[0])
        first, *others = workspace.mispredictions()["id"].iloc[: 2 * repeats + 1]
        with served(home) as app, chromium() as browser:
            watch = Watch(home / "runs")
            warm = client.submit(CorrectionSpec(workspace=workspace.name, example=first), what="warms the worker")
            watch.points()
            _cancel(warm)
            page = open_page(browser)
            turns = [_click(page, app.url, home, example, curves=bool(turn % 2)) for turn, example in enumerate(others)]
            page.context.close()
            alone = [_unwatched(home, CorrectionSpec(workspace=workspace.name, example=each)) for each in others[::2]]
            plain, found = turns[::2], turns[1::2]
    beyond = [each.shown - step for each, step in zip(plain, alone, strict=True)]
    return [
        *_lines("plain", plain),
        measurement("plain: a step, no browser beside it", alone, [each.step for each in plain]),
        measurement("plain: … beyond such a step", beyond, alone, target=Target(BEYOND, of="seconds")),
        *_lines("with curves", found),
    ]


def _lines(kind: str, found: list[Times]) -> list[Measurement]:
    steps = [each.step for each in found]
    beyond = [each.shown - each.step for each in found]
    return [
        measurement(f"{kind}: a step", steps, steps, note="the demo, the worker warm"),
        measurement(f"{kind}: click → the run's address", [each.address for each in found], steps),
        measurement(f"{kind}: click → the first point, written", [each.written for each in found], steps),
        measurement(f"{kind}: click → the first point, on the chart", [each.shown for each in found], steps),
        measurement(f"{kind}: … beyond the step", beyond, steps, target=Target(BEYOND, of="seconds")),
    ]


def _click(page: "Page", url: str, home: Path, example: str, *, curves: bool) -> Times:
    """Start the correction of an example, wait for its first points, and cancel it."""
    from browser import press, query, settled
    from playwright.sync_api import expect

    page.goto(f"{url}/correct?example={example}")
    page.locator("[class*='st-key-correct_start'] button").wait_for()
    settled(page)
    toggle = page.locator("[class*='st-key-correct_curves']")
    switch = toggle.get_by_role("switch").or_(toggle.get_by_role("checkbox"))
    if switch.is_checked() != curves:
        toggle.locator("label").first.click()
        settled(page)
    expect(switch).to_be_checked(checked=curves)
    watch = Watch(home / "runs")
    clicked = time.perf_counter()
    press(page, "correct_start")
    page.wait_for_url(re.compile("run="))
    address = time.perf_counter() - clicked
    page.wait_for_function(SHOWN, polling="raf")
    shown = time.perf_counter() - clicked
    points = watch.points()
    _cancel(str(query(page, "run")))
    return Times(address, points[0] - clicked, shown, points[2] - points[1])


def _unwatched(home: Path, spec: "CorrectionSpec") -> float:
    """Return the seconds of the second step of a correction that no page follows."""
    from influence_core.runs import client

    watch = Watch(home / "runs")
    run = client.submit(spec, what="nobody watches")
    points = watch.points()
    _cancel(run)
    return points[2] - points[1]


def _cancel(run_id: str) -> None:
    """End a run, whose comparison on the whole test set would only make the next one wait."""
    from influence_core.runs import client
    from influence_core.runs.directory import RunDirectory

    client.cancel(run_id)
    assert RunDirectory.open(run_id).wait(60).is_over


class Watch:
    """Notes in a thread when the next new run writes its first points."""

    def __init__(self, runs: Path) -> None:
        self._runs, self._old = runs, {each.parent.name for each in runs.glob("*/events.jsonl")}
        self._points: list[float] = []
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def points(self) -> list[float]:
        """Wait for all of them; values of `time.perf_counter`."""
        self._thread.join(900)
        assert len(self._points) >= POINTS, f"{len(self._points)} points in fifteen minutes"
        return self._points

    def _look(self) -> None:
        while len(self._points) < POINTS:
            for file in self._runs.glob("[!.]*/events.jsonl"):
                if file.parent.name not in self._old:
                    written = file.read_bytes().count(b'"type": "step"')
                    self._points += [time.perf_counter()] * (min(written, POINTS) - len(self._points))
            time.sleep(LOOK)
