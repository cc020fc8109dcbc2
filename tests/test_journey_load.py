"""A CSV and a checkpoint folder of one's own, through the Load page in Chromium."""

import re

import pandas as pd
import pytest
from browser import choose, chromium, entry, fill, keyed, open_page, picture, press, query, served, settled
from checkpoints import sentences
from playwright.sync_api import expect

from influence_core.runs.directory import RunDirectory
from influence_core.specs import CheckSpec, OpenSpec
from influence_core.workspace import Workspace

pytestmark = pytest.mark.browser
LABELS = {"negative": "schlecht", "positive": "gut"}


@pytest.fixture
def app(home):
    with served(home) as server:
        yield server


@pytest.fixture
def files(tmp_path):
    """train.csv and test.csv with labels in another language; two training rows cannot be used, two are copies."""
    paths = tmp_path / "train.csv", tmp_path / "test.csv"
    for path, seed, count in zip(paths, (1, 2), (120, 40), strict=True):
        frame = sentences(count, seed=seed).rename(columns={"text": "review", "label": "mood"}).drop(columns="id")
        frame["mood"] = frame["mood"].map(LABELS)
        if seed == 1:
            extra = pd.DataFrame({"review": ["", " ", *frame["review"].iloc[:1]], "mood": ["gut", "gut", "schlecht"]})
            frame = pd.concat([frame, extra], ignore_index=True)
        frame.to_csv(path, index=False)
    return paths


def test_a_csv_and_a_checkpoint_become_a_workspace(app, files, tiny_checkpoint):
    train, test = files
    with chromium() as browser:
        page = open_page(browser)
        page.goto(f"{app.url}/load")
        settled(page)

        # a mistake first: what was typed stays
        fill(page, "load_files_checkpoint", str(tiny_checkpoint / "nothing"))
        fill(page, "load_files_data", str(train))
        fill(page, "load_files_test", str(test))
        press(page, "check_files")
        expect(page.get_by_text(re.compile("The run failed"))).to_be_visible()
        page.reload()
        settled(page)
        expect(entry(page, "load_files_data")).to_have_value(str(train))

        # the check: what was found, and no workspace
        fill(page, "load_files_checkpoint", str(tiny_checkpoint))
        press(page, "check_files")
        expect(page.get_by_role("heading", name="What was found")).to_be_visible()
        settled(page)
        run = str(query(page, "run"))
        assert isinstance(RunDirectory.open(run).spec(), CheckSpec)
        expect(page.get_by_text(re.compile(r"Duplicates: \d+ in train"))).to_be_visible()
        expect(page.get_by_text("2 rows cannot be used.")).to_be_visible()
        opening = page.locator(f"{keyed(page, 'open_found')} button")
        expect(opening).to_be_disabled()
        picture(page, "load-check-light")

        # the class mapping, before anything runs
        for name, label in LABELS.items():
            expect(page.get_by_text(label, exact=True).first).to_be_visible()
            choose(page, f"Class of {label}", name)
        expect(opening).to_be_disabled()
        assert Workspace.names() == []
        press(page, "check_again")
        page.wait_for_url(lambda url: run not in url)
        expect(page.get_by_text("As you chose.")).to_be_visible()
        settled(page)
        expect(opening).to_be_disabled()
        page.get_by_text("Leave these 2 rows out").click()
        expect(opening).to_be_enabled()
        assert Workspace.names() == []
        picture(page, "load-confirmed-light")

        # open it, and use it
        opening.click()
        expect(page.get_by_role("button", name="Open it")).to_be_visible(timeout=180_000)
        spec = RunDirectory.open(str(query(page, "run"))).spec()
        assert isinstance(spec, OpenSpec)
        assert (spec.classes, spec.drop_broken) == ({label: name for name, label in LABELS.items()}, True)
        (name,) = Workspace.names()
        workspace = Workspace.open(name)
        assert {split: len(frame) for split, frame in workspace.dataset.splits.items()} == {"train": 121, "test": 40}
        page.get_by_role("button", name="Open it").click()
        expect(page.get_by_role("heading", name="Mispredictions")).to_be_visible()
        settled(page)
        wrong = workspace.mispredictions()
        expect(page.get_by_text(f"{len(wrong)} of 40 wrong · showing {len(wrong)}")).to_be_visible()
        picture(page, "load-opened-light")
        page.context.close()
