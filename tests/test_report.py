"""The report of a correction: one page, everything in it, nothing of it executable; its figures are the events'."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pandas as pd
import pytest
from browser import chromium, open_page
from correct_page import finished as made_up
from workspaces import tiny_image_workspace, use_home

from influence_core.cli import main
from influence_core.data.opening import run as open_workspace
from influence_core.errors import UserError
from influence_core.events import Step
from influence_core.reports.correction import CUT, correction_page, report
from influence_core.reports.facts import read
from influence_core.reports.page import element, page, table
from influence_core.runs import worker
from influence_core.runs.directory import RunDirectory
from influence_core.runs.stopping import request_stop
from influence_core.specs import CorrectionSetSpec, CorrectionSpec, OpenSpec, PredictSpec
from influence_core.workspace import Workspace

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=document.title='owned'> good & bad"
FAST = {"optimizer": "sgd", "learning_rate": 0.1, "k": 6, "batch_size": 16, "method": "tracin"}


class Reading(HTMLParser):
    """All tags with their attributes, and all text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.data = "", ""
        self._within = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._within = tag
        self._json = dict(attrs).get("id") == "figures"

    def handle_endtag(self, tag):
        self._within = ""

    def handle_data(self, data):
        if self._within == "script" and self._json:
            self.data += data
        elif self._within not in ("script", "style"):
            self.text += data


@pytest.fixture
def hostile(home, tiny_checkpoint, data_files, tmp_path) -> Workspace:
    """A workspace with a validation split, whose every text is hostile, as are the ids of its test rows."""
    folder = tmp_path / "data"
    folder.mkdir()
    paths = {}
    for name, file in zip(("train", "test"), data_files, strict=True):
        frame = pd.read_csv(file)
        frame["text"] = frame["text"] + " " + HOSTILE
        if name == "test":
            frame["id"] = [f"<i>{number}</i>|`x`" for number in range(len(frame))]
        paths[name] = folder / f"{name}.csv"
        frame.to_csv(paths[name], index=False)
    frame["id"] = [f"v{number}" for number in range(len(frame))]
    frame.to_csv(folder / "validation.csv", index=False)
    spec = OpenSpec(
        checkpoint=str(tiny_checkpoint),
        data=str(paths["train"]),
        test=str(paths["test"]),
        validation=str(folder / "validation.csv"),
        scope="last:1",
    )
    return Workspace.open(list(open_workspace(spec, tmp_path / "opening"))[-1].value["workspace"])


def finished(workspace: Workspace, **options) -> RunDirectory:
    """A correction's run, made here as a worker makes it."""
    example = workspace.mispredictions()["id"].iloc[0]
    run = RunDirectory.create(CorrectionSpec(workspace=workspace.name, example=example, **{**FAST, **options}))
    worker.run_entry(run.id)
    assert run.record().state == "finished", run.record().message
    return run


@pytest.fixture(autouse=True)
def no_preload(monkeypatch):
    monkeypatch.setattr("influence_core.runs.preload.wait", lambda: None)


def test_everything_is_escaped_and_nothing_is_fetched(hostile):
    row = hostile.rank(hostile.mispredictions()["id"].iloc[0], method="tracin", top=1).proponents[0]
    hostile.relabel(row.id, row.label, expect=row.label, annotator="<b>Ann</b>")
    run = finished(hostile)
    found = Reading(report(run.id))
    assert [tag for tag, _ in found.tags].count("script") == 3  # figures, plotly.js, drawing
    assert not {"b", "i", "img", "iframe", "link", "object"} & {tag for tag, _ in found.tags}
    for _, attributes in found.tags:
        assert not {"src", "href", "srcset", "onerror", "onclick", "onload"} & attributes.keys()
    assert HOSTILE in found.text
    assert "<b>Ann</b>" in found.text
    assert run.spec().example in found.text
    (policy,) = [about["content"] for _, about in found.tags if "http-equiv" in about]
    assert policy.startswith("default-src 'none'; img-src data:")
    assert "script-src 'sha256-" in policy


