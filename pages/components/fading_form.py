"""The settings of a fading measurement: three presets, what can be changed of them, and the start."""

from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

import streamlit as st

from influence_core.attribution.abif import Abif, has_basis
from influence_core.errors import UserError
from influence_core.estimates import estimate
from influence_core.settings import METHOD_NAMES, Method
from influence_core.specs import Attributed, FadingSpec, Scoped
from influence_core.study_checks import check_drawn
from influence_core.workspace import DEMOS, Checkpoint, Workspace
from pages.components.errors import shown_errors
from pages.components.fading_words import carried_words, sizes_words
from pages.components.guard import Context
from pages.components.offering import unavailable
from pages.components.ranking_words import scope_words
from pages.components.submitting import submit_button
from pages.components.text import plain

START = "fading_start"
PRESET = "fading_preset"
# names of the widgets' values in the session, kept from page to page
METHODS = "fading_methods"
SCOPE = "fading_scope"
OPTIMIZER = "fading_optimizer"
RATE = "fading_rate_"  # followed by the optimizer's kind
STEPS = "fading_steps"
TRAIN = "fading_train"
TEST = "fading_test"
REPEATS = "fading_repeats"
BATCH = "fading_batch"
SEED = "fading_seed"
CARRIED = "fading_carried"  # of which run, and what it had that no widget shows (`Carried`)

DEMO = DEMOS[0]  # the checkpoint on which the presets' rates were chosen
SCOPES = ("head", "last:1", "last:2", "all")
HIDDEN = ("epsilon", "dropout", "dtype", "optimizer_state", "settings")  # fields that only the command line sets
ALL_METHODS: tuple[Method, ...] = get_args(Method)


class Carried(NamedTuple):
    """Settings of a run that the form has no place for; they hold for its workspace and checkpoint alone."""

    workspace: str
    checkpoint: str | None
    optimizer: str  # that an optimizer state belongs to
    fields: dict[str, Any]  # of the spec


class Preset(NamedTuple):
    """A name, why to choose it, and all settings but methods, batch size and seed."""

    name: str
    why: str
    values: dict[str, Any]


# On the movie reviews with scope last:1, SGD at 0.1 fades within 20 to 25 steps and at 0.2 within ten,
# Adam at 1e-4 within about 40.
PRESETS = (
    Preset(
        "Quick look",
        "few rows, steps large enough to see it at once",
        {REPEATS: 3, TRAIN: 8, TEST: 8, STEPS: 8, SCOPE: "last:1", OPTIMIZER: "sgd", RATE + "sgd": 0.2},
    ),
    Preset(
        "A careful look",
        "enough repeats for a verdict",
        {REPEATS: 5, TRAIN: 16, TEST: 8, STEPS: 24, SCOPE: "last:1", OPTIMIZER: "sgd", RATE + "sgd": 0.1},
    ),
    Preset(
        "As in the paper",
        "its sizes, with the checkpoint's own kind of optimizer (Fig. 2)",
        {REPEATS: 5, TRAIN: 32, TEST: 16, STEPS: 40, SCOPE: "last:1", OPTIMIZER: "checkpoint"}
        | {RATE + "adam": 1e-4, RATE + "sgd": 0.1},
    ),
)
DEFAULTS: dict[str, Any] = {METHODS: ["tracin"], RATE + "adam": 1e-4, SEED: 0} | PRESETS[0].values


def new_measurement(context: Context) -> None:
    """Show the presets, the settings behind them, and the start with an estimate."""
    workspace, checkpoint = context.workspace, context.checkpoint
    for key, value in {BATCH: min(32, len(workspace.train)), **DEFAULTS}.items():
        st.session_state.setdefault(key, value)
    _presets(context)
    with st.expander("More settings", icon=":material/tune:", key="fading_more"):
        _settings(workspace, checkpoint)
    if taken := carried(context):
        st.caption(plain(carried_words(taken)))
        st.button("Leave these out", key="fading_drop_carried", icon=":material/close:", on_click=drop_carried)
    with shown_errors():
        spec = asked(context)
        words = estimate(workspace, spec).words
        st.caption(plain(sizes_words(spec)))
        if workspace.name != DEMO:
            st.caption(
                "The presets' learning rates were chosen on the movie reviews. Here they may have to be changed: "
                "raise the rate if the curve stays near 1, lower it if training diverges."
            )
        submit_button(
            f"Start ({words})", START, spec, f"fading, {sizes_words(spec)}", icon=":material/play_arrow:", primary=True
        )


