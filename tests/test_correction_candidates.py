"""Which ranked rows a correction may take, and what is said where they are too few."""

import pytest

from influence_core.checks import candidates, check_count, check_ranked
from influence_core.errors import UserError
from influence_core.rankings import RankedRow, Ranking
from influence_core.specs import CorrectionSpec

SPEC = CorrectionSpec(workspace="w", example="a row", k=3)
ANNOTATED = SPEC.model_copy(update={"only_annotated": True})


def row(name, cosine, stale=False):
    about = {"id": name, "rank": 1, "percentile": 0.0, "label": "n", "text": ""}
    return RankedRow(**about, score=cosine, cosine=cosine, stale=stale)


def ranking(proponents, opponents, method="embedding", notes=None):
    about = {"example": "a row", "target": "n", "by": "cosine", "scope": "head", "checkpoint": "c", "cursor": 0}
    about |= {"rows": 9, "stale": 0, "made": "now", "notes": notes or {}}
    return Ranking(**about, method=method, proponents=proponents, opponents=opponents)


def ids(found):
    return [each.id for each in found]


def test_rows_whose_side_has_turned_since_they_were_scored_are_on_the_other_one():
    kept = ranking([row("p", 0.9), row("was p", 0.5, stale=True)], [row("was o", -0.8, stale=True), row("o", -0.3)])
    assert ids(candidates(SPEC, kept, "proponents")) == ["p", "was p"]  # of all rows the ranking is taken as it is
    assert ids(candidates(SPEC, kept, "opponents")) == ["was o", "o"]
    for kind in ("proponents", "opponents"):
        assert ids(candidates(ANNOTATED, kept, kind)) == ["was p", "o"]


@pytest.mark.parametrize("kind", ["proponents", "opponents"])
def test_a_refreshed_ranking_gives_the_same_rows(kind):
    """Of two classes: with the other label a row's gradient points the other way."""
    before = ranking([row("a", 0.9, stale=True), row("b", 0.5, stale=True)], [row("c", -0.7, stale=True)])
    after = ranking([row("c", 0.7)], [row("a", -0.9), row("b", -0.5)])
    assert ids(candidates(ANNOTATED, before, kind)) == ids(candidates(ANNOTATED, after, kind)) == ["a", "b"]
    check_ranked(ANNOTATED, before, kind)


@pytest.mark.parametrize(
    ("spec", "found", "message"),
    [
        (SPEC, [], "embedding finds no opponents of 'a row': choose another method or strategy"),
        (SPEC, ["a"], "k = 3 but only 1 training row is an opponent: lower k to 1"),
        (SPEC, ["a", "b"], "k = 3 but only 2 training rows are opponents: lower k to 2"),
        (
            ANNOTATED,
            [],
            "only rows that annotators changed were asked for, and embedding finds no opponents of 'a row' among them: "
            "relabel others first, on Relabel, or take all rows",
        ),
    ],
)
def test_too_few_ranked_rows_are_said_with_what_to_do(spec, found, message):
    kept = ranking([row("p", 0.9)], [row(name, -0.5) for name in found])
    with pytest.raises(UserError) as caught:
        check_ranked(spec, kept, "opponents")
    assert str(caught.value) == message


def test_a_solve_that_found_nothing_is_the_reason():
    notes = {"residual": 1.0, "iterations": 0, "converged": False}
    with pytest.raises(UserError, match="hif-cg ranks no row for 'a row': its solve found nothing better than 0"):
        check_ranked(SPEC, ranking([], [], "hif-cg", notes), "proponents")


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (0, "k = 3 but no training row is labelled n: choose another strategy"),
        (1, "k = 3 but only 1 training row is labelled n: lower k to 1"),
        (2, "k = 3 but only 2 training rows are labelled n: lower k to 2"),
    ],
)
def test_too_few_rows_to_draw_from_are_said(found, message):
    with pytest.raises(UserError) as caught:
        check_count(SPEC, found, "labelled n")
    assert str(caught.value) == message
