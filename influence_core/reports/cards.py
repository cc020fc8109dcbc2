"""The model card of a kept correction: what was changed, by whom, what it did to other rows, how to repeat it."""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from influence_core import __version__
from influence_core.charts import percent
from influence_core.home import home
from influence_core.labels.export import defuse
from influence_core.reports.cautions import caution, compared, end_retention, halves_words
from influence_core.reports.commands import replay_command
from influence_core.reports.facts import Correction
from influence_core.reports.markdown import cell, code, fenced, listed
from influence_core.reports.snippets import library, snippet
from influence_core.specs import Split
from influence_core.workspace import Checkpoint

LISTED = 20  # ids in one list; the file beside has all
CHANGED = "changed-rows.csv"
PIPELINES = {"text": "text-classification", "seq2seq": "text2text-generation", "image": "image-classification"}
HUB_CACHE = re.compile(r"models--(.+)")  # a folder of the hub's cache, with the name's "/" written "--"


def card(correction: Correction, name: str, parent: Checkpoint, config: dict[str, Any], channels: int) -> str:
    """Return the README.md of a kept checkpoint: the hub's header in YAML, then Markdown.

    ``config`` is the folder's config.json, ``channels`` those of an image model's inputs. Source of the
    form: https://huggingface.co/docs/hub/model-cards.
    """
    return "\n\n".join([_header(parent, config), *_body(correction, name, parent, config, channels)]) + "\n"


def changed_rows(correction: Correction, after: dict[Split, pd.DataFrame]) -> str:
    """Return the CSV of all fixed and broken rows: split, id, change, true label, prediction before and after.

    ``after`` are the predictions of the corrected parameters, by split. Cells that a spreadsheet would
    run get an apostrophe in front, as `labels.export` does.
    """
    workspace, names = correction.workspace, correction.workspace.label_names
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
    writer.writerow(("split", "id", "change", "label", "before", "after"))
    for split, about in compared(correction.outcome).items():
        frame = workspace.dataset.splits[split]
        before = workspace.predictions(split, correction.manifest["checkpoint"])
        for change in ("fixed", "broken"):
            for example, (_, row) in workspace.places(about[change]).items():
                values = [frame["label"].iloc[row], *(_prediction(table, row) for table in (before, after.get(split)))]
                cells = [split, example, change, *("" if value is None else names[value] for value in values)]
                writer.writerow([defuse(each) for each in cells])
    return stream.getvalue()


def _prediction(table: pd.DataFrame | None, row: int) -> int | None:
    return None if table is None else int(table["prediction"].iloc[row])


def _header(parent: Checkpoint, config: dict[str, Any]) -> str:
    about = {
        "base_model": base_of(parent),
        "library_name": library(parent.kind, config),
        "pipeline_tag": PIPELINES[parent.kind],
        "tags": ["influence-functions", "model-correction"],
    }
    # JSON is YAML, and quotes whatever a path or a name holds
    return "\n".join(
        ["---", *(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in about.items()), "---"]
    )


def base_of(parent: Checkpoint) -> str:
    """Return the parent as others can name it: the user's own path, a name on the hub, or its name in the workspace."""
    path = Path(parent.path)
    on_hub = next((match[1].replace("--", "/", 1) for part in path.parts if (match := HUB_CACHE.fullmatch(part))), None)
    if on_hub is not None:
        return on_hub
    return parent.name if path.is_relative_to(home()) else str(path)


def _body(
    correction: Correction, name: str, parent: Checkpoint, config: dict[str, Any], channels: int
) -> Iterator[str]:
    workspace = correction.workspace
    yield f"# {name}"
    yield _what(correction) + f" It starts from {code(base_of(parent))}."
    yield _span(correction.ending)
    if (said := caution(correction.outcome)) is not None:
        yield f"> **Before you use it.** {said}"
    yield "## What was changed"
    yield _pairs(correction.settings)
    yield "### By whose labels"
    yield _span(correction.whose) + f" The run read {correction.cursor}."
    for events in (correction.label_events, correction.batch_events):
        if not events:
            continue
        if events is correction.batch_events:
            yield _span(correction.whose_batches)
        yield "\n".join(
            f"- {code(event.example)}: {code(event.old)} → {code(event.new)} ({event.verdict}), by "
            f"{code(event.annotator)}, {event.at}"
            for event in events[-LISTED:]
        ) + (f"\n- and {len(events) - LISTED:,} events before these" if len(events) > LISTED else "")
    yield f"Rows of B: {listed(correction.rows, LISTED)}; all of them with their labels are in `correction.json`."
    yield "## Before and after"
    yield from _figures(correction)
    yield "## Load it"
    yield fenced(snippet(parent.kind, parent.preparation, config, workspace.label_names, channels), "python")
    yield "## Reproduce it"
    yield fenced(correction.command(name), "bash")
    yield (
        f"in the workspace named above, with {correction.cursor}: the ranking reads labels as they "
        "stand, so rows relabelled since may change which rows are chosen. From the recorded rows and labels, "
        "whatever was relabelled since, and compared with these weights bit for bit:"
    )
    yield fenced(replay_command(workspace.name, name), "bash")
    yield "## Made of"
    yield _pairs(correction.provenance)
    yield f"Written by influence-debugger {__version__}."


def _what(correction: Correction) -> str:
    """Say which mispredictions were to change."""
    rows = [
        f"{each.split} row {code(each.example)}, true {code(each.truth)}, predicted {code(each.predicted)}, desired "
        f"{code(each.desired)}"
        for each in correction.examples
    ]
    done = f"A checkpoint that was corrected by {correction.manifest['steps']} fine-tuning steps so that"
    if len(rows) == 1:
        return f"{done} one misprediction changes: {rows[0]}."
    more = f"; and {len(rows) - LISTED} more" if len(rows) > LISTED else ""
    return f"{done} {len(rows)} mispredictions change together: {'; '.join(rows[:LISTED])}{more}."


def _figures(correction: Correction) -> Iterator[str]:
    splits = compared(correction.outcome)
    if not splits:
        yield "Not compared: the run ended before it."
        return
    rows = ["| split | rows | accuracy before | after | fixed | broken |", "|---|---:|---:|---:|---:|---:|"]
    for split, about in splits.items():
        count = len(correction.workspace.dataset.splits[split])
        figures = (percent(about["before"]), percent(about["after"]), len(about["fixed"]), len(about["broken"]))
        rows.append(f"| {split} | {count:,} | {' | '.join(str(figure) for figure in figures)} |")
    yield "\n".join(rows)
    if "validation" not in splits:
        yield "The workspace has no validation split, or the run did not compare it."
    kept = correction.manifest["retention_rows"]
    retained = percent(end_retention(correction.outcome))
    yield " ".join(
        filter(
            None,
            [
                f"Retention: {retained} of {len(kept)} fixed test rows are predicted as before.",
                halves_words(correction.outcome, correction.those),
            ],
        )
    )
    for split, about in splits.items():
        yield "\n".join(f"- {split}, {change}: {listed(about[change], LISTED)}" for change in ("fixed", "broken"))
    yield f"All of them: `{CHANGED}`."


def _pairs(pairs: Iterator[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {cell(value)} |" for name, value in pairs)])


def _span(text: str) -> str:
    """Return a sentence of ours that may quote a label or a name, with Markdown's signs taken as they are."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", " ".join(text.split()))
