"""The Fading page's quick look on the demo, its page open in Chromium: from the click on Start to the run's end.

In a fresh home, once; the ratio is to the whole.
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.timing import Measurement, Target, measurement

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

ABOUT = 150.0  # seconds: what is still "about two minutes"
LONGEST = 1800.0  # seconds until this gives up


def run() -> list[Measurement]:
    """Start it and wait for the run's end; beside it when the curve began, and what the button said it would take."""
    from browser import chromium, open_page, press, query, served, settled
    from homes import living_in
    from playwright.sync_api import expect

    from influence_core.events import Fading
    from influence_core.runs.directory import RunDirectory
    from pages.components.fading_form import START

    with tempfile.TemporaryDirectory() as folder, living_in(Path(folder) / "home") as home:
        prepare = [sys.executable, "-m", "influence_core", "demo", "prepare", "movie-reviews"]
        subprocess.run(prepare, check=True, capture_output=True)
        with served(home) as app, chromium() as browser:
            page = open_page(browser)
            page.goto(f"{app.url}/fading")
            settled(page)
            page.get_by_text("Quick look").click()
            settled(page)
            said = page.locator(f"[class*='st-key-{START}'] button").inner_text()
            began = time.perf_counter()
            press(page, START)
            page.wait_for_url(re.compile("run="))
            found = RunDirectory.open(str(query(page, "run")))
            first = 0.0
            while not found.state().is_over and time.perf_counter() - began < LONGEST:
                if not first and any(isinstance(event, Fading) for event in found.events()[0]):
                    first = time.perf_counter() - began
                page.wait_for_timeout(100)
            whole = time.perf_counter() - began
            assert found.state().state == "finished", found.state()
            expect(page.get_by_text("measured so far")).to_have_count(0)
            page.context.close()
    note = " ".join(said.split())
    return [
        measurement("click → the first point of R(t)", [first], [whole], note="a fresh home"),
        measurement("click → the end", [whole], [whole], note=note, target=Target(ABOUT, of="seconds")),
    ]
