"""What can be known to be wrong with a correction before it runs; no Streamlit, no torch."""

from collections.abc import Sequence

import numpy as np

from influence_core.errors import UserError
from influence_core.rankings import Ranking
from influence_core.specs import CorrectionSpec, RankSpec
from influence_core.workspace import Workspace


def desired_label(workspace: Workspace, spec: CorrectionSpec) -> str:
    """Return the name of the desired label; ``gold`` is the example's own true label."""
    if spec.desired != "gold":
        return spec.desired
    split, row = workspace.locate(spec.example)
    frame = workspace.dataset.splits[split]
    return workspace.label_names[int((frame["gold"] if "gold" in frame else frame["label"]).iloc[row])]


def ranking_of(workspace: Workspace, spec: CorrectionSpec) -> Ranking | None:
    """Return the ranking that the correction picks its rows from, if it is at hand."""
    asked = RankSpec(
        workspace=spec.workspace,
        checkpoint=spec.checkpoint,
        scope=spec.scope,
        example=spec.example,
        method=spec.method,
        target=spec.target,
        by=spec.by,
        top=spec.k,
    )
    return workspace.ready(asked)


def other_rows(workspace: Workspace, spec: CorrectionSpec, handed: Sequence[str]) -> bool:
    """Whether the run would pick other proponents than those handed over from Influence, as far as is known."""
    if spec.strategy != "proponents" or not handed:
        return False
    ranking = ranking_of(workspace, spec)
    return ranking is not None and [row.id for row in ranking.proponents[: len(handed)]] != list(handed[: spec.k])


def check(workspace: Workspace, spec: CorrectionSpec, predicted: str) -> None:
    """Raise the `UserError` that the run would end with, as far as files and labels tell."""
    n = len(workspace.train)
    for name, value in (("k", spec.k), ("batch size", spec.batch_size)):
        if value > n:
            raise UserError(f"{name} = {value} but there are {n} training rows: give at most {n}")
    desired = desired_label(workspace, spec)
    workspace.label_index(desired)
    if desired == predicted:
        raise UserError(
            f"example {spec.example!r} is already predicted {predicted}, the desired label: "
            "choose another example or another desired label"
        )
    if spec.strategy == "random":
        found = int(np.count_nonzero(workspace.labels().values == workspace.label_index(predicted)))
        kind = f"labelled {predicted}"
    else:
        ranking = ranking_of(workspace, spec)
        if ranking is None:
            return  # the run ranks first
        found = len(ranking.proponents if spec.strategy == "proponents" else ranking.opponents)
        kind = spec.strategy
    if found < spec.k:
        raise UserError(f"k = {spec.k} but only {found} training rows are {kind}: lower k to {found}")
