"""The Results page: the documents' verdicts, their own figures, and what is missing said in words."""

import json

import pytest
from workspaces import open_app, use_home

from pages.components import result_documents
from pages.components.result_documents import FOLDER, Image, Verdict, documents, figure_file, read
from pages.components.result_figures import drawn, record_of

TEXT = """# Why it fades

Measured by *study fading* (Sec. 5, Fig. 2). 9 more are below.

## The demo (Fig. 2a)

![Adam](figures/demo-adam.png)

| a | b |
|---|---|
| 1 | 2 |

**The paper** (Sec. 5.2): R falls
to zero. **Verdict: confirmed**, with Adam
too. It goes on.

## Slower?

```
# no heading
```

**Verdict: not confirmed.** It costs $1 or $2.

![outside](../../secret.png)
![elsewhere](https://example.org/x.png)

Words ![inside](https://example.org/y.png) words.

## Slower?

### Small

**Verdict.** It depends on the rows, by Fig. 2 and App. B too. The rest is silence.
"""
METHOD = {"method": "tracin", "steps": [1, 2], "integrated_lr": [0.1, 0.2], "r": [0.9, 0.1], "low": [0.8, -0.2]}
METHOD |= {
    "high": [0.95, 0.3],
    "distance": [0.8, 0.0],
    "peak": 1,
    "horizon": 1,
    "faded_at": 2,
    "verdict": "fades",
    "band": "t",
}
VALUE = {
    "repeats": 5,
    "train_rows": 4,
    "test_rows": 3,
    "scope": "last:1",
    "divergence": [0.1, 0.2],
    "methods": [METHOD],
}
RECORD = {"spec": {"kind": "fading"}, "value": VALUE, "made": "2026-01-02", "command": "study", "versions": {}}


@pytest.fixture
def folder(monkeypatch, tmp_path):
    use_home(monkeypatch, tmp_path)
    place = tmp_path / "docs" / "results"
    (place / "fading").mkdir(parents=True)
    (place / "fading" / "demo-adam.json").write_text(json.dumps(RECORD))
    (place / "fading.md").write_text(TEXT)
    (place / "speed.md").write_text("# Speed\n\nFast enough.\n")
    (tmp_path / "secret.png").write_bytes(b"no picture")
    monkeypatch.setattr(result_documents, "FOLDER", place)
    return place


def test_verdicts_with_what_they_are_on():
    found = read("fading", TEXT)
    assert (found.title, found.line) == ("Why it fades", "Measured by *study fading* (Sec. 5, Fig. 2).")
    assert [(section.title, section.level) for section in found.sections] == [
        ("Why it fades", 1),
        ("The demo (Fig. 2a)", 2),
        ("Slower?", 2),
        ("Slower?", 2),
        ("Small", 3),
    ]
    assert len({section.anchor for section in found.sections}) == 5
    assert [verdict for section in found.sections for verdict in section.verdicts] == [
        Verdict("The paper: R falls to zero (Sec. 5.2)", "confirmed, with Adam too"),
        Verdict("Slower?", "not confirmed"),
        Verdict("Small", "It depends on the rows, by Fig. 2 and App. B too"),
    ]
    figures = [block for section in found.sections for block in section.blocks if isinstance(block, Image)]
    assert [each.alt for each in figures] == ["Adam", "outside", "elsewhere"]


@pytest.mark.parametrize("text", ["", "No heading.", "Before.\n\n# Title\n\nAfter.", "# A\n## B\n"])
def test_odd_documents_lose_nothing(text):
    found = read("name", text)
    blocks = [block for section in found.sections for block in section.blocks]
    titles = [section.title for section in found.sections]
    for line in filter(None, text.splitlines()):
        assert line.lstrip("# ") in [*blocks, *titles]


