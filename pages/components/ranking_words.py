"""What a ranking depends on and how far to trust it, in words; no Streamlit, so that each sentence is tested alone."""

from collections.abc import Mapping
from typing import Any

from influence_core.attribution.methods import METHODS
from influence_core.charts import number
from influence_core.rankings import Ranking
from influence_core.settings import METHOD_NAMES
from pages.components.text import ago


def scope_words(scope: str) -> str:
    """Write a parameter scope ("last 2 blocks and head")."""
    if scope.startswith("last:"):
        count = scope.removeprefix("last:")
        return f"last {count} blocks and head" if count != "1" else "last block and head"
    return {"head": "head", "all": "all parameters"}.get(scope, scope)


def provenance(ranking: Ranking, computed_in: float | None) -> str:
    """Write one line with all that a ranking depends on; ``computed_in`` seconds, if a run just made it."""
    parts = [METHOD_NAMES[ranking.method], *notes_words(ranking.notes)]
    if not METHODS[ranking.method].control:
        parts += [scope_words(ranking.scope), f"loss of “{ranking.target}”"]
    parts += [f"{ranking.rows:,} training rows", f"ordered by {ranking.by}"]
    if computed_in is not None:
        parts.append(f"computed now in {number(computed_in)} s")
    elif ranking.method != "random":
        parts.append(f"from the {'index' if 'k' in ranking.notes else 'cache'}, built {ago(ranking.made)}")
    if ranking.notes.get("prefix") not in (None, "kept"):
        parts.append(f"computed without the kept frozen part: {ranking.notes['prefix']}")
    return " · ".join(parts)


def notes_words(notes: Mapping[str, Any]) -> list[str]:
    """Say what a method notes of its own settings and outcome, whichever method it is."""
    said = []
    if "k" in notes:
        said.append(f"{notes['k']} eigenvectors ({notes['negative']} negative)")
    elif "seed" in notes:
        said.append(f"seed {notes['seed']}")
    if "dimension" in notes:
        said.append(f"{notes['dimension']:,} features")
    if isinstance(out := notes.get("left_out"), dict) and out["count"]:  # a number is ABIF's, of eigenvalues
        more = out["count"] - len(out["first"])
        said.append(f"without factors and left out: {', '.join(out['first'])}{f' and {more:,} more' if more else ''}")
    if "residual" in notes:
        done = "1 iteration" if notes["iterations"] == 1 else f"{notes['iterations']:,} iterations"
        ended = "converged" if notes["converged"] else "not converged"
        said.append(f"{done}, residual {number(notes['residual'])} of ‖∇l‖, {ended}")
        if notes["negative_at"] >= 0:
            said.append(f"negative curvature at iteration {notes['negative_at'] + 1}")
        if notes["breakdown_at"] >= 0:
            said.append(f"continued by MINRES after iteration {notes['breakdown_at']}")
    unknown = notes.get("eta_known") is False
    if "checkpoints" in notes:
        pairs = zip(notes["checkpoints"], notes["eta"], strict=True)
        each = [name if unknown else f"{name} (η {number(eta)})" for name, eta in pairs]
        said.append(f"checkpoints {', '.join(each)}")
    if unknown:
        said.append("learning rate unknown, taken as 1")
    return said


def caveats(ranking: Ranking) -> list[str]:
    """Say what makes the scores mean less than they seem to; empty where nothing does."""
    notes, found = ranking.notes, []
    if ranking.unsolved:
        found.append(
            "The solve found nothing better than 0, where it begins: all scores are 0, and no row is a proponent or "
            f"an opponent. Choose another method, such as {METHOD_NAMES['hif-cr']}, or add damping, in the settings."
        )
    elif notes.get("converged") is False:
        found.append(
            f"The solve did not converge: its best residual, {number(notes['residual'])} of ‖∇l‖, came after "
            f"{notes['iterations']:,} iterations. The scores are those of an unfinished H⁻¹∇l; allow more "
            "iterations, or add damping, in the settings."
        )
    if ranking.method == "hif-cg" and notes.get("negative_at", -1) >= 0:
        found.append(
            f"Conjugate Gradient met negative curvature at iteration {notes['negative_at'] + 1}: it assumes that H is "
            "positive definite, and along such a direction its step goes away from the minimum it looks for. These "
            "scores mean little; Conjugate Residual does not need that assumption, and Spectrum shows both."
        )
    return found


def settings_words(method: str, settings: Mapping[str, Any]) -> str:
    """Name a method with the settings that differ from the default ("ABIF (k 16, iterations 32)")."""
    if not settings:
        return METHOD_NAMES[method]
    said = (f"{name.replace('_', ' ')} {_value(value)}" for name, value in settings.items())
    return f"{METHOD_NAMES[method]} ({', '.join(said)})"


def _value(value: Any) -> str:
    if isinstance(value, tuple | list):
        return " and ".join(str(one) for one in value)
    return number(value) if isinstance(value, float) else str(value)
