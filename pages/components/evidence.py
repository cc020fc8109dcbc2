"""From rankings and neighbours to the cards that show them."""

from collections.abc import Sequence

from influence_core.charts import number
from influence_core.rankings import RankedRow, Ranking
from influence_core.similar import Neighbours
from influence_core.workspace import Workspace
from pages.components.cards import Evidence
from pages.components.text import ago, signed

METHOD_NAMES = {"abif": "ABIF", "tracin": "TracIn"}
ORDER_NAMES = {"cosine": "cosine", "score": "score"}


def of_ranking(ranking: Ranking, rows: Sequence[RankedRow], word: str, predicted: str, truth: str) -> list[Evidence]:
    """Return cards of one end of a ranking."""
    by_cosine = ranking.by == "cosine"
    return [
        Evidence(
            id=row.id,
            rank=row.rank,
            value=row.cosine if by_cosine else row.score,
            word=word,
            label=row.label,
            text=row.text,
            predicted=predicted,
            truth=truth,
            percentile=row.percentile,
            detail=f"score {signed(row.score)}" if by_cosine else f"cosine {signed(row.cosine)}",
            gold=row.gold,
            stale=row.stale,
            zero_norm=row.zero_norm,
        )
        for row in rows
    ]


def of_neighbours(workspace: Workspace, neighbours: Neighbours, predicted: str, truth: str) -> list[Evidence]:
    """Return cards of the nearest training rows, with their labels as they stand."""
    names, labels, frame = workspace.label_names, workspace.labels().values, workspace.train
    return [
        Evidence(
            id=str(frame["id"].iloc[row]),
            rank=place,
            value=float(cosine),
            word="similar" if cosine > 0 else "dissimilar",
            label=names[int(labels[row])],
            text=str(frame["text"].iloc[row]),
            predicted=predicted,
            truth=truth,
            gold=names[int(frame["gold"].iloc[row])] if "gold" in frame else None,
        )
        for place, (row, cosine) in enumerate(zip(neighbours.rows, neighbours.cosines, strict=True), start=1)
    ]


def scope_words(scope: str) -> str:
    """Write a parameter scope ("last 2 blocks and head")."""
    if scope.startswith("last:"):
        count = scope.removeprefix("last:")
        return f"last {count} blocks and head" if count != "1" else "last block and head"
    return {"head": "head", "all": "all parameters"}.get(scope, scope)


def provenance(ranking: Ranking, computed_in: float | None) -> str:
    """Write one line with all that a ranking depends on; ``computed_in`` seconds, if a run just made it."""
    source = "index" if ranking.method == "abif" else "cache"
    origin = f"computed now in {number(computed_in)} s" if computed_in is not None else ""
    parts = [
        METHOD_NAMES[ranking.method],
        scope_words(ranking.scope),
        f"{ranking.rows:,} training rows",
        f"loss of “{ranking.target}”",
        f"ordered by {ORDER_NAMES[ranking.by]}",
        origin or f"from the {source}, built {ago(ranking.made)}",
    ]
    if ranking.method == "abif":
        parts.insert(2, f"{ranking.notes['k']} eigenvectors ({ranking.notes['negative']} negative)")
    elif not ranking.notes.get("eta_known"):
        parts.insert(2, "learning rate unknown, taken as 1")
    return " · ".join(parts)
