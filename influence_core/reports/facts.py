"""All that is known of a correction that is over, gathered once: for the model card and for the report."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from influence_core.charts import number, percent
from influence_core.errors import UserError
from influence_core.home import read_json
from influence_core.labels.events import LabelEvent
from influence_core.labels.store import LabelStore
from influence_core.rankings import Ranking
from influence_core.reports.chosen import chosen_words
from influence_core.reports.commands import correct_command
from influence_core.settings import METHOD_NAMES
from influence_core.specs import MOST_TOGETHER, WARM_BATCHES, Correcting, Split, parse_spec
from influence_core.workspace import Workspace

RANKING = "ranking.json"  # the ranking that B was chosen from, as it was then
STRATEGIES = {
    "proponents": "top proponents, relabelled to the desired label",
    "opponents": "top opponents, as labelled",
    "random": "random rows labelled as the prediction, relabelled to the desired label (control)",
    "permuted": "top proponents of another misprediction, relabelled to the desired label (control)",
}
ANNOTATED = {  # of rows that annotators changed alone (`checks.candidates`)
    "proponents": "top proponents until annotators changed their label, with the annotators' label",
    "opponents": "top opponents since annotators changed their label, with the annotators' label",
    "random": "random rows whose label annotators changed, with the annotators' label (control)",
    "permuted": (
        "top proponents of another misprediction until annotators changed their label, with the annotators' label "
        "(control)"
    ),
}
STATES = {
    "checkpoint": "the checkpoint's own state",
    "warm": f"a state warmed over {WARM_BATCHES} batches at learning rate 0",
    "zeros": "a state of zeros",
}


@dataclass(frozen=True)
class Corrected:
    """A row that was corrected; labels by name."""

    example: str
    split: Split
    truth: str
    predicted: str
    desired: str


@dataclass(frozen=True)
class Correction:
    """What a correction left, and the workspace that it was made in."""

    workspace: Workspace
    manifest: dict[str, Any]
    outcome: dict[str, Any]  # the run's result; empty where it ended before its comparison
    rankings: tuple[Ranking, ...]  # B was chosen from, one an example; none for random rows, or where not recorded

    @cached_property
    def spec(self) -> Correcting:
        """The spec as the run had it."""
        spec = parse_spec(self.manifest["spec"])
        assert isinstance(spec, Correcting)
        return spec

    @cached_property
    def examples(self) -> list[Corrected]:
        """The corrected rows: one, or several that were corrected together."""
        several = self.manifest.get("examples")
        if several is None:
            own = {name: self.manifest[name] for name in ("predicted", "desired")}
            several = [{"example": self.manifest["spec"]["example"], **own}]
        names, workspace = self.workspace.label_names, self.workspace
        return [
            Corrected(
                example=about["example"],
                split=workspace.locate(about["example"])[0],
                truth=names[workspace.truth(about["example"])],
                predicted=about["predicted"],
                desired=about["desired"],
            )
            for about in several
        ]

    @cached_property
    def rows(self) -> list[str]:
        """The training rows of B, [k]; where several groups have a row, it is there as often."""
        return [row for about in self.manifest.get("groups", [self.manifest]) for row in about["rows"]]

    @cached_property
    def row_labels(self) -> list[str]:
        """The labels that l_B used, [k]."""
        return [label for about in self.manifest.get("groups", [self.manifest]) for label in about["row_labels"]]

    @cached_property
    def labels(self) -> list[str]:
        """The labels of B's rows at the run's cursor, [k]: the data's own, or those that annotators gave."""
        current = LabelStore().current(self.manifest["data"], self.manifest["cursor"])
        return [current.get(row) or self._own[row] for row in self.rows]

    @cached_property
    def _own(self) -> dict[str, str]:
        return self.workspace.original_labels(self.rows)

    @cached_property
    def label_events(self) -> list[LabelEvent]:
        """The label events that touch rows of B up to the run's cursor, oldest first."""
        rows = set(self.rows)
        return [event for event in self._events if event.example in rows]

    @cached_property
    def batch_events(self) -> list[LabelEvent]:
        """The label events of other training rows that the batches were trained with, oldest first (annotated_loss)."""
        if not self.spec.annotated_loss:
            return []
        others = set(self.workspace.train["id"].astype(str)) - set(self.rows)
        return [event for event in self._events if event.example in others]

    @cached_property
    def _events(self) -> list[LabelEvent]:
        """All events that the run saw."""
        history = LabelStore().history(self.manifest["data"])
        return [event for event in history if (event.seq or 0) <= self.manifest["cursor"]]

    @property
    def whose(self) -> str:
        """Say where the labels that B was trained with come from."""
        count = len(self.rows)
        these, were, had = ("row", "was", "label that it") if count == 1 else ("rows", "were", "labels that they")
        said = f"The {count} {these} of B {were}"
        if self.spec.only_annotated:
            said += f" chosen among those whose label annotators changed, and {were} trained with it."
        elif self.spec.strategy == "opponents":
            said += f" trained with the {had} had."
        else:
            said += " set to the desired label as an experiment; no annotation was written by it."
        if not self.label_events:
            return f"{said} No annotator had decided on any of them."
        return f"{said} Annotators had decided on {_deciding(self.label_events)}."

    @property
    def whose_batches(self) -> str:
        """Say whose labels the batches were trained with, where `batch_events` are there."""
        others = _deciding(self.batch_events, "other training rows")
        return f"The batches were trained with annotators' labels as well. They had decided on {others}."

    @property
    def those(self) -> str:
        """What was corrected, as a sentence that measures distance from it names it."""
        return "the corrected one" if len(self.examples) == 1 else "any of the corrected ones"

    @property
    def ending(self) -> str:
        """Say how it ended: flipped where, or not, and what happens without it."""
        steps = self.manifest["steps"]
        if not self.outcome:
            return f"Ended at step {steps} of at most {self.spec.steps}, without a comparison."
        if len(self.examples) > 1:
            by_themselves = sum(about["base_flip_step"] is not None for about in self.outcome["examples"])
            return (
                f"{self.outcome['flipped']} of {self.outcome['of']} are predicted as desired at the end, step {steps}. "
                f"Without correction {by_themselves} of them flip by themselves."
            )
        desired = self.examples[0].desired
        flip, own = self.outcome["flip_step"], self.outcome["base_flip_step"]
        said = (
            f"Flipped to {desired} at step {flip}{', lost again at the end' if 'lost_again' in self.outcome else ''}."
            if flip is not None
            else f"Not flipped to {desired} in {steps} steps."
        )
        alone = f"flips by itself at step {own}" if own is not None else f"does not flip by itself in {steps} steps"
        return f"{said} Without correction the row {alone}."

    @property
    def settings(self) -> Iterator[tuple[str, str]]:
        """Yield what was done, as (name, value)."""
        spec, about = self.spec, self.manifest
        share = about["epsilon"] / (1 + about["epsilon"])
        yield "rows of B", f"{len(self.rows)} {(ANNOTATED if spec.only_annotated else STRATEGIES)[spec.strategy]}"
        if (said := chosen_words(about)) is not None:
            yield "chosen", said
        if "groups" in about:
            groups = (f"{each['name']} (ε = {number(each['epsilon'])})" for each in about["groups"])
            yield "groups", f"{len(about['groups'])}: {', '.join(groups)}"
        if (given := about.get("given")) is not None:
            yield "groups given by", f"column {given['column']} of {given['file']}"
        if (method := self.method) is not None:
            named = ", ".join(f"{name} {value}" for name, value in spec.settings.items())
            yield "ranked by", f"{METHOD_NAMES[method]}{f' ({named})' if named else ''}, order {spec.by}"
            yield "ranked for", f"the {spec.target} label" if spec.target in ("predicted", "gold") else spec.target
        yield "weight of B", f"{percent(share)} of the batch's weight (ε = {number(about['epsilon'])})"
        whose = "the annotators'" if spec.annotated_loss else "their original"
        yield "batch", f"{spec.batch_size} rows with {whose} labels"
        if not spec.dropout:
            yield "dropout", "off"
        if spec.batchnorm == "train":
            yield "BatchNorm", "by the batch's statistics, running statistics moved along"
        yield "optimizer", f"{about['optimizer']['kind']}, from {STATES[about['optimizer_state']]}"
        yield "learning rate", number(about["optimizer"]["learning_rate"])
        yield "trained", f"scope {about['scope']}"
        yield "steps", f"{about['steps']} of at most {spec.steps}; to stop {spec.after_flip} after the flip"
        yield "seed", str(spec.seed)

    @property
    def method(self) -> str | None:
        """The method that ranked; None where none did or the run did not record it."""
        return self.rankings[0].method if self.rankings else self.spec.method

    @property
    def provenance(self) -> Iterator[tuple[str, str]]:
        """Yield what it was made of and with, as (name, value)."""
        about, spec = self.manifest, self.spec
        yield "workspace", spec.workspace
        yield "parent checkpoint", about["checkpoint"]
        yield "its fingerprint", about["checkpoint_fingerprint"]
        yield "data fingerprint", about["data"]
        yield "labels", self.cursor
        if about["stale"]:
            yield "scored by older labels", f"{about['stale']} training rows"
        yield "frozen part", "its kept outputs" if about["prefix"] == "kept" else f"computed: {about['prefix']}"
        yield "machine", f"{about['device']}, threads: {about['threads']}, {about['dtype']}"
        yield (
            "versions",
            ", ".join(f"{name} {of}" for name, of in about.get("versions", {"torch": about["torch"]}).items()),
        )
        yield "made", about["made"]

    @property
    def cursor(self) -> str:
        """Name the labels that it read."""
        at = self.manifest["cursor"]
        return (
            f"the labels as they stood at label event {at}" if at else "the data's own labels, before any label event"
        )

    def command(self, keep: str | None = None) -> str:
        """Return the command that repeats it."""
        return correct_command(self.manifest, self.outcome, self.method, keep)


def _deciding(events: Sequence[LabelEvent], rows: str = "of them before") -> str:
    """Say on how many rows was decided, and by whom."""
    people = ", ".join(sorted({event.annotator for event in events}))
    return f"{len({event.example for event in events}):,} {rows}: {people}"


def read(workspace: Workspace, result: Path) -> Correction:
    """Read a correction's result folder; raises `UserError` where it left nothing (it ended before its first step)."""
    if not (result / "manifest.json").exists():
        raise UserError("this correction has left no parameters (it ended before its first step): run it again")
    outcome = read_json(result / "result.json") if (result / "result.json").exists() else {}
    manifest = read_json(result / "manifest.json")
    files = [result / RANKING, *(result / f"example-{number}" / RANKING for number in range(MOST_TOGETHER))]
    rankings = tuple(Ranking(**read_json(file)) for file in files if file.exists())
    return Correction(workspace, manifest, outcome, rankings)