def test_the_page_shows_the_chosen_document(folder):
    app = open_app("results", document="fading")
    assert not app.exception
    assert app.title[0].value == "Results"
    assert app.radio(key="document").value == "fading"
    assert [each.value for each in app.header] == ["Why it fades", "The demo (Fig. 2a)", "Slower?", "Slower?"]
    assert [each.value for each in app.subheader] == ["Small"]
    table = next(each.value for each in app.markdown if each.value.startswith("| What is claimed"))
    rows = table.splitlines()[2:]
    said = "The paper: R falls to zero (Sec. 5.2) | confirmed, with Adam too"
    assert rows[0] == f"| {said} | [The demo (Fig. 2a)](#the-demo-fig-2a) |"
    anchors = [each.proto.anchor for each in [*app.header, *app.subheader]]
    assert [row.rpartition("(#")[2].rstrip(") |") in anchors for row in rows] == [True] * 3
    assert len(app.get("plotly_chart")) == 1
    said = [each.value.replace("\\", "") for each in app.info]
    assert [line.split(" (")[0] for line in said] == [
        "The figure ../../secret.png",
        "The figure https://example.org/x.png",
    ]
    words = " ".join(each.value for each in app.markdown)
    assert "https://example.org/y.png" not in words
    assert "\\$1 or \\$2" in words
    app.radio(key="document").set_value("speed").run()
    assert app.query_params["document"] == "speed"
    assert [each.value for each in app.header] == ["Speed"]
    assert any("without a verdict" in each.value for each in app.caption)


def test_the_url_decides(folder):
    app = open_app("results", document="speed")
    assert [each.value for each in app.header] == ["Speed"]
    app = open_app("results", document="../secret")
    assert [each.value.replace("\\", "") for each in app.error] == [
        "There is no document '../secret': choose one of these."
    ]
    assert app.query_params["document"] == "fading"


def test_a_damaged_record_leaves_the_picture(folder):
    assert drawn(Image("Adam", "figures/demo-adam.png")) is not None
    (folder / "fading" / "demo-adam.json").write_text(json.dumps({**RECORD, "value": {**VALUE, "divergence": [1]}}))
    assert drawn(Image("Adam", "figures/demo-adam.png")) is None
    (folder / "figures").mkdir()
    (folder / "figures" / "demo-adam.png").write_bytes(b"x")
    assert figure_file("figures/demo-adam.png") is not None
    assert figure_file("../../secret.png") is None


def test_records_are_found_by_the_figures_name(folder):
    for name in ("divergence/demo-adam", "divergence/demo-head-bounds", "tracin-error/demo", "fading/other"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / f"{name}.json").write_text("{}")
    names = {
        "demo-adam": "fading/demo-adam",
        "divergence-demo-adam": "divergence/demo-adam",
        "divergence-bounds": "divergence/demo-head-bounds",
        "tracin-error": "tracin-error/demo",
    }
    for picture, record in names.items():
        assert record_of(f"figures/{picture}.png") == folder / f"{record}.json"
    assert record_of("figures/divergence.png") is None  # two could be meant
    assert record_of("figures/nothing.png") is None


def test_without_documents_it_says_so(folder):
    for file in folder.glob("*.md"):
        file.unlink()
    (folder / "broken.md").write_bytes(b"\xff\xfe\xfa")
    app = open_app("results")
    assert not app.exception
    assert "not installed here" in app.info[0].value
    assert any("cannot be read" in each.value for each in app.caption)


def test_the_shipped_documents_are_whole():
    found, broken = documents()
    assert not broken
    assert FOLDER.is_dir()
    for document in found.values():
        for section in document.sections:
            for block in section.blocks:
                if isinstance(block, Image):
                    assert drawn(block) is not None or figure_file(block.path) is not None, block
    said = [each.verdict for section in found["fading"].sections for each in section.verdicts]
    assert said
    assert all(said)


def test_a_correction_study_is_drawn_by_success_retention_or_steps(folder):
    interval = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 4}
    cell = {"strategy": "random", "method": None, "by": None, "share": 0.27, "mispredictions": 4, "median_steps": 3.0}
    cell |= dict.fromkeys(("success", "retention", "steps", "by_itself"), interval)
    (folder / "correction").mkdir()
    record = {"spec": {"kind": "correction"}, "value": {"cells": [cell]}}
    (folder / "correction" / "demo.json").write_text(json.dumps(record))
    titles = []
    for name in ("correction-demo", "correction-demo-retention", "correction-demo-steps"):
        found = drawn(Image("x", f"figures/{name}.png"))
        assert found is not None
        titles.append(found[0].layout.meta["title"].split(" at ")[0])
    assert titles == ["Corrected", "Retention", "Steps to the flip"]
