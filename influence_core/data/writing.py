"""From sources to a dataset on disk, row by row: contents are never held."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa

from influence_core.data.arrow import BLOCK, TYPES, SplitWriter, read_frame
from influence_core.data.checking import Usable, checked
from influence_core.data.dataset import SPLITS, Dataset, Modality
from influence_core.data.ids import Naming, content_hash
from influence_core.data.source import Source
from influence_core.data.surveying import HELD_OUT, DataSurvey, Plan, with_progress
from influence_core.errors import UserError
from influence_core.events import Progress
from influence_core.specs import Sources, Split

BLOCK_BYTES = 2**23  # of contents in one record batch


class Blocks:
    """Collects rows for a `SplitWriter`, a bounded number and size of them at a time."""

    def __init__(self, writer: SplitWriter, modality: Modality) -> None:
        self.writer, self.modality = writer, modality
        self._clear()

    def add(self, own_id: str, content: str | bytes, label: int, file: str) -> None:
        """Append a row; the file's name counts where the writer has a column for it."""
        self.ids.append(own_id)
        self.contents.append(content)
        self.labels.append(label)
        self.files.append(file)
        self.size += len(content)
        if len(self.ids) >= BLOCK or self.size >= BLOCK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is collected."""
        if self.ids:
            cells = {"id": self.ids, self.modality: self.contents, "label": self.labels, "file": self.files}
            self.writer.write(cells)
            self._clear()

    def _clear(self) -> None:
        self.ids: list[str] = []
        self.contents: list[str | bytes] = []
        self.labels: list[int] = []
        self.files: list[str] = []
        self.size = 0


def write(spec: Sources, surveyed: DataSurvey, folder: Path) -> Iterator[Progress | Dataset]:
    """Write the usable rows as Arrow files into a folder; yields progress, then the dataset, mapped from there.

    Without a test split every fifth usable row is held out as test. The caller writes
    ``dataset.json`` (`Dataset.describe`) and may then move the folder. Raises `UserError` with the
    first problem where the look found one, and for rows that are other in number than the look counted.
    """
    if surveyed.problems:
        raise UserError(surveyed.problems[0])
    plan, modality = surveyed.plan, surveyed.found.modality
    folder.mkdir(parents=True, exist_ok=True)
    for split, source in plan.located.splits.items():
        columns = {"id": TYPES["id"], modality: TYPES[modality], "label": pa.int64()}
        columns |= {"file": TYPES["file"]} if source.of_files else {}
        held_out = split == "train" and surveyed.found.held_out
        with ExitStack() as stack:
            main = Blocks(stack.enter_context(SplitWriter(folder / f"{split}.arrow", columns)), modality)
            held = main
            if held_out:
                held = Blocks(stack.enter_context(SplitWriter(folder / "test.arrow", columns)), modality)
            rows = with_progress(named_rows(plan, split, source), source, f"writing the rows of {split}")
            number = 0
            for row in rows:
                if isinstance(row, Progress):
                    yield row
                else:
                    (held if number % HELD_OUT == HELD_OUT - 1 else main).add(*row)
                    number += 1
            main.flush()
            held.flush()
    frames = {split: read_frame(folder / f"{split}.arrow") for split in SPLITS if split in surveyed.found.splits}
    for split, frame in frames.items():
        if len(frame) != (looked := surveyed.found.splits[split].rows):
            raise UserError(
                f"the data changed while they were read: {split} had {looked:,} usable rows at the look, "
                f"now {len(frame):,}: check again"
            )
    yield Dataset(plan.located.name, surveyed.label_names, frames, notes(surveyed))


def named_rows(plan: Plan, split: Split, source: Source) -> Iterator[tuple[str, str | bytes, int, str]]:
    """Yield (id, content, class number, file's name or place) of each usable row."""
    columns, matching = plan.columns[split], plan.matching
    naming = Naming(split, plan.twice[split])
    prefix = f"{split}-" if plan.prefixed else ""
    for row in checked(source, columns, matching.index.get, matching.few, plan.broken[split]):
        if isinstance(row, Usable) and row.number is not None:
            own = naming.name(content_hash(row.content)) if columns.id is None else prefix + row.id
            yield own, row.content, row.number, str(row.place)


def notes(surveyed: DataSurvey) -> Mapping[str, Any]:
    """Return where the rows come from, for people."""
    found, plan = surveyed.found, surveyed.plan
    said: dict[str, Any] = {
        "source": {split: source.origin for split, source in plan.located.splits.items()},
        "dropped": sum(each.broken for each in found.splits.values()),
        "duplicates": {split: each.duplicates for split, each in found.splits.items()},
        "leaks": {split: each.leaks for split, each in found.splits.items() if split != "train"},
        "classes": dict(found.classes),
    }
    return {**said, "test": f"every {HELD_OUT}th row of the training data"} if found.held_out else said
