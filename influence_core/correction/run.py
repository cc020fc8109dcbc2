"""A correction, step by step: lockstep with the uncorrected run, flip, retention, before and after."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from influence_core.artefacts import write_parquet
from influence_core.attribution.ranking import run as rank
from influence_core.checks import check_correction, desired_label, ranking_spec
from influence_core.correction.strategies import STRATEGIES, Chosen, Request
from influence_core.errors import RunFailedError, UserError
from influence_core.events import Events, Progress, Result, Step, through
from influence_core.home import write_json
from influence_core.models import prefix
from influence_core.models.classifier import Batch, Parameters, Rows
from influence_core.models.loading import rows_of
from influence_core.models.predict import Predictions, predict
from influence_core.models.predict import run as predict_split
from influence_core.models.prefix import Opened, open_scope
from influence_core.models.suffix import Suffix
from influence_core.models.tensor_names import file_names
from influence_core.rankings import Ranking
from influence_core.runs.stopping import stop_requested
from influence_core.specs import RETENTION_ROWS, CorrectionSpec, PredictSpec, Split
from influence_core.trajectory.optimizers import OptimizerSpec
from influence_core.trajectory.perturbation import Perturbation
from influence_core.trajectory.rollout import Lockstep, lockstep
from influence_core.trajectory.start import Start, optimizer_of, start_state
from influence_core.trajectory.step import TrainingStep
from influence_core.workspace import WEIGHTS, Labels, Workspace, now

SPLIT: Split = "test"  # compared before and after
RETENTION_SEED = 0


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


def few_rows(setting: Setting, opened: Opened, split: Split, rows: list[int], labels: list[int] | None = None) -> Batch:
    """Return a few rows for the classifier that trains, from behind the frozen prefix where there is one."""
    plain = rows_of(setting.workspace, opened.whole, split).batch(rows, labels)
    suffix = opened.classifier
    if not isinstance(suffix, Suffix):
        return plain
    return suffix.collate([output.numpy() for output in suffix.prefix(plain)], plain.labels.cpu().numpy())


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
        for needed in {split: None, "test": None}:
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
        asked = ranking_spec(spec)
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
    request = Request(setting.workspace, spec, setting.predicted, setting.desired, setting.labels.values, ranking)
    chosen = strategy.choose(request)
    yield replace(chosen, stale=ranking.stale if ranking else 0)


class Reader:
    """Reads the corrected row and the retention rows after each step."""

    def __init__(self, setting: Setting, opened: Opened, start: Parameters) -> None:
        self.setting, self.opened = setting, opened
        self.target = few_rows(setting, opened, setting.split, [setting.row], [setting.desired])
        numbers = [setting.workspace.locate(example)[1] for example in setting.retention_ids]
        self.retained = few_rows(setting, opened, "test", numbers) if numbers else None
        self.first = self._predictions(start)

    def _predictions(self, parameters: Parameters) -> np.ndarray:
        if self.retained is None:
            return np.zeros(0, dtype=np.int64)
        with torch.no_grad():
            return self.opened.classifier.logits(self.retained, parameters).argmax(1).cpu().numpy()

    def _target(self, parameters: Parameters) -> tuple[float, float, str]:
        """Return loss (as the classifier defines it) and probability of the desired label, and the prediction."""
        classifier, desired = self.opened.classifier, self.setting.desired
        with torch.no_grad():
            logits: Tensor = classifier.logits(self.target, parameters).double()
            loss = classifier.losses_of(logits, self.target.labels)
        name = self.setting.workspace.label_names[int(logits[0].argmax())]
        return float(loss), float(logits[0].softmax(0)[desired]), name

    def read(self, item: Lockstep) -> Step:
        """Return what a step shows."""
        loss, probability, prediction = self._target(item.parameters)
        base_loss, base_probability, base_prediction = self._target(item.base_parameters)
        differs = self._predictions(item.parameters) != self.first
        changed = [example for example, other in zip(self.setting.retention_ids, differs, strict=True) if other]
        return Step(
            step=item.t,
            loss=loss,
            probability=probability,
            prediction=prediction,
            base_loss=base_loss,
            base_probability=base_probability,
            base_prediction=base_prediction,
            divergence=item.divergence,
            integrated_lr=item.integrated_lr,
            retention=1 - len(changed) / max(1, len(self.first)),
            changed=changed,
        )


def run(spec: CorrectionSpec, result: Path) -> Events:
    """Correct; yields progress, a `Step` per step from step 0, then the result.

    Stops ``after_flip`` steps after the flip, at ``steps``, or when asked to (`runs.stopping`). The
    last parameters and optimizer state are left in ``result`` however the run ends, so that they
    can be kept.
    """
    setting = yield from through(prepare(spec, result), Setting)
    chosen = yield from through(choose(setting, result), Chosen)
    workspace = setting.workspace
    opened = open_scope(workspace, spec.checkpoint, spec.scope, only_kept=True)  # after the ranking, which may keep it
    scope, classifier = opened.scope, opened.classifier
    checkpoint = workspace.checkpoint(spec.checkpoint)
    optimizer = optimizer_of(checkpoint, spec.optimizer, spec.learning_rate)
    rows = yield from through(prefix.rows(workspace, opened, "train"), Rows)  # original labels (DEFINITIONS)
    step = TrainingStep(classifier, scope, optimizer, rows, spec.batch_size, spec.seed)
    parameters = classifier.parameters(scope)
    start = yield from through(start_state(workspace, checkpoint, step, parameters, spec.optimizer_state), Start)
    perturbation = Perturbation.mean(rows.batch(chosen.numbers, chosen.labels))
    epsilon = torch.tensor([spec.weight], dtype=classifier.dtype, device=classifier.device)
    reader = Reader(setting, opened, parameters)
    steps: list[Step] = []
    last: Lockstep | None = None
    desired = workspace.label_names[setting.desired]
    try:
        for last in lockstep(step, parameters, start.state, epsilon, perturbation, spec.steps):
            seen = reader.read(last)
            if not (math.isfinite(seen.loss) and math.isfinite(seen.divergence)):
                at, last = last.t, None  # nothing of this can be kept
                raise RunFailedError(
                    f"the correction diverged at step {at} (its loss is not finite): "
                    f"lower the learning rate, {optimizer.learning_rate:g}"
                )
            steps.append(seen)
            yield seen
            flip = flip_step(steps, desired)
            if (flip is not None and last.t >= flip + spec.after_flip) or stop_requested(result):
                break
    finally:
        if last is not None:
            _save(setting, opened, optimizer, start, chosen, last, result)
    assert last is not None
    outcome = {**_outcome(steps, desired), "stale": chosen.stale}
    outcome.update((yield from through(_compare(setting, opened, last.parameters, result), dict)))
    write_json(result / "result.json", outcome)
    yield Result(value=outcome)


def flip_step(steps: list[Step], desired: str) -> int | None:
    """Return the first step whose prediction is the desired label, or None."""
    return next((step.step for step in steps if step.prediction == desired), None)


def _outcome(steps: list[Step], desired: str) -> dict[str, Any]:
    """Return the last line's fields (CLI): retention at the flip, otherwise at the last step."""
    flip = flip_step(steps, desired)
    base = next((step.step for step in steps if step.base_prediction == desired), None)
    at = next(step for step in steps if step.step == flip) if flip is not None else steps[-1]
    return {
        "flipped": flip is not None,
        "flip_step": flip,
        "base_flip_step": base,
        "retention": at.retention,
        "checkpoint": None,
        "steps": steps[-1].step,
    }


