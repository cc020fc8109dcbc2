"""A correction of several rows together in words; no Streamlit, so that each sentence is tested alone."""

from typing import Any

from influence_core.charts import number, percent
from influence_core.groups import UNNAMED, Given
from influence_core.specs import CorrectionSetSpec
from influence_core.workspace import Checkpoint
from pages.components.correction_words import modes_words, optimizer_words, rows_words, share_of, steps, stop_words

GROUPS = {
    "example": "one for each row that is corrected",
    "cell": "one for each confusion cell",
    "annotator": "one for each annotator of the chosen training rows",
    "given": "source or slice, from a file",
    "all": "a single one of all",
}
LISTED = 6  # groups of a table that are named
FILE_HINT = (
    "Give a CSV, TSV, JSONL or Parquet file with a column id (ids of training rows, as Relabel shows them) and a "
    "column source, slice or group. Training rows that it does not name are a group of their own."
)


def given_words(given: Given, rows: int) -> str:
    """Say which groups a table gives, and how many of the workspace's training ``rows`` it names."""
    counts = given.counts
    named = ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:LISTED])
    more = f" and {len(counts) - LISTED:,} more" if len(counts) > LISTED else ""
    groups = "1 group" if len(counts) == 1 else f"{len(counts):,} groups"
    said = f"{given.file}, column {given.column}: {groups} of {sum(counts.values()):,} training rows ({named}{more})."
    rest = rows - sum(counts.values())
    return said if not rest else f"{said} The other {rest:,} are the group “{UNNAMED}”."


def share_words(spec: CorrectionSetSpec) -> str:
    """Say which share of a batch's weight all chosen rows carry together, and how it is split."""
    count = spec.k * len(spec.examples)
    if spec.only_annotated and not spec.epsilons:
        even = spec.even_groups and spec.group_by != "all"
        if spec.share is None and spec.epsilon is None and not even:
            return f"Each row counts as one row beside a batch of {spec.batch_size:,}, no up-sampling."
        if spec.share is None and spec.epsilon is None:
            return "The groups carry the weight that their rows would have beside the batch, each the same part of it."
        weight = spec.weight_of(count)
        return f"The rows carry {percent(share_of(weight))} of the batch's weight together (Σ ε = {number(weight)})."
    weight = sum(spec.epsilons) if spec.epsilons else spec.weight_of(count)
    said = f"{spec.k:,} rows for each of {len(spec.examples)} carry {percent(share_of(weight))} of the batch's weight"
    if weight == 0:
        return f"{said}: the control, both runs are the same."
    if spec.epsilons:
        return f"{said}, a weight of its own for each group."
    times = weight * spec.batch_size / count
    if spec.even_groups and spec.group_by != "all":
        return f"{said} (Σ ε = {number(weight)}), each group the same part of it."
    what = "no up-sampling" if abs(times - 1) < 1e-9 else f"each counts as {number(times)} rows of the batch"
    return f"{said} (Σ ε = {number(weight)}): {what}."


def settings_words(spec: CorrectionSetSpec, checkpoint: Checkpoint, given: Given | None = None) -> str:
    """Say all settings, a line each: rows, groups, weight, optimizer and stop rule.

    ``given`` is the table that gives the groups, where it is known.
    """
    groups = GROUPS[spec.group_by] if given is None else f"by column {given.column} of {given.file}"
    said = [
        f"{rows_words(spec)}, for each of {len(spec.examples)} rows.",
        f"Groups: {groups}.",
        share_words(spec),
        f"{optimizer_words(spec, checkpoint)}; {stop_words(spec, together=True)}.",
        modes_words(spec),
    ]
    return "\n".join(filter(None, said))


def outcome_words(outcome: dict[str, Any], spec: CorrectionSetSpec) -> str:
    """Say how it ended: how many are predicted as desired, of those how many by themselves, and what was lost again."""
    of, flipped, last = outcome["of"], outcome["flipped"], int(outcome["steps"])
    said = f"{flipped} of {of} are predicted as desired after {steps(last)} of at most {spec.steps:,}."
    lost = sum(not each["flipped"] and each["flip_step"] is not None for each in outcome["examples"])
    if lost:
        said += f" {lost} had flipped before and {'was' if lost == 1 else 'were'} lost again."
    alone = sum(each["base_flip_step"] is not None for each in outcome["examples"])
    said += f" Without correction {alone or 'none'} would have flipped by then."
    if outcome.get("retention_at_stop") is not None and spec.min_retention is not None:
        said += f" It stopped: retention was {percent(outcome['retention_at_stop'])}."
    if outcome.get("validation_loss_at_stop") is not None:
        said += f" It stopped: the validation loss was {number(outcome['validation_loss_at_stop'])}."
    return said


def table_rows(outcome: dict[str, Any]) -> list[dict[str, str]]:
    """Return which row flipped when, a row of the table each."""

    def when(step: int | None) -> str:
        return "–" if step is None else f"step {step}"

    return [
        {
            "row": each["example"],
            "predicted": each["predicted"],
            "desired": each["desired"],
            "flipped at": when(each["flip_step"]),
            "by itself": when(each["base_flip_step"]),
            "probability at the end": number(each["probability"]),
            "at the end": "as desired" if each["flipped"] else "lost again" if each["flip_step"] is not None else "not",
        }
        for each in outcome["examples"]
    ]
