"""The report of a correction: one page with the example, the ranking, the labels, the course, and what it did."""

from collections.abc import Iterator, Sequence

import plotly.graph_objects as go

from influence_core import __version__, charts
from influence_core.charts import number, percent
from influence_core.charts.correction_set import set_figures
from influence_core.data.dataset import words
from influence_core.data.drawing import drawn, png, png_url
from influence_core.errors import UserError
from influence_core.events import SetStep, Step
from influence_core.labels.events import LabelEvent
from influence_core.rankings import RankedRow, Ranking
from influence_core.reports.cautions import caution, compared, end_retention, halves_words
from influence_core.reports.chosen_rows import chosen_rows, stale_words
from influence_core.reports.facts import Correction, read
from influence_core.reports.page import Markup, Part, chart, element, image, page, pairs, table
from influence_core.reports.trust import trust_words
from influence_core.runs.directory import RunDirectory
from influence_core.specs import Correcting, CorrectionSetSpec
from influence_core.workspace import Workspace

LARGE, SMALL = 252, 56  # pixels of an image's longer side: the example, a row of a table
TOP, LISTED = 20, 25  # rows shown of each side of the ranking, and of the rows fixed and broken
CUT, PICTURES = 200, 50  # characters of a text in the list of B, and the most pictures in it
STALE = "†"  # beside the label of a row that was scored by an earlier one
SIGNS = {"proponents": ("pro", "supports"), "opponents": ("opp", "opposes")}


def report(run_id: str) -> str:
    """Return the report of a run as one HTML page.

    Raises `UserError` for a run that is no correction, is not over, or left nothing.
    """
    run = RunDirectory.open(run_id)
    spec, state = run.spec(), run.state()
    if not isinstance(spec, Correcting):
        raise UserError(f"run {run_id} is of kind {state.kind}: give a correction's")
    if not state.is_over:
        raise UserError(f"run {run_id} is {state.state}: wait for its end, or stop it")
    correction = read(Workspace.open(spec.workspace), run.result)
    return correction_page(correction, [event for event in run.events()[0] if isinstance(event, Step | SetStep)])


def correction_page(correction: Correction, steps: Sequence[Step | SetStep]) -> str:
    """Return the page of what a correction left and of its steps."""
    first = correction.examples[0]
    if isinstance(correction.spec, CorrectionSetSpec):
        title = f"{len(correction.examples)} rows"
        together = [step for step in steps if isinstance(step, SetStep)]
        figures = set_figures(together, {each.example: each.desired for each in correction.examples})
    else:
        title = f"{first.example}: {first.predicted} → {first.desired}"
        figures = _figures([step for step in steps if isinstance(step, Step)], first.desired)
    return page(f"Correction of {title}", _body(correction, title, figures), figures)


def _figures(steps: Sequence[Step], desired: str) -> dict[str, go.Figure]:
    flip = charts.find_flip(steps, desired)
    makers = (charts.probability, charts.loss, charts.divergence, charts.retention)
    return {maker.__name__: maker(steps, desired, flip) for maker in makers}


def _body(correction: Correction, title: str, figures: dict[str, go.Figure]) -> Iterator[Markup]:
    yield element("h1", f"Correction of {title}")
    yield element("p", correction.ending)
    yield from _cautioned(correction)
    yield element("h2", "The example" if len(correction.examples) == 1 else "The examples")
    yield from _examples(correction)
    yield element("h2", "Which training rows were held responsible")
    yield from _rankings(correction)
    yield element("h2", "Which labels were used")
    yield from _labels(correction)
    yield element("h2", "Step by step")
    yield from (chart(name, figure) for name, figure in figures.items())
    yield element("h2", "Before and after")
    yield from _compared(correction)
    yield element("h2", "What was done")
    yield pairs(correction.settings)
    yield element("h2", "Made of")
    yield pairs(correction.provenance)
    yield element("h3", "To repeat it")
    yield element("pre", correction.command(), class_="box")
    yield element("p", f"Made with {correction.cursor}. Written by influence-debugger {__version__}.", class_="quiet")