def asked(context: Context, preset: Mapping[str, Any] | None = None) -> FadingSpec:
    """Return the spec that the widgets ask for, or would with a preset; raises `UserError` for what cannot be."""
    here = {**{key: st.session_state[key] for key in (*DEFAULTS, BATCH)}, **(preset or {})}
    if not here[METHODS]:
        raise UserError("no method is chosen: choose at least one under More settings")
    spec = context.workspace.spec(
        FadingSpec,
        {
            **context.spec,
            "methods": tuple(here[METHODS]),
            "scope": here[SCOPE],
            "optimizer": here[OPTIMIZER],
            "learning_rate": here[RATE + _kind(context.checkpoint, here[OPTIMIZER])],
            "steps": here[STEPS],
            "train_rows": here[TRAIN],
            "test_rows": here[TEST],
            "repeats": here[REPEATS],
            "batch_size": here[BATCH],
            "seed": here[SEED],
            **({} if preset else carried(context)),
        },
    )
    check_drawn(context.workspace, spec.train_rows, spec.test_rows)
    for name in spec.methods:
        if (why := why_not(context.workspace, spec.of_method(name))) is not None:
            raise UserError(why)
    return spec


def fill(spec: FadingSpec, kind: str) -> None:
    """Put a run's settings into the widgets (in a callback, before they are shown)."""
    values: dict[str, Any] = {OPTIMIZER: spec.optimizer, STEPS: spec.steps, TRAIN: spec.train_rows}
    values |= {TEST: spec.test_rows, REPEATS: spec.repeats, BATCH: spec.batch_size, SEED: spec.seed}
    if spec.scope is not None:
        values[SCOPE] = spec.scope
    if spec.methods:
        values[METHODS] = list(spec.methods)
    if spec.learning_rate is not None:
        values[RATE + kind] = spec.learning_rate
    usual = {name: field.get_default(call_default_factory=True) for name, field in FadingSpec.model_fields.items()}
    hidden = {name: getattr(spec, name) for name in HIDDEN if getattr(spec, name) != usual[name]}
    taken = Carried(spec.workspace, spec.checkpoint, spec.optimizer, hidden)
    st.session_state.update({**values, CARRIED: taken})


def carried(context: Context) -> dict[str, Any]:
    """Return what is taken over from the run that was opened last, where it is of this workspace and checkpoint."""
    taken = st.session_state.get(CARRIED)
    if taken is None or taken.workspace != context.workspace.name:
        return {}
    if taken.checkpoint not in (None, context.checkpoint.name):
        return {}
    same = st.session_state[OPTIMIZER] == taken.optimizer
    fields = {name: value for name, value in taken.fields.items() if same or name != "optimizer_state"}
    own = {method: each for method, each in fields.pop("settings", {}).items() if method in st.session_state[METHODS]}
    return fields | ({"settings": own} if own else {})


def drop_carried() -> None:
    """Take nothing over any more."""
    st.session_state.pop(CARRIED, None)


def why_not(workspace: Workspace, spec: Attributed) -> str | None:
    """Return why a method cannot be used here, in words; None where it can. As `studies.scoring.usable`, no torch."""
    if spec.method == "abif" and ((table := Abif().table(workspace, spec)) is None or not has_basis(table)):
        scope = scope_words(spec.scope or workspace.scope)
        return f"ABIF cannot be used here: it needs an index with its eigenvectors for the scope {scope}"
    return unavailable(workspace, spec)