def test_what_it_says_is_what_the_run_wrote(hostile):
    run = finished(hostile)
    events = run.events()[0]
    steps, outcome = [event for event in events if isinstance(event, Step)], events[-1].value
    found = Reading(report(run.id))
    figures = json.loads(found.data)
    assert list(figures) == ["probability", "loss", "divergence", "retention"]
    for name in ("probability", "loss"):
        lines = {trace["name"]: trace["y"] for trace in figures[name]["data"]}
        assert lines["with correction"] == [getattr(step, name) for step in steps]
        assert lines["without correction"] == [getattr(step, f"base_{name}") for step in steps]
    assert f"Flipped to {steps[-1].prediction} at step {outcome['flip_step']}." in found.text
    for split, about in (("test", outcome), ("validation", outcome["validation"])):
        assert f"Fixed in {split}: {len(about['fixed'])}" in found.text
        assert f"Broken in {split}: {len(about['broken'])}" in found.text
    manifest = json.loads((run.result / "manifest.json").read_text())
    for value in (manifest["data"], manifest["checkpoint_fingerprint"], *manifest["rows"], "not measured."):
        assert value in found.text
    assert "supports" in found.text
    assert "opposes" in found.text
    assert "python -m influence_core correct" in found.text


def test_a_report_of_several_has_the_ranking_of_each(opened):
    examples = tuple(opened.mispredictions()["id"].iloc[:2])
    options = {name: value for name, value in FAST.items() if name != "method"}  # the workspace's own
    run = RunDirectory.create(CorrectionSetSpec(workspace=opened.name, examples=examples, **options))
    worker.run_entry(run.id)
    found = Reading(report(run.id))
    for example in examples:
        assert f"the ranking of row {example}: tracin at " in found.text
    assert found.text.count("Top proponents") == 2
    assert found.text.count("Trust horizon: not measured.") == 2
    assert "--method tracin" in found.text
    correction = read(opened, run.result)
    one, other = correction.outcome["examples"]
    alone = [{**one, "base_flip_step": 3}, {**other, "base_flip_step": None}]
    text = Reading(correction_page(replace(correction, outcome={**correction.outcome, "examples": alone}), [])).text
    for example, words in zip(examples, ("flips by itself at step 3", "does not flip by itself"), strict=True):
        assert re.search(
            rf"test row {re.escape(example)} · true [^·]+ · predicted [^·]+ · desired([^·]+·){{2}} {words}", text
        )


def test_the_ranking_is_the_one_that_was_used(opened):
    run = finished(opened)
    before = re.findall(r"\+0\.\d+", Reading(report(run.id)).text)
    ranking = json.loads((run.result / "ranking.json").read_text())
    first = ranking["proponents"][0]
    other = next(name for name in opened.label_names if name != first["label"])
    opened.relabel(first["id"], other, expect=first["label"], annotator="later")
    again = Reading(report(run.id)).text
    assert re.findall(r"\+0\.\d+", again) == before
    assert "later" not in again  # its label event came after the run
    assert "No annotator had decided on any of them." in again


def test_an_empty_side_is_said_and_rows_scored_by_earlier_labels_are_marked(opened):
    run = finished(opened)
    correction = read(opened, run.result)
    (ranking,) = correction.rankings
    fresh = Reading(correction_page(correction, [])).text
    assert "†" not in fresh
    assert "no longer ha" not in fresh
    rows = [row.model_copy(update={"stale": place == 1}) for place, row in enumerate(ranking.proponents)]
    changed = ranking.model_copy(update={"proponents": rows, "opponents": [], "stale": 2})
    stale = replace(correction, rankings=(changed,), manifest={**correction.manifest, "stale": 2})
    found = Reading(correction_page(stale, []))
    assert f"Top opponents: they oppose “{ranking.target}”\nThere are none: no training row opposes it." in found.text
    assert found.text.count(f"{rows[1].label} †") == 1
    assert "† relabelled since it was scored: its score speaks of the label that it had before." in found.text
    assert "2 training rows were scored by labels they no longer have (in B: 1)" in found.text
    annotated = {**correction.manifest, "spec": {**correction.manifest["spec"], "only_annotated": True}}
    text = Reading(correction_page(replace(stale, manifest={**annotated, "stale": 2}), [])).text
    assert "There are none: no row that annotators changed opposes it." in text


def test_the_rows_of_b_are_listed_with_the_beginning_of_their_text(hostile):
    run = finished(hostile, strategy="random", steps=1)
    found = Reading(report(run.id)).text
    listed = found.split("Which labels were used")[1].split("Step by step")[0]
    for row in json.loads((run.result / "manifest.json").read_text())["rows"]:
        text = " ".join(str(hostile.example(row)["text"]).split())
        assert (text if len(text) <= CUT else text[:CUT].rstrip() + "…") in listed
    assert HOSTILE[:20] in listed


