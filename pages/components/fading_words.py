"""What the Fading page says, from specs and tables; no Streamlit, so that each sentence is tested alone."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from influence_core.charts import VERDICT_REPEATS, number, powerless
from influence_core.settings import CONTROLS, Method, method_words
from influence_core.specs import FadingSpec
from influence_core.workspace import Checkpoint
from pages.components.correction_words import optimizer_words, steps
from pages.components.ranking_words import scope_words
from pages.components.text import signed

INTRO = (
    "An influence score predicts what a training step on one row would do to the loss of another. "
    "Train on a little, and the prediction stops matching what happens. Here you can watch that."
)
TERMS = {
    "R(t)": "how well scores, computed once before training goes on, match the loss changes measured after t steps: "
    "1 is a perfect match (up to scale), 0 is none.",
    "Band": "where R(t) could as well lie, with 95 % confidence. Once it contains the zero line, nothing says that "
    "the scores still predict anything.",
    "Divergence": "how far two trainings have moved apart that differ in nothing but a slightly lower weight of one "
    "training row. Scores assume that they stay close.",
    "Repeat": "the same measurement with other training and test rows, drawn by lot. Each finished one is kept.",
}


def count(number: int, unit: str) -> str:
    """Return "1 repeat" or "3 repeats"."""
    return f"{number:,} {unit}" if number == 1 else f"{number:,} {unit}s"


def sizes_words(spec: FadingSpec) -> str:
    """Say how much is measured ("3 repeats of 8 × 8 rows, 12 steps")."""
    return f"{count(spec.repeats, 'repeat')} of {spec.train_rows} × {spec.test_rows} rows, {steps(spec.steps)}"


def carried_words(carried: Mapping[str, Any]) -> str:
    """Say which settings of a run are taken over that the form has no place for, by field of the spec."""
    said: dict[str, Callable[[Any], str]] = {
        "epsilon": lambda value: f"weights changed by {signed(value)}",
        "dropout": lambda value: "dropout" if value else "no dropout",
        "dtype": str,
        "optimizer_state": lambda value: f"optimizer state: {value}",
        "settings": method_settings_words,
    }
    return f"Taken over from that run: {', '.join(said[name](value) for name, value in carried.items())}."


def method_settings_words(settings: Mapping[Method, Mapping[str, Any]]) -> str:
    """Say which settings methods have that are not the usual ones."""
    return "; ".join(method_words(method, own) for method, own in settings.items())


def settings_words(spec: FadingSpec, checkpoint: Checkpoint, scope: str) -> str:
    """Say all settings of a run, a line each."""
    names = ", ".join(method_words(name, spec.settings.get(name, {})) for name in spec.methods)
    if not names:
        names = "; ".join(filter(None, ["all methods that can be used here", method_settings_words(spec.settings)]))
    return "\n".join(
        [
            f"Scores: {names}.",
            f"{count(spec.repeats, 'repeat')}: {spec.train_rows} training rows, each trained with a weight changed by "
            f"{signed(spec.epsilon)}, and {spec.test_rows} test rows whose loss is read.",
            f"{steps(spec.steps).capitalize()} on batches of {spec.batch_size}: {optimizer_words(spec, checkpoint)}.",
            f"Trained and scored: {scope_words(scope)}{_modes(spec)}. Seed {spec.seed}.",
        ]
    )


def _modes(spec: FadingSpec) -> str:
    """Say what differs from the usual training; empty for nothing."""
    return f"{'' if spec.dropout else ', no dropout'}{'' if spec.dtype is None else f', {spec.dtype}'}"


def band_words(repeats: int) -> str:
    """Say what the band means, which depends on how many repeats it rests on."""
    if repeats == 1:
        return (
            "One repeat: the band is a bootstrap over its training rows, and does not know how other rows would do. "
            f"A verdict takes {VERDICT_REPEATS} repeats."
        )
    if repeats < VERDICT_REPEATS:
        return (
            f"The band is the 95 % interval over {repeats} repeats: over so few it is wide whatever happens, so there "
            f"is no verdict. That takes {VERDICT_REPEATS}."
        )
    return f"The band is the 95 % interval over {repeats} repeats, enough for a verdict."


def noise_words(noise: Sequence[float | None], losses: float | None = None) -> str:
    """Say what training once more with no weight changed gave: its distances, else how far ``losses`` differed."""
    known = [value for value in noise if value is not None]
    if not known:
        if losses is None:
            return ""
        differed = "gives the same losses exactly" if losses == 0 else f"gives losses up to {number(losses)} away"
        return f"The same training once more, with no weight changed, {differed}."
    if max(known) == 0:
        return "The same training once more, with no weight changed, repeats itself exactly: there is no noise."
    return (
        f"The same training once more, with no weight changed, ends up to {number(max(known))} away: that is this "
        "machine's noise, the dotted line below, and distances near it mean nothing."
    )


def fading_words(table: Sequence[Mapping[str, Any]], repeats: int) -> list[str]:
    """Say of each method whether its scores still predict what happens, up to the last step there is.

    With few repeats the band is wide whatever happens: then only what R(t) did is said.
    """
    said = []
    for row in table:
        if row["method"] in CONTROLS or row["peak"] is None:
            continue
        name = "" if len(table) == 1 else f"{method_words(row['method'], row.get('settings', {}))}: "
        words = _verdict(row) if repeats >= VERDICT_REPEATS else _course(row)
        said.append(f"{name}{words}" if name else words[0].upper() + words[1:])
    return said


def _verdict(row: Mapping[str, Any]) -> str:
    last, high = row["steps"][-1], [value for value in row["high"] if value is not None]
    if powerless(row):
        return f"at none of {steps(last)} do the scores predict what happens beyond chance."
    if row["faded_at"] is not None:
        return f"after {steps(row['faded_at'])} the scores no longer predict what happens."
    if high[-1] < 0:
        return f"after {steps(last)} the scores predict the opposite of what happens{_now(row)}."
    return f"after {steps(last)} the scores still predict something of what happens{_now(row)}."


def _now(row: Mapping[str, Any]) -> str:
    return "" if row["r"][-1] is None else f", R = {number(row['r'][-1])}"


def _course(row: Mapping[str, Any]) -> str:
    peak, known = row["steps"].index(row["peak"]), [at for at, value in enumerate(row["r"]) if value is not None]
    top, end = f"{number(row['r'][peak])} after {steps(row['peak'])}", known[-1]
    if end == peak:
        return f"the scores match what happens with R = {top}."
    now = f"{number(row['r'][end])} after {steps(row['steps'][end])}"
    return f"the match of scores with what happens went from R = {top} to {now}."


def measured_words(repeat: int, repeats: int, step: int, total: int) -> str:
    """Say how far a run is."""
    return f"measured so far: repeat {repeat} of {repeats}, step {step} of {total}"


def mixed_words(repeat: int, step: int, total: int) -> str:
    """Say on how much the curve rests while a later repeat is under way; empty where it is the same everywhere."""
    if repeat == 1 or step == total:
        return ""
    return f"Up to step {step} the curve rests on {count(repeat, 'repeat')}, behind it on {repeat - 1}."


def kept_words(done: int, asked: int) -> str:
    """Say what a run that ended early has left, and what going on does."""
    if not done:
        return "No repeat was finished, so nothing is kept: going on starts with the first repeat again."
    return (
        f"{done} of {count(asked, 'repeat')} {'is' if done == 1 else 'are'} finished and kept. "
        f"Going on starts with repeat {done + 1}; what was measured of it so far is measured again."
    )
