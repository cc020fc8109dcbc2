"""A correction's settings in words, from its spec; no Streamlit, so that each sentence is tested alone."""

from typing import Any

from influence_core.charts import number, percent
from influence_core.estimates import TANGENT
from influence_core.settings import METHOD_NAMES
from influence_core.specs import DEFAULT_RATE, WARM_BATCHES, Correcting, CorrectionSpec, TrajectorySpec
from influence_core.study_costs import TANGENT_COPIES
from influence_core.workspace import Checkpoint
from pages.components import ranking_words
from pages.components.text import signed

STRATEGIES = {
    "proponents": "Relabel top proponents",
    "opponents": "Tune on top opponents",
    "random": "Random rows (control)",
    "permuted": "Another misprediction's proponents (control)",
}
STRATEGY_CAPTIONS = {
    "proponents": "the rows that support the wrong prediction most, set to the desired label",
    "opponents": "the rows that speak against the prediction most, with the labels they have",
    "random": "rows labelled as the prediction, drawn by seed, set to the desired label",
    "permuted": "those of another row with the same prediction and true label, by seed, set to the desired label",
}
METHODS = {"": "the index if there is one, else TracIn", **METHOD_NAMES}
ORDERS = {"cosine": "by cosine (large gradients do not lead)", "score": "by score"}


def rows(k: int) -> str:
    """Return "1 row" or "12 rows"."""
    return "1 row" if k == 1 else f"{k:,} rows"


def steps(n: int) -> str:
    """Return "1 step" or "12 steps"."""
    return "1 step" if n == 1 else f"{n:,} steps"


def share_of(epsilon: float) -> float:
    """Return the share s = ε / (1 + ε) of the batch's weight (DEFINITIONS, Perturbation and step)."""
    return epsilon / (1 + epsilon)


def share_words(spec: CorrectionSpec) -> str:
    """Say which share of a batch's weight the chosen rows carry, with ε."""
    if spec.only_annotated and spec.share is None and spec.epsilon is None:
        return f"Each row counts as one row beside a batch of {spec.batch_size:,}, no up-sampling."
    share, even = share_of(spec.weight), spec.k / (spec.k + spec.batch_size)
    said = f"{rows(spec.k)} carry {percent(share)} of the batch's weight (ε = {number(spec.weight)})"
    if share == 0:
        return f"{said}: the control, both runs are the same."
    if spec.only_annotated:
        return f"The rows carry {percent(share)} of the batch's weight together (ε = {number(spec.weight)})."
    if abs(share - even) < 1e-9:
        return f"{said}: each counts as one row beside a batch of {spec.batch_size:,}, no up-sampling."
    times = spec.weight * spec.batch_size / spec.k
    return f"{said}: each counts as {number(times)} rows of a batch of {spec.batch_size:,}."


def stop_words(spec: Correcting, together: bool = False) -> str:
    """Say when the run ends; of several rows ``together`` the flip is that of the last one."""
    flip, after = ("when all have flipped", "all have flipped") if together else ("at the flip", "the flip")
    when = flip if spec.after_flip == 0 else f"{steps(spec.after_flip)} after {after}"
    low = "" if spec.min_retention is None else f", or when retention is below {percent(spec.min_retention)}"
    if spec.max_validation_loss is not None:
        low += f", or when the validation loss is above {number(spec.max_validation_loss)}"
    return f"stops {when}{low}, at most {steps(spec.steps)}"


def optimizer_kind(spec: Correcting | TrajectorySpec, checkpoint: Checkpoint) -> str:
    """Return which optimizer the run uses: adam or sgd."""
    if spec.optimizer != "checkpoint":
        return spec.optimizer
    return str((checkpoint.optimizer or {}).get("kind", "adam"))


def carries_state(checkpoint: Checkpoint, kind: str) -> bool:
    """Whether the checkpoint carries the state of an optimizer of this kind."""
    recorded = checkpoint.optimizer or {}
    return recorded.get("kind") == kind and "state" in recorded


def state_source(spec: Correcting | TrajectorySpec, checkpoint: Checkpoint) -> str:
    """Return where the optimizer's state comes from: checkpoint, warm, zeros, or none (plain SGD keeps none)."""
    kind = optimizer_kind(spec, checkpoint)
    recorded = checkpoint.optimizer or {}
    if kind == "sgd" and not (recorded.get("kind") == "sgd" and recorded.get("momentum")):
        return "none"
    return spec.optimizer_state or ("checkpoint" if carries_state(checkpoint, kind) else "warm")