def _kind(checkpoint: Checkpoint, optimizer: str) -> str:
    return str((checkpoint.optimizer or {}).get("kind", "adam")) if optimizer == "checkpoint" else optimizer


def _presets(context: Context) -> None:
    here = st.session_state
    same = [preset.name for preset in PRESETS if all(here.get(key) == value for key, value in preset.values.items())]
    here[PRESET] = same[0] if same and not carried(context) else None  # none of them once a setting was changed
    captions = [f"{preset.why}: {_cost_words(context, preset)}" for preset in PRESETS]
    names = [preset.name for preset in PRESETS]
    st.radio("How much", names, None, captions=list(map(plain, captions)), key=PRESET, on_change=_use_preset)


def _cost_words(context: Context, preset: Preset) -> str:
    """Say what a preset measures and how long it takes here; what speaks against it is said once it is chosen."""
    try:
        spec = asked(context, preset.values)
    except UserError:
        return "not with these rows and methods"
    return f"{sizes_words(spec)}, {estimate(context.workspace, spec).words}"


def _use_preset() -> None:
    chosen = st.session_state[PRESET]
    st.session_state.update(next(preset.values for preset in PRESETS if preset.name == chosen))
    drop_carried()


def _settings(workspace: Workspace, checkpoint: Checkpoint) -> None:
    scopes = [*SCOPES, *([workspace.scope] if workspace.scope not in SCOPES else [])]
    if st.session_state[SCOPE] not in scopes:  # of a run with another
        scopes.append(st.session_state[SCOPE])
    st.selectbox(
        "Trained and scored",
        scopes,
        format_func=scope_words,
        key=SCOPE,
        persist_state="session",
        help="which parameters; the fewer, the faster",
    )
    asked = Scoped(workspace=workspace.name, checkpoint=checkpoint.name, scope=st.session_state[SCOPE])
    reasons = {name: why for name in ALL_METHODS if (why := why_not(workspace, asked.of_method(name))) is not None}
    st.multiselect(
        "Scores by",
        [name for name in ALL_METHODS if name not in reasons or name in st.session_state[METHODS]],
        format_func=METHOD_NAMES.__getitem__,
        key=METHODS,
        persist_state="session",
        help="all of them are compared with the same trainings; each costs its own scores",
    )
    if reasons:
        st.caption(plain(" ".join(f"{why}." for why in reasons.values())))
    recorded = _kind(checkpoint, "checkpoint")
    names = {"checkpoint": f"as recorded ({'SGD' if recorded == 'sgd' else 'Adam'})", "adam": "Adam", "sgd": "SGD"}
    st.selectbox("Optimizer", list(names), format_func=names.__getitem__, key=OPTIMIZER, persist_state="session")
    kind = _kind(checkpoint, st.session_state[OPTIMIZER])
    rate = {"min_value": 0.0, "step": DEFAULTS[RATE + kind], "format": "%g"}
    st.number_input("Learning rate", **rate, key=RATE + kind, persist_state="session", help="larger steps fade sooner")
    left, right = st.columns(2)
    rows = len(workspace.train)
    _whole(left, "Training rows", TRAIN, 3, 1000, "each is trained on with another weight, on its own")
    _whole(right, "Test rows", TEST, 1, 1000, "whose loss is read after each step")
    _whole(left, "Steps", STEPS, 1, 10_000, "of training")
    _whole(right, "Repeats", REPEATS, 1, 1000, "each with other rows; a verdict takes 5")
    _whole(left, "Batch size", BATCH, 1, min(4096, rows), "rows of each training batch")
    _whole(right, "Seed", SEED, 0, 2**31, "of rows, batches and dropout; the same seed gives the same measurement")


def _whole(column: Any, label: str, key: str, least: int, most: int, text: str) -> None:
    st.session_state[key] = min(most, max(least, st.session_state[key]))  # out of range it would become the least one
    column.number_input(label, min_value=least, max_value=most, step=1, key=key, persist_state="session", help=text)
