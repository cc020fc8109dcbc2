"""What a correction works on: the request checked against the workspace, and the rows of B."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from influence_core.attribution.ranking import run as rank
from influence_core.checks import changed, check_correction, desired_label, ranking_spec
from influence_core.correction.strategies import STRATEGIES, Chosen, Request
from influence_core.errors import UserError
from influence_core.events import Progress, Result
from influence_core.home import write_json
from influence_core.models.predict import run as predict_split
from influence_core.rankings import Ranking
from influence_core.specs import RETENTION_ROWS, CorrectionSpec, PredictSpec, Split
from influence_core.workspace import Labels, Workspace

RETENTION_SEED = 0
RANKING = "ranking.json"


@dataclass(frozen=True)
class Setting:
    """All that a correction needs, looked up and checked before anything slow."""

    workspace: Workspace
    spec: CorrectionSpec
    split: Split  # of the corrected row
    row: int
    predicted: int
    desired: int
    labels: Labels  # the training labels when the request was taken up
    retention_ids: list[str]


def retention_rows(workspace: Workspace, corrected: list[str]) -> list[str]:
    """Return the fixed seeded set of 50 test rows, without the corrected ones (DEFINITIONS, Correction)."""
    ids = workspace.dataset.splits["test"]["id"]  # mapped: read one by one
    order = np.random.default_rng(RETENTION_SEED).permutation(len(ids))
    return list(islice((example for number in order if (example := ids.iloc[number]) not in corrected), RETENTION_ROWS))


def prepare(spec: CorrectionSpec, result: Path) -> Iterator[Progress | Setting]:
    """Check the request against the workspace; yields progress where the split is not predicted yet."""
    workspace = Workspace.open(spec.workspace)
    split, row = workspace.locate(spec.example)
    labels = workspace.labels()
    desired = desired_label(workspace, spec)
    if split != "train":  # a training row is refused below
        limit = spec.max_validation_loss is not None and "validation" in workspace.dataset.splits
        limited: dict[Split, None] = {"validation": None} if limit else {}
        for needed in {split: None, "test": None, **limited}:
            if workspace.predictions(needed, spec.checkpoint) is None:
                asked = PredictSpec(workspace=spec.workspace, checkpoint=spec.checkpoint, split=needed)
                yield from (event for event in predict_split(asked, result) if isinstance(event, Progress))
    predicted = -1 if split == "train" else int(workspace.predict(split, spec.checkpoint)["prediction"].iloc[row])
    check_correction(workspace, spec, predicted, labels.values)
    retained = retention_rows(workspace, [spec.example])
    yield Setting(workspace, spec, split, row, predicted, desired, labels, retained)


def choose(setting: Setting, result: Path) -> Iterator[Progress | Chosen]:
    """Yield progress of the ranking, where the strategy needs one, then the rows of B.

    Rows relabelled since the products were made are projected again where that is possible
    (DEFINITIONS: g_x uses the labels at the cursor); how many are left is recorded.
    """
    spec, strategy = setting.spec, STRATEGIES[setting.spec.strategy]
    ranking: Ranking | None = None
    if strategy.needs_ranking:
        asked = ranking_spec(setting.workspace, spec)
        for refresh in (False, True):
            if ranking is not None and not ranking.stale:
                break
            try:
                for event in rank(asked.model_copy(update={"refresh": refresh}), result):
                    if isinstance(event, Result):
                        ranking = Ranking(**event.value)
                    elif isinstance(event, Progress):
                        yield event
            except UserError:
                if not refresh:
                    raise
                # an index without its basis cannot project again: its ranking stands, with the stale rows counted
    if ranking is not None:  # for the report: what it was chosen from, whatever is relabelled later
        result.mkdir(parents=True, exist_ok=True)
        write_json(result / RANKING, ranking.model_dump())
    labels = setting.labels.values
    own = changed(setting.workspace, labels) if spec.only_annotated else None
    request = Request(setting.workspace, spec, setting.predicted, setting.desired, labels, ranking, own)
    chosen = strategy.choose(request)
    yield replace(chosen, stale=ranking.stale if ranking else 0)