def _save(
    setting: Setting,
    opened: Opened,
    optimizer: OptimizerSpec,
    start: Start,
    chosen: Chosen,
    last: Lockstep,
    result: Path,
) -> None:
    """Leave parameters, optimizer state and the manifest where `keeping` finds them."""
    workspace, spec = setting.workspace, setting.spec
    result.mkdir(parents=True, exist_ok=True)
    checkpoint = workspace.checkpoint(spec.checkpoint)
    with safe_open(Path(checkpoint.path) / WEIGHTS, "pt") as file:  # what is kept has the names that the file has
        names = file_names(opened.whole.module, last.parameters, file.keys())
    changed = {names[name]: value.contiguous() for name, value in last.parameters.items()}
    save_file(changed, result / "parameters.safetensors")
    save_file(last.optimizer_state.to_tensors(), result / "optimizer.safetensors")
    manifest = {
        "spec": spec.model_dump(),
        "workspace": workspace.name,
        "data": workspace.data_fingerprint,
        "checkpoint": checkpoint.name,
        "checkpoint_fingerprint": checkpoint.fingerprint,
        "cursor": setting.labels.cursor,
        "stale": chosen.stale,
        "scope": opened.scope.name,
        "prefix": opened.reason or "kept",
        "predicted": workspace.label_names[setting.predicted],
        "desired": workspace.label_names[setting.desired],
        "epsilon": spec.weight,
        "optimizer": asdict(optimizer),
        "optimizer_state": start.source,
        "rows": [workspace.train["id"].iloc[int(number)] for number in chosen.numbers],
        "row_labels": [workspace.label_names[int(label)] for label in chosen.labels],
        "retention_rows": setting.retention_ids,
        "steps": last.t,
        "threads": torch.get_num_threads(),
        "device": str(opened.whole.device),
        "dtype": str(opened.whole.dtype),
        "torch": torch.__version__,
        "made": now(),
    }
    write_json(result / "manifest.json", manifest)


def _compare(
    setting: Setting, opened: Opened, parameters: Parameters, result: Path
) -> Iterator[Progress | dict[str, Any]]:
    """Predict the whole test set with the corrected parameters; yields progress, then before and after."""
    workspace, split = setting.workspace, SPLIT
    rows = rows_of(workspace, opened.whole, split)
    for event in predict(opened.whole, rows, parameters, phase=f"comparing on the whole {split} split"):
        if not isinstance(event, Predictions):
            yield event
            continue
        before = workspace.predict(split, setting.spec.checkpoint)
        table = event.frame(before["id"])
        write_parquet(result / "after.parquet", table)
        was = before["prediction"].to_numpy() == rows.labels
        now_right = table["prediction"].to_numpy() == rows.labels
        yield {
            "split": split,
            "before": float(was.mean()),
            "after": float(now_right.mean()),
            "fixed": before["id"][~was & now_right].tolist(),
            "broken": before["id"][was & ~now_right].tolist(),
        }
