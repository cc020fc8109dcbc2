"""From the start of the app to a ranking on screen, in Chromium, nothing clicked but the misprediction.

What ``make run`` does once everything is installed and prepared: the engine, the app, the browser.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.timing import Measurement

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))


def run() -> list[Measurement]:
    """Time the way once, in a home of its own with the demo prepared; the ratio is to the page's first appearance."""
    from browser import App, chromium, open_page, settled

    from influence_core.runs import client

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        os.environ["INFLUENCE_HOME"] = str(home)
        prepare = [sys.executable, "-m", "influence_core", "demo", "prepare", "movie-reviews"]
        subprocess.run(prepare, check=True, capture_output=True)
        started = time.perf_counter()
        subprocess.run(prepare, check=True, capture_output=True)  # make run does it each time; nothing is left to do
        client.ensure_engine()
        app = App(home)
        app.start()
        try:
            with chromium() as browser:
                page = open_page(browser)
                page.goto(app.url)
                page.get_by_role("button", name="Explain").first.wait_for()
                shown = time.perf_counter() - started
                settled(page)
                page.get_by_role("button", name="Explain").first.click()
                page.get_by_text("supports").first.wait_for()
                ranked = time.perf_counter() - started
        finally:
            app.kill()
            client.stop_engine()
            client.close()
    return [
        Measurement("make run to the mispredictions", shown, shown, shown, 1.0, "demo prepared, nothing installed"),
        Measurement("… to a ranking on screen", ranked, ranked, ranked, ranked / shown, "target: under 30 s"),
    ]