def test_pictures_of_the_rows_of_b_are_not_more_than_so_many(tmp_path, monkeypatch):
    use_home(monkeypatch, tmp_path)
    images = tiny_image_workspace()
    run = made_up(images, example="test-6")
    manifest = json.loads((run.result / "manifest.json").read_text())
    more = {"rows": [f"train-{place}" for place in range(9)], "row_labels": ["Bag"] * 9}
    (run.result / "manifest.json").write_text(json.dumps({**manifest, **more}))
    for most, drawn in ((50, 8), (3, 3)):  # train-7 cannot be read
        monkeypatch.setattr("influence_core.reports.correction.PICTURES", most)
        page = report(run.id)
        used = page.split("Which labels were used")[1].split("Step by step")[0]
        assert used.count("data:image/png;base64,") == drawn
        assert ("Pictures of the first 3." in used) is (most == 3)
        assert all(f"<td>train-{place}</td>" in used for place in range(9))


def test_random_rows_have_no_ranking_and_a_stopped_run_has_a_report(opened, monkeypatch):
    run = finished(opened, strategy="random", steps=3)
    assert "no ranking was made" in Reading(report(run.id)).text
    slow = RunDirectory.create(run.spec().model_copy(update={"learning_rate": 1e-6}))
    monkeypatch.setattr("influence_core.runs.registry.start", stopping(slow))
    worker.run_entry(slow.id)
    text = Reading(report(slow.id)).text
    assert "in 1 steps" in text
    assert "--steps 1" in text


def stopping(run):
    from influence_core.correction.run import run as correct

    def start(spec, result):
        for event in correct(spec, result):
            if isinstance(event, Step) and event.step == 1:
                request_stop(result)
            yield event

    return start


def test_what_has_no_report_says_why(opened):
    spec = CorrectionSpec(workspace=opened.name, example=opened.mispredictions()["id"].iloc[0], **FAST)
    waiting = RunDirectory.create(spec)
    with pytest.raises(UserError, match="is pending: wait for its end"):
        report(waiting.id)
    waiting.kill()
    with pytest.raises(UserError, match="ended before its first step"):
        report(waiting.id)
    other = RunDirectory.create(PredictSpec(workspace=opened.name))
    with pytest.raises(UserError, match="is of kind predict"):
        report(other.id)


def test_the_command_writes_the_file(opened, tmp_path, capsys):
    run = finished(opened, steps=1)
    out = tmp_path / "report.html"
    with pytest.raises(SystemExit) as ended:
        main(["report", run.id, "--out", str(out)])
    assert ended.value.code == 0
    assert out.read_text().startswith("<!DOCTYPE html>")
    for wrong in (tmp_path / "report.txt", tmp_path / "nowhere" / "report.html"):
        with pytest.raises(SystemExit) as ended:
            main(["report", run.id, "--out", str(wrong)])
        assert ended.value.code == 2
    assert "ends in .html" in capsys.readouterr().err


def test_parts_are_escaped_unless_they_are_markup():
    made = element("p", "<a>", element("b", "&"), title='"x"').html
    assert made == '<p title="&quot;x&quot;">&lt;a&gt;<b>&amp;</b></p>'
    assert "<td>&lt;td&gt;</td>" in table(("a",), [["<td>"]]).html
    assert "<title>&lt;/title&gt;</title>" in page("</title>", [], {})


@pytest.mark.browser
def test_it_opens_from_disk_without_a_network_and_draws_its_charts(hostile, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(report(finished(hostile).id))
    with chromium() as browser:
        for scheme in ("light", "dark"):
            page = open_page(browser, scheme)
            said, asked = [], []
            page.on("console", lambda message, said=said: said.append(message.text))
            page.on("pageerror", lambda error, said=said: said.append(str(error)))
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.goto(f"file://{file}")
            page.wait_for_function("document.querySelectorAll('.js-plotly-plot .main-svg').length >= 4")
            assert page.title().startswith("Correction of")
            ink = page.evaluate("getComputedStyle(document.querySelector('.gtitle')).fill")
            paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
            light = [int(re.findall(r"\d+", colour)[0]) for colour in (ink, paper)]
            assert (light[0] > light[1]) == (scheme == "dark")
            assert said == []
            assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)
            page.context.close()
