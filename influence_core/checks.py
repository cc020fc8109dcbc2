"""What can be known of a correction before it runs, without torch: page and run ask the same."""

from pathlib import Path

import numpy as np

from influence_core.errors import UserError
from influence_core.partners import partner
from influence_core.rankings import RankedRow, Ranking
from influence_core.sizes import tensor_names
from influence_core.specs import Correcting, CorrectionSpec, RankSpec
from influence_core.workspace import WEIGHTS, Workspace

MOST_RANKED = 100_000
ONE = {"proponents": "a proponent", "opponents": "an opponent"}


def desired_label(workspace: Workspace, spec: CorrectionSpec) -> int:
    """Return the desired label's class number; ``gold`` is the example's true label."""
    return workspace.truth(spec.example) if spec.desired == "gold" else workspace.label_index(spec.desired)


def ranked_example(workspace: Workspace, spec: CorrectionSpec) -> str:
    """Return whose ranking the correction picks its rows from: another misprediction's under ``permuted``.

    Its own where its split is not predicted yet, since the other cannot be told before. Raises what `partner` raises.
    """
    split, row = workspace.locate(spec.example)
    if spec.strategy != "permuted" or (found := workspace.predictions(split, spec.checkpoint)) is None:
        return spec.example
    predicted = int(found["prediction"].iloc[row])
    return partner(workspace, spec.checkpoint, spec.example, predicted, desired_label(workspace, spec), spec.seed)


def ranking_spec(workspace: Workspace, spec: CorrectionSpec) -> RankSpec:
    """Return the ranking that the correction picks its rows from. Raises what `partner` raises."""
    shared = ("workspace", "checkpoint", "scope", "method", "settings", "target", "by")
    asked = {name: getattr(spec, name) for name in shared}
    top = MOST_RANKED if spec.only_annotated else spec.k  # of annotators' rows all: proponents are on both sides
    return RankSpec(**asked, example=ranked_example(workspace, spec), top=top, only_annotated=spec.only_annotated)


def candidates(spec: Correcting, ranking: Ranking, kind: str) -> list[RankedRow]:
    """Return the ranked rows of which a strategy takes the first k; ``kind`` is proponents or opponents.

    Of rows that annotators changed, proponents are those that supported the ranking's label until then, opponents those
    that oppose it with the label they have: a row that was the one is the other since. Scores speak of the labels that
    rows have now, by which these are opponents; where they still speak of an earlier label (`RankedRow.stale`), the
    side is taken to have turned around, which is so of two classes and likely of more. So both strategies take the same
    rows, and of two classes, by cosine, the same before a ranking is refreshed and after.
    """
    if not spec.only_annotated:
        return ranking.opponents if kind == "opponents" else ranking.proponents
    opposing = [row for row in ranking.proponents if row.stale] + [row for row in ranking.opponents if not row.stale]
    return sorted(opposing, key=lambda row: -abs(row.cosine if spec.by == "cosine" else row.score))


def check_correction(workspace: Workspace, spec: CorrectionSpec, predicted: int, labels: np.ndarray) -> None:
    """Raise the `UserError` that the run would end with, as far as data and labels ([N]) tell."""
    split, _ = workspace.locate(spec.example)
    if split == "train":
        raise UserError(f"example {spec.example!r} is a training row: corrections work on validation and test rows")
    n = len(labels)
    for name, value in (("k", spec.k), ("batch size", spec.batch_size)):
        if value > n:
            raise UserError(f"{name} = {value} but there are {n} training rows: give at most {n}")
    name = workspace.label_names[predicted]
    if desired_label(workspace, spec) == predicted:
        raise UserError(
            f"example {spec.example!r} is already predicted {name}, the desired label: "
            "choose another example or another desired label"
        )
    if spec.only_annotated:
        check_count(spec, int(changed(workspace, labels).sum()), "among the training rows")
    elif spec.strategy == "random":
        check_count(spec, int((labels == predicted).sum()), f"labelled {name}")
    if spec.max_validation_loss is not None and not len(workspace.dataset.splits.get("validation", ())):
        raise UserError(
            f"max_validation_loss = {spec.max_validation_loss:g} but {workspace.name} has no validation split: "
            "leave it out, or open the data with one"
        )
    if spec.batchnorm == "train" and not has_batchnorm(workspace, spec.checkpoint, spec.scope):
        raise UserError(no_batchnorm(spec.scope or workspace.scope))
    ranked_example(workspace, spec)  # under ``permuted`` there must be another


def has_batchnorm(workspace: Workspace, checkpoint: str | None, scope: str | None) -> bool:
    """Whether the scope trains BatchNorm layers, as the names in the checkpoint's file tell.

    Models with such layers are ResNets: their head has none, and every stage has some.
    """
    names = tensor_names(Path(workspace.checkpoint(checkpoint).path) / WEIGHTS)
    return (scope or workspace.scope) != "head" and any(name.endswith(".running_mean") for name in names)


def no_batchnorm(scope: str) -> str:
    """Say that the mode of BatchNorm makes no difference."""
    return f"batchnorm = train, but scope {scope} of this checkpoint has no BatchNorm layer: leave it at eval"


def changed(workspace: Workspace, labels: np.ndarray) -> np.ndarray:
    """Return which training rows ([N] bool) have another label in ``labels`` [N] than the data's own."""
    differs: np.ndarray = labels != workspace.train["label"].to_numpy()
    return differs


def check_ranked(spec: Correcting, ranking: Ranking, kind: str) -> None:
    """Raise unless the ranking has k `candidates` of a kind; of rows that annotators changed, one is enough."""
    if ranking.unsolved:
        raise UserError(
            f"{ranking.method} ranks no row for {ranking.example!r}: its solve found nothing better than 0, so all "
            "scores are 0: choose another method, such as hif-cr"
        )
    if found := len(candidates(spec, ranking, kind)):
        check_count(spec, found, kind)
        return
    said = f"{ranking.method} finds no {kind} of {ranking.example!r}"
    if spec.only_annotated:
        raise UserError(
            f"only rows that annotators changed were asked for, and {said} among them: "
            "relabel others first, on Relabel, or take all rows"
        )
    raise UserError(f"{said}: choose another method or strategy")


def check_count(spec: Correcting, found: int, kind: str) -> None:
    """Raise unless there are k rows of a kind; of rows that annotators changed, one is enough."""
    if spec.only_annotated:
        if not found:
            raise UserError(
                f"only rows that annotators changed were asked for, and no such row is {kind}: "
                "relabel some of them first, on Relabel, or take all rows"
            )
    elif not found:
        raise UserError(f"k = {spec.k} but no training row is {kind}: choose another strategy")
    elif found < spec.k:
        rows = f"1 training row is {ONE.get(kind, kind)}" if found == 1 else f"{found} training rows are {kind}"
        raise UserError(f"k = {spec.k} but only {rows}: lower k to {found}")
