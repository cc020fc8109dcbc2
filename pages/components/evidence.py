"""From rankings and neighbours to the cards that show them."""

from collections.abc import Sequence

from influence_core.data.dataset import words
from influence_core.rankings import RankedRow, Ranking
from influence_core.similar import Neighbours
from influence_core.workspace import Workspace
from pages.components.cards import Evidence
from pages.components.text import signed


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
            text=words(frame, int(row)),
            predicted=predicted,
            truth=truth,
            gold=names[int(frame["gold"].iloc[row])] if "gold" in frame else None,
        )
        for place, (row, cosine) in enumerate(zip(neighbours.rows, neighbours.cosines, strict=True), start=1)
    ]
