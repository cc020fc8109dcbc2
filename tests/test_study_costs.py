"""What a study on trajectories is estimated to cost: it grows as the work does, and kept repeats cost nothing."""

import json

import pytest
from workspaces import TRAIN, tiny_workspace, use_home

from influence_core import rates
from influence_core.artefacts import base_key
from influence_core.estimates import START, TANGENT, WARM_BATCHES, estimate, seconds
from influence_core.estimates import TRAIN as TRAINED
from influence_core.rates import FORWARD
from influence_core.sizes import asks_few, record_outputs
from influence_core.specs import DivergenceSpec, FadingSpec, TracinErrorSpec
from influence_core.study_costs import BOTH_WAYS, OVERHEAD, PADDING, kept, scope_share, study_cost

SMALL = {"workspace": "tiny", "scope": "all", "optimizer": "sgd", "batch_size": 7, "steps": 9, "repeats": 2}
FADING = {**SMALL, "methods": ("random",), "train_rows": 4, "test_rows": 3, "learning_rate": 0.1}


@pytest.fixture
def workspace(monkeypatch, tmp_path):
    use_home(monkeypatch, tmp_path)
    made = tiny_workspace()
    rates.record(made.checkpoint().fingerprint, 10 * int(FORWARD), 10.0)  # the speed that the constants are of
    return made


def spent(workspace, spec):
    return estimate(workspace, spec).seconds - START


def keep(workspace, spec, number, arrays="trajectories", **fields):
    """Leave what a study keeps of one repeat."""
    names = ("steps", "seed", "batch_size", "dropout", "dtype")
    key = {**base_key(workspace, None, spec.scope), **{name: getattr(spec, name) for name in names}}
    key |= {"state": None, "optimizer": {"kind": "sgd", "learning_rate": 0.1}, "number": number, **fields}
    folder = workspace.artefacts.make(spec.kind, json.loads(json.dumps(key)))
    (folder / f"{arrays}.safetensors").touch()


def test_a_fading_study_trains_each_row_and_two_more_and_reads_the_test_rows(workspace):
    spec = FadingSpec(**FADING)
    # by hand: batch and a row trained on, three rows read
    step = PADDING * ((3 + OVERHEAD) * (7 + 1) + (1 + OVERHEAD / 2) * 3)
    passes = 2 * (9 + BOTH_WAYS) * (4 + 2) * step
    assert spent(workspace, spec) == pytest.approx(passes / FORWARD, rel=0.01)
    for field, times in (("repeats", 2), ("train_rows", 10 / 6)):
        more = spec.model_copy(update={field: 2 * getattr(spec, field)})
        assert spent(workspace, more) == pytest.approx(times * spent(workspace, spec), rel=0.01)
    assert spent(workspace, spec.model_copy(update={"steps": 90})) > 7 * spent(workspace, spec)


def test_kept_repeats_cost_nothing(workspace):
    spec = FadingSpec(**FADING)
    whole, rows = spent(workspace, spec), {"train": ["a"] * 4, "test": ["b"] * 3, "epsilon": -0.01}
    keep(workspace, spec, 0, **rows)
    assert spent(workspace, spec) == pytest.approx(whole / 2, rel=0.01)
    for other in ({"train": ["a"] * 5}, {"epsilon": 0.1}, {"optimizer": {"kind": "adam", "learning_rate": 0.1}}):
        keep(workspace, spec, 1, **{**rows, **other})
    assert kept(workspace, spec, train=4, test=3) == 1
    assert kept(workspace, spec.model_copy(update={"learning_rate": 0.2}), train=4, test=3) == 0
    assert kept(workspace, spec.model_copy(update={"seed": 1}), train=4, test=3) == 0
    for number in (2, 3):
        keep(workspace, spec, number, **rows)
    assert spent(workspace, spec) == 0
    adam = spec.model_copy(update={"optimizer": "adam"})
    assert spent(workspace, adam) == pytest.approx(whole / 2 + WARM_BATCHES * 7 / TRAINED, rel=0.01)  # one is kept


