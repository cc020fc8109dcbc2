"""How far the ranking of a correction could be trusted, where that was measured."""

from collections.abc import Iterator
from contextlib import suppress

from influence_core.charts import number
from influence_core.charts.trust import trusted_from
from influence_core.errors import UserError
from influence_core.horizons import Horizon
from influence_core.rankings import Ranking
from influence_core.reports.facts import Correction
from influence_core.runs import registry
from influence_core.runs.directory import RunDirectory
from influence_core.specs import HorizonSpec

REPEATS = 20  # as many as are looked for among those that are kept
RANKED = ("workspace", "checkpoint", "scope", "example", "method", "settings", "target", "by")
SAME = ("workspace", "example", "settings", "target", "by")  # as asked for; the others by what was found
TRAINED = ("optimizer", "optimizer_state", "learning_rate", "batch_size")


def trust_words(correction: Correction, ranking: Ranking) -> str:
    """Say for how many steps the ranking was found to hold, and with which training; or that nobody measured it."""
    for spec in _asked(correction, ranking):
        try:
            found = registry.horizon_ready(correction.workspace, spec)
        except UserError:  # the ranking is not there any more, say
            continue
        if found is not None and _is_of(found, correction, ranking):
            return _words(found)
    return "not measured."


def _asked(correction: Correction, ranking: Ranking) -> Iterator[HorizonSpec]:
    """Yield the measurements to look for: with the correction's own training, the usual one, those that runs made."""
    spec = correction.spec
    # the ranking may be of another row, and by the method that was the default then
    own = ("example", "method")
    ranked = {name: getattr(ranking if name in own else spec, name) for name in RANKED}
    ranked |= {name: correction.manifest[name] for name in ("checkpoint", "scope")}
    yield HorizonSpec(**ranked, **{name: getattr(spec, name) for name in TRAINED}, repeats=REPEATS)
    yield HorizonSpec(**ranked, repeats=REPEATS)
    kept: list[tuple[str, HorizonSpec]] = []
    for run in RunDirectory.all():
        with suppress(FileNotFoundError, UserError, ValueError):  # deleted while we looked, or damaged
            record = run.record()
            made = run.spec() if record.kind == "horizon" else None
            if isinstance(made, HorizonSpec) and all(getattr(made, name) == ranked[name] for name in SAME):
                kept.append((str(record.created), made))
    for _, made in sorted(kept, key=lambda pair: pair[0], reverse=True):
        yield made


def _is_of(found: Horizon, correction: Correction, ranking: Ranking) -> bool:
    """Tell whether a horizon is of the ranking that the correction used; specs may leave these to defaults."""
    about = correction.manifest
    return found.method == ranking.method and found.checkpoint == about["checkpoint"] and found.scope == about["scope"]


def _words(found: Horizon) -> str:
    how = (
        f"measured on {found.whole.rows} rows, {found.repeats} {'repeat' if found.repeats == 1 else 'repeats'} "
        f"({found.optimizer}, {found.state}, learning rate {number(found.learning_rate)}, batches of "
        f"{found.batch_size}); the band's lower end has to reach {number(found.trust)}."
    )
    at = found.whole.horizon
    if at is None:
        return f"not to be trusted for one step, {how}"
    if (first := trusted_from(found)) > 1:
        return f"from step {first} to step {at}, not before, {how}"
    return f"about {at} {'step' if at == 1 else 'steps'} (Σ η = {number(found.integrated_lr or 0.0)}), {how}"