def optimizer_words(spec: Correcting | TrajectorySpec, checkpoint: Checkpoint) -> str:
    """Say which optimizer runs, from which state, at which learning rate."""
    kind = optimizer_kind(spec, checkpoint)
    name = {"adam": "Adam", "sgd": "SGD"}[kind]
    source = {
        "checkpoint": "state from the checkpoint",
        "warm": f"state warmed over {WARM_BATCHES} batches at learning rate 0",
        "zeros": "state from zeros",
        "none": "which keeps no state",
    }[state_source(spec, checkpoint)]
    return f"{name}, {source}, learning rate {number(spec.learning_rate or DEFAULT_RATE[kind])}"


def rows_words(spec: Correcting) -> str:
    """Say which rows B is made of and how they were picked."""
    said = f"{STRATEGIES[spec.strategy]}: {rows(spec.k)}"
    if spec.only_annotated:
        said += " (at most, of those whose label annotators changed, with that label)"
    if spec.strategy == "random":
        return f"{said}, seed {spec.seed}"
    loss = f"{spec.target} label" if spec.target in ("predicted", "gold") else f"label “{spec.target}”"
    method = ranking_words.settings_words(spec.method, spec.settings) if spec.method else METHODS[""]
    seed = f", seed {spec.seed}" if spec.strategy == "permuted" else ""
    return f"{said}{seed}, ranked for the {loss} with {method}, {ORDERS[spec.by]}"


def outcome_words(outcome: dict[str, Any], spec: CorrectionSpec, desired: str) -> str:
    """Say how a correction ended, from its result: flipped where, or not."""
    last = int(outcome.get("steps", spec.steps))
    if outcome["flipped"]:
        lost = f" Lost again: at step {last}, the end, it is predicted otherwise." if "lost_again" in outcome else ""
        at = f"step {outcome['flip_step']} of at most {spec.steps:,}"
        return f"Flipped to “{desired}” at {at}.{lost}{_below(outcome, spec)}"
    if _below(outcome, spec):
        return f"Not flipped to “{desired}”.{_below(outcome, spec)}"
    if last < spec.steps:
        return f"Stopped at step {last}, before a flip to “{desired}”."
    return f"Not flipped to “{desired}” within {steps(spec.steps)}."


def _below(outcome: dict[str, Any], spec: CorrectionSpec) -> str:
    """Say that retention or the validation loss ended the run, where they did."""
    retention, loss = outcome.get("retention_at_stop"), outcome.get("validation_loss_at_stop")
    said = f" It stopped at step {outcome.get('steps')}:"
    if retention is not None and spec.min_retention is not None:
        return f"{said} retention was {percent(retention)}, below {percent(spec.min_retention)}."
    if loss is not None and spec.max_validation_loss is not None:
        return f"{said} the validation loss was {number(loss)}, above {number(spec.max_validation_loss)}."
    return ""


def base_words(outcome: dict[str, Any], spec: CorrectionSpec) -> str:
    """Say what the free control did: the same batches without the correction."""
    flip = outcome.get("base_flip_step")
    if flip is None:
        return f"Without correction it does not flip by itself within {steps(int(outcome.get('steps', spec.steps)))}."
    return f"Without correction it flips by itself at step {flip}."


def change_words(before: float, after: float) -> str:
    """Say how an accuracy changed."""
    points = 100 * (after - before)
    return "no change" if points == 0 else f"{signed(points)} points"


def predicting_cost_words(kind: str) -> str:
    """Say what the predicted curves cost under an optimizer (adam, sgd)."""
    times, copies = (2 + TANGENT) / 2, TANGENT_COPIES[kind]
    return (
        f"A step then takes about {number(times)} times as long, and {copies} more copies of what is trained in memory."
    )


def modes_words(spec: Correcting) -> str:
    """Say what differs from the usual training: dropout, BatchNorm, whose labels; "" for nothing."""
    said = [
        "without dropout" if not spec.dropout else "",
        "BatchNorm by the batch's statistics" if spec.batchnorm == "train" else "",
        "annotators' labels in every batch" if spec.annotated_loss else "",
    ]
    found = ", ".join(filter(None, said))
    return f"{found[0].upper()}{found[1:]}." if found else ""


def settings_words(spec: CorrectionSpec, checkpoint: Checkpoint) -> str:
    """Say all settings, a line each: rows, weight, optimizer and stop rule, and what differs from the usual."""
    said = [f"{rows_words(spec)}.", share_words(spec), f"{optimizer_words(spec, checkpoint)}; {stop_words(spec)}."]
    if modes := modes_words(spec):
        said.append(modes)
    if spec.predict:
        said.append("Beside the run, what influence predicts of it: by the exact Jacobian (Eq. 6) and by TracIn's sum.")
    return "\n".join(said)
