"""The stability study on a tiny workspace."""

import shutil

import numpy as np
import pytest

from influence_core.attribution.agreement import agreement
from influence_core.errors import UserError
from influence_core.events import Progress, Result
from influence_core.runs import registry
from influence_core.specs import StabilitySpec, parse_spec

SMALL = {"hessian_rows": (40, 20), "seeds": (0, 3), "k": 4, "iterations": 12, "queries": 3, "top": 5}


def test_agreement_by_hand():
    same, turned = np.array([0.4, 0.3, -0.1, -0.5]), np.array([-0.5, -0.1, 0.3, 0.4])
    assert agreement([(same, same)], 2) == {"overlap": 1.0, "spearman": pytest.approx(1)}
    assert agreement([(same, turned)], 2) == {"overlap": 0.0, "spearman": pytest.approx(-1)}
    half = np.array([0.4, -0.1, 0.3, -0.5])  # of the top two one is shared at either end
    assert agreement([(same, half), (same, same)], 2)["overlap"] == 0.75


def test_the_study_compares_every_pair_and_goes_on_from_what_is_kept(opened, tmp_path):
    opened.mispredictions()
    spec = StabilitySpec(workspace=opened.name, **SMALL)
    assert parse_spec(spec.model_dump_json()) == spec
    events = list(registry.start(spec, tmp_path))
    value = events[-1].value
    assert isinstance(events[-1], Result)
    assert [(pair["rows"], pair["seeds"]) for pair in value["pairs"]] == [
        ([40, 20], [0, 0]),
        ([40, 40], [0, 3]),
        ([20, 40], [0, 3]),
    ]
    for pair in value["pairs"]:
        assert 0 <= pair["overlap"] <= 1
        assert -1 <= pair["spearman"] < 1  # the samples differ
    again = list(registry.start(spec, tmp_path))
    assert again[-1].value["pairs"] == value["pairs"]
    assert not any("Lanczos" in event.phase for event in again if isinstance(event, Progress))


def test_it_needs_predictions(opened, tmp_path):
    shutil.rmtree(opened.artefacts.path("predictions", opened.prediction_key("test")))
    with pytest.raises(UserError, match="list its mispredictions first"):
        list(registry.start(StabilitySpec(workspace=opened.name, **SMALL), tmp_path))


def test_a_studys_indexes_answer_only_who_asks_for_them(opened, tmp_path):
    example = opened.mispredictions()["id"].iloc[0]
    opened.index(k=5, iterations=12, hessian_rows=50)
    before = opened.rank(example, method="abif")
    list(registry.start(StabilitySpec(workspace=opened.name, **SMALL), tmp_path))
    assert opened.rank(example, method="abif") == before.model_copy(update={"fresh": False})
    exact = {"k": 4, "iterations": 12, "hessian_rows": 20, "seed": 0}
    assert opened.rank(example, method="abif", settings=exact).notes["origin"] == "study"


@pytest.mark.parametrize("wrong", [{"k": 100}, {"hessian_rows": (0,)}, {"hessian_rows": ()}, {"seeds": (-1,)}])
def test_nonsense_is_one_line(opened, wrong):
    with pytest.raises(UserError):
        opened.spec(StabilitySpec, {**SMALL, **wrong})
