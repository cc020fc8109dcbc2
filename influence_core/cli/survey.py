"""A survey in lines of text."""

from collections.abc import Iterator

from influence_core.survey import CheckpointFound, DataFound, Survey

SHOWN = 10  # classes and broken rows
HELP = "options that help: --class LABEL=CLASS, --label-column NAME, --text-column NAME, --test SPLIT, --drop-broken"


def words(survey: Survey) -> Iterator[str]:
    """Say what was found: checkpoints, rows, how labels became classes, what is wrong."""
    for found in survey.checkpoints:
        yield from _checkpoint(found)
    yield from _data(survey.data)
    yield from (f"problem: {problem}" for problem in survey.problems)
    if survey.problems:
        yield HELP


def _checkpoint(found: CheckpointFound) -> Iterator[str]:
    step = f", step {found.step:,}" if found.step is not None else ""
    state = "with" if (found.optimizer or {}).get("state") else "without"
    yield f"checkpoint: {found.path} ({found.family}, {found.parameters:,} parameters{step}, {state} optimizer state)"
    yield from (f"  {note}" for note in found.notes)


def _data(found: DataFound) -> Iterator[str]:
    rows = ", ".join(f"{split.rows:,} {name}" for name, split in found.splits.items())
    columns = f"{found.input_column} → input, {found.label_column} → label, " if found.columns else ""
    yield f"data: {found.source}, {rows} ({columns}ids {'from ' + found.id_column if found.id_column else 'made'})"
    if found.held_out:
        yield "  no test split was given: every fifth training row is held out as one"
    how = "" if found.matched == "none" else f", by {found.matched}"
    yield from (f"  {note}" for note in found.notes)
    for label, name in list(found.classes.items())[:SHOWN]:
        yield f"class: {label} → {name or 'no class yet'} ({counted(found.labels.get(label, 0))}{how})"
    if len(found.classes) > SHOWN:
        yield f"… and {len(found.classes) - SHOWN:,} more labels"
    for name, split in found.splits.items():
        if split.duplicates or split.leaks:
            leaks = f", {split.leaks:,} of its inputs stand in the training split as well" if split.leaks else ""
            yield f"{name}: {counted(split.duplicates)} with an input that stood before{leaks}"
    broken = sum(split.broken for split in found.splits.values())
    for row in found.broken[:SHOWN]:
        yield f"cannot be used: {row.position}: {row.reason}"
    if broken > SHOWN:
        yield f"… {broken - SHOWN:,} more rows cannot be used"


def counted(rows: int) -> str:
    """Write a number of rows."""
    return "1 row" if rows == 1 else f"{rows:,} rows"