def test_each_method_adds_its_scores_and_hessian_based_ones_most(workspace):
    costs = [spent(workspace, FadingSpec(**{**FADING, "methods": (name,)})) for name in ("random", "tracin", "hif-cr")]
    assert costs == sorted(costs)
    assert costs[2] > 5 * costs[1]
    several = FadingSpec(**{**FADING, "methods": ("tracin", "hif-cr")})
    assert spent(workspace, several) == pytest.approx(costs[1] + costs[2] - costs[0], rel=0.01)


def test_the_frozen_part_is_computed_once_and_blocks_give_the_share(workspace):
    folder = workspace.path / "checkpoints" / "first"
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 4}))
    assert scope_share(workspace, None, "last:1") == 0.25
    assert scope_share(workspace, None, "last:9") == scope_share(workspace, None, "all") == 1
    spec = FadingSpec(**{**FADING, "scope": "last:1"})
    cold = spent(workspace, spec)
    record_outputs(workspace, None, "last:1")
    assert cold - spent(workspace, spec) == pytest.approx(0.75 * TRAIN / FORWARD)


def test_divergence_and_tracins_error_count_their_trajectories(workspace):
    one, three = (DivergenceSpec(**SMALL, epsilons=weights) for weights in ((0.1,), (0.1, 0.2, 0.3)))
    assert spent(workspace, three) == pytest.approx(5 / 3 * spent(workspace, one), rel=0.01)  # trajectories
    bounds = one.model_copy(update={"bounds": True})
    assert spent(workspace, bounds) > 3 * spent(workspace, one)
    keep(workspace, three, 0, "series", train=["a"] * 16, epsilon=0.1, optimizer={"kind": "sgd", "learning_rate": 1e-3})
    assert kept(workspace, one, train=16) == kept(workspace, three, train=16) == 1
    assert spent(workspace, one) < 0.6 * spent(workspace, three)
    single = TracinErrorSpec(**SMALL, dtypes=("float32",), epsilons=(0.1,))
    both = single.model_copy(update={"dtypes": ("float64", "float32")})
    assert spent(workspace, both) == pytest.approx(3 * spent(workspace, single), rel=0.01)
    assert seconds(study_cost(workspace, single, TANGENT)) > seconds(study_cost(workspace, single, 0.0))


def test_the_memory_of_all_trajectories_is_counted(workspace):
    assert estimate(workspace, FadingSpec(**FADING)).bytes == 6 * 4 * 6  # six trajectories of six numbers
    assert estimate(workspace, FadingSpec(**{**FADING, "optimizer": "adam"})).bytes == 3 * 6 * 4 * 6


def test_a_study_of_few_batches_makes_the_frozen_parts_outputs_of_these_alone(workspace):
    config = workspace.path / "checkpoints" / "first" / "config.json"
    config.write_text(json.dumps({"num_hidden_layers": 4}))
    few = TRAIN // 4 - 4  # and four rows perturbed
    spec = FadingSpec(**{**FADING, "scope": "last:1", "batch_size": 1, "repeats": 1, "steps": few})
    assert asks_few(workspace, spec)
    for more in ({"steps": few + 1}, {"repeats": 2}, {"batch_size": 2}, {"optimizer": "adam"}):
        assert not asks_few(workspace, spec.model_copy(update=more))
    with_few = spent(workspace, spec)
    keep(workspace, spec.model_copy(update={"steps": 1}), 0)
    assert spent(workspace, spec) == pytest.approx(with_few)  # a study of few rows leaves none behind
    record_outputs(workspace, None, "last:1")
    own = round(TRAIN * 0.75) * (TRAIN // 4) // TRAIN
    assert with_few - spent(workspace, spec) == pytest.approx(own / FORWARD)