def _cautioned(correction: Correction) -> Iterator[Markup]:
    if (said := caution(correction.outcome)) is not None:
        yield element("div", said, class_="box warn")


def _examples(correction: Correction) -> Iterator[Markup]:
    when = {about["example"]: about for about in correction.outcome.get("examples", [])}
    for each in correction.examples:
        yield element("div", _content(correction.workspace, each.example, LARGE), class_="box data")
        said = f"true {each.truth} · predicted {each.predicted} · desired {each.desired}"
        if (about := when.get(each.example)) is not None:
            flip = about["flip_step"]
            said += " · does not flip" if flip is None else f" · flips at step {flip}"
            said += "" if about["flipped"] or flip is None else ", lost again"
            own = about["base_flip_step"]
            said += " · does not flip by itself" if own is None else f" · flips by itself at step {own}"
        yield element("p", f"{each.split} row {each.example} · {said}", class_="quiet")


def _content(workspace: Workspace, example: str, side: int) -> Part:
    """Return an example's text, or its image; of one that cannot be read, why."""
    if workspace.dataset.modality == "image":
        try:
            return image(png_url(png(drawn(workspace.image(example), side))), f"row {example}")
        except UserError as error:
            return str(error)
    split, row = workspace.locate(example)
    return words(workspace.dataset.splits[split], row)


def _beginning(workspace: Workspace, example: str) -> str:
    """Return the first words of an example's text, or its image's file."""
    split, row = workspace.locate(example)
    flat = " ".join(words(workspace.dataset.splits[split], row).split())
    return flat if len(flat) <= CUT else f"{flat[:CUT].rstrip()}…"


def _rankings(correction: Correction) -> Iterator[Markup]:
    if not correction.rankings:
        drawn_at_random = correction.spec.strategy == "random"
        why = "The rows of B were drawn at random: no ranking was made." if drawn_at_random else "It was not recorded."
        yield element("p", why)
    examples = {each.example for each in correction.examples}
    for ranking in correction.rankings:
        yield from _ranking(correction, ranking, examples)


def _ranking(correction: Correction, ranking: Ranking, examples: set[str]) -> Iterator[Markup]:
    said = f"{ranking.method} at {ranking.checkpoint}, scope {ranking.scope}, {ranking.rows:,} rows, by {ranking.by}"
    if len(examples) > 1 or ranking.example not in examples:
        said = f"the ranking of row {ranking.example}: {said}"
    yield element("p", f"{said}. Trust horizon: {trust_words(correction, ranking)}", class_="quiet")
    used = set(correction.rows)
    for side, rows in (("proponents", ranking.proponents), ("opponents", ranking.opponents)):
        yield element("h3", f"Top {side}: they {SIGNS[side][1].removesuffix('s')} “{ranking.target}”")
        if not rows:
            among = "row that annotators changed" if correction.spec.only_annotated else "training row"
            yield element("p", f"There are none: no {among} {SIGNS[side][1]} it.", class_="quiet")
            continue
        yield _side(correction.workspace, side, rows, ranking.by, used)


def _side(workspace: Workspace, side: str, rows: Sequence[RankedRow], by: str, used: set[str]) -> Markup:
    colour, word = SIGNS[side]
    most = max((abs(getattr(row, by)) for row in rows), default=0.0) or 1.0
    lines: list[list[Part]] = []
    for row in rows[:TOP]:
        value = float(getattr(row, by))
        width = f"width: {100 * abs(value) / most:.1f}%"
        gold = "" if row.gold in (None, row.label) else f" (gold says {row.gold})"
        sign = "+" if value > 0 else "−" if value < 0 else "±"
        lines.append(
            [
                str(row.rank),
                element("div", element("div", class_=colour, style=width), class_="bar"),
                f"{sign}{number(abs(value))}",
                word,
                f"{row.label}{f' {STALE}' if row.stale else ''}{gold}",
                "in B" if row.id in used else "",
                row.id,
                element("span", _content(workspace, row.id, SMALL), class_="data"),
            ]
        )
    columns = ("rank", "", by, "it", "label", "used", "id", "row")
    more = [f"The first {TOP} of {len(rows)}."] if len(rows) > TOP else []
    if any(row.stale for row in rows[:TOP]):
        more.append(f"{STALE} relabelled since it was scored: its score speaks of the label that it had before.")
    return table(columns, lines, numbers=("rank", by), note=" ".join(more))


