"""Who gets whose proponents: permutations without fixed points within one prediction and one desired label."""

import numpy as np
import pytest
from workspaces import tiny_workspace, use_home

from influence_core import checks
from influence_core.errors import UserError
from influence_core.partners import partner, permuted
from influence_core.specs import CorrectionSpec
from influence_core.studies.cases import Case, partners


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    use_home(monkeypatch, tmp_path)
    return tiny_workspace()


@pytest.mark.parametrize("size", [2, 3, 5, 17])
def test_a_permutation_of_the_set_without_fixed_points(size):
    rows = np.random.default_rng(size).choice(1000, size, replace=False)
    found = [permuted(rows, 0, 1, seed) for seed in range(60)]
    for each in found:
        assert set(each) == set(each.values()) == set(rows.tolist())
        assert all(row != other for row, other in each.items())
    assert found[3] == permuted(np.sort(rows), 0, 1, 3)  # whatever the order of the set
    if size > 2:  # of two there is one only
        assert len({tuple(sorted(each.items())) for each in found}) > 1


def test_a_set_of_one_has_no_other():
    assert permuted(np.array([7]), 0, 1, 0) == {}
    assert permuted(np.array([7, 7]), 0, 1, 0) == {}


def test_a_study_that_draws_all_mispredictions_gives_the_same_partners(workspace):
    wrong = workspace.mispredictions()
    drawn = [
        Case(row.id, workspace.locate(row.id)[1], int(row.prediction), int(row.label)) for row in wrong.itertuples()
    ]
    for seed in range(5):
        found = partners(drawn, seed)
        assert len(found) == len(drawn) == 8
        for case in drawn:
            own = partner(workspace, None, case.example, case.predicted, case.desired, seed)
            assert own == found[case.example].example


def test_partners_are_wrong_in_the_same_way(workspace):
    wrong = workspace.mispredictions().set_index("id")
    for example, row in wrong.iterrows():
        for seed in range(20):
            other = partner(workspace, None, example, row["prediction"], row["label"], seed)
            assert other != example
            assert (wrong.loc[other, ["prediction", "label"]] == row[["prediction", "label"]]).all()


def test_a_desired_label_that_is_not_the_true_one(tmp_path, monkeypatch):
    use_home(monkeypatch, tmp_path)
    workspace = tiny_workspace(names=("a", "b", "c"))
    asked = {"workspace": workspace.name, "example": "test-0", "strategy": "permuted"}
    spec = CorrectionSpec(**asked, desired="c")  # nobody that is predicted b is truly c here
    with pytest.raises(
        UserError, match=r"only test row that is predicted b and should be c: .* another strategy"
    ) as why:
        checks.ranking_spec(workspace, spec)
    assert "\n" not in str(why.value)
    other = checks.ranking_spec(workspace, CorrectionSpec(**asked)).example
    assert other != "test-0"
    assert workspace.truth(other) == workspace.truth("test-0")
    own = CorrectionSpec(**{**asked, "strategy": "proponents"})
    assert checks.ranking_spec(workspace, own).example == "test-0"
