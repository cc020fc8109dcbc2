"""The real app in a real browser: a server on a free port, and waiting the way Streamlit's own tests wait."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from checkpoints import save_tiny_checkpoint, write_data
from homes import living_in
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from influence_core.data.opening import run as open_workspace
from influence_core.runs import client
from influence_core.specs import OpenSpec

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE = 60_000  # ms; a loaded machine is slow, not wrong


class App:
    """A Streamlit server of the app for one home; it can be killed and started again."""

    def __init__(self, home: Path) -> None:
        self.home = home
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(self.port)]
        command += ["--server.headless", "true", "--server.fileWatcherType", "none"]
        environment = {**os.environ, "INFLUENCE_HOME": str(self.home)}
        log = (self.home.parent / "streamlit.log").open("ab")
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=1):
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError("the app did not start")

    def kill(self) -> None:
        """End the server as ``kill -9`` does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def served(home: Path) -> Iterator[App]:
    """The app for a home that this process shares; its server and its engine end with the block."""
    home.mkdir(parents=True, exist_ok=True)
    server = App(home)
    server.start()
    try:
        yield server
    finally:
        server.kill()
        client.stop_engine()
        client.close()


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def open_page(browser: Browser, scheme: str = "light") -> Page:
    """A new window in the light or dark theme."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    return page


def settled(page: Page) -> None:
    """Wait until the script is not running and the page shows no error."""
    page.wait_for_selector("[data-testid='stApp'][data-test-script-state='notRunning']")
    page.wait_for_selector("[data-testid='stApp'][data-test-connection-state='CONNECTED']")
    page.wait_for_timeout(400)
    assert page.get_by_test_id("stException").count() == 0, page.get_by_test_id("stException").first.inner_text()


def keyed(page: Page, prefix: str) -> str:
    """A selector for widgets whose key begins with a prefix."""
    return f"[class*='st-key-{prefix}']"


def press(page: Page, prefix: str, place: int = 0) -> None:
    """Press a button by its key."""
    page.locator(f"{keyed(page, prefix)} button").nth(place).click()


def choose(page: Page, name: str, option: str) -> None:
    """Choose an option of a select box."""
    page.get_by_role("combobox", name=name).click()
    page.get_by_role("option", name=option, exact=True).click()
    settled(page)


def entry(page: Page, key: str) -> Locator:
    """The field of a key."""
    return page.locator(f".st-key-{key} input")


def fill(page: Page, key: str, text: str) -> None:
    """Type into the field of a key, and leave it."""
    entry(page, key).fill(text)
    entry(page, key).press("Tab")
    settled(page)


def picture(page: Page, name: str) -> None:
    """Keep a picture of the page, where ``INFLUENCE_SCREENSHOTS`` names a folder."""
    settled(page)
    if place := os.environ.get("INFLUENCE_SCREENSHOTS"):
        Path(place).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(place) / f"{name}.png"))


def query(page: Page, name: str) -> str | None:
    """One value of the address's query."""
    found = re.search(rf"[?&]{name}=([^&]*)", page.url)
    return found.group(1) if found else None


@contextmanager
def tiny_app(folder: Path) -> Iterator[App]:
    """The app on a tiny BERT and some hundred rows, in a home below ``folder`` that this process shares with it."""
    with living_in(folder / "home") as home:
        checkpoint, (train, test) = save_tiny_checkpoint(folder / "tiny-bert"), write_data(folder)
        spec = OpenSpec(checkpoint=str(checkpoint), data=str(train), test=str(test), scope="last:1")
        list(open_workspace(spec, folder / "opening"))
        with served(home) as server:
            yield server