def _labels(correction: Correction) -> Iterator[Markup]:
    yield element("p", correction.whose)
    rows, workspace = chosen_rows(correction), correction.workspace
    if (said := stale_words(correction, rows)) is not None:
        yield element("p", said)
    images = workspace.dataset.modality == "image"
    workspace.look_up(row.id for row in rows)
    lines: list[list[Part]] = []
    for place, row in enumerate(rows):
        event = "" if row.decided is None else _decided(row.decided)
        own = _content(workspace, row.id, SMALL) if images and place < PICTURES else _beginning(workspace, row.id)
        lines.append([row.id, row.label, row.trained, event, element("span", own, class_="data")])
    more = f"Pictures of the first {PICTURES}." if images and len(rows) > PICTURES else ""
    yield table(("id", "label", "trained as", "annotators", "row"), lines, note=more)
    if not (events := correction.batch_events):
        return
    yield element("p", correction.whose_batches)
    shown = [[event.example, event.old, event.new, _decided(event)] for event in events[-LISTED:]]
    more = f"And {len(events) - LISTED:,} events before these." if len(events) > LISTED else ""
    yield table(("id", "from", "to", "annotators"), shown, note=more)


def _decided(event: LabelEvent) -> str:
    return f"{event.verdict} by {event.annotator}, {event.at[:16].replace('T', ' ')} UTC"


def _compared(correction: Correction) -> Iterator[Markup]:
    splits, workspace = compared(correction.outcome), correction.workspace
    if not splits:
        yield element("p", "Not compared: the run ended before it.")
        return
    lines = [
        [
            split,
            f"{len(workspace.dataset.splits[split]):,}",
            *(percent(about[when]) for when in ("before", "after")),
            *(f"{len(about[change]):,}" for change in ("fixed", "broken")),
        ]
        for split, about in splits.items()
    ]
    columns = ("split", "rows", "accuracy before", "after", "fixed", "broken")
    missing = "" if "validation" in splits else "The workspace has no validation split, or the run did not compare it."
    yield table(columns, lines, numbers=columns[1:], note=missing)
    count = len(correction.manifest["retention_rows"])
    outcome = correction.outcome
    before = f", {percent(outcome['retention'])} at the flip" if "retention_at_end" in outcome else ""
    yield element("p", f"Retention: {percent(end_retention(outcome))} of {count} fixed test rows{before}.")
    if (said := halves_words(outcome, correction.those)) is not None:
        yield element("p", said)
    for split, about in splits.items():
        for change in ("fixed", "broken"):
            yield from _changed(workspace, split, change, about[change])


def _changed(workspace: Workspace, split: str, change: str, ids: Sequence[str]) -> Iterator[Markup]:
    yield element("h3", f"{change.capitalize()} in {split}: {len(ids):,}")
    if not ids:
        yield element("p", f"No row was {change}.", class_="quiet")
        return
    places = workspace.places(ids)
    lines: list[list[Part]] = []
    for example in ids[:LISTED]:
        kind, row = places[example]
        label = workspace.label_names[int(workspace.dataset.splits[kind]["label"].iloc[row])]
        lines.append([example, label, element("span", _content(workspace, example, SMALL), class_="data")])
    yield table(("id", "label", "row"), lines)
    if len(ids) > LISTED:
        yield element("p", f"And {len(ids) - LISTED:,} more: {', '.join(ids[LISTED:])}", class_="quiet")
