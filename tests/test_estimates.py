import numpy as np
import pytest
from workspaces import TEST, TRAIN, add_checkpoint, add_index, tiny_workspace, use_home

from influence_core import rates
from influence_core.artefacts import base_key
from influence_core.attribution import gradient
from influence_core.attribution.abif import Abif
from influence_core.attribution.hif import SOLVER
from influence_core.estimates import HESSIAN, START, TANGENT, WARM_BATCHES, Estimate, estimate, projecting
from influence_core.estimates import TRAIN as TRAINED
from influence_core.rates import FASTEST, FORWARD, PARAMETERS
from influence_core.sizes import fills, record_size, scope_size
from influence_core.specs import CorrectionSpec, ExplainSpec, IndexSpec, PredictSpec, RankSpec, SuspectsSpec


@pytest.fixture
def workspace(monkeypatch, tmp_path):
    use_home(monkeypatch, tmp_path)
    made = tiny_workspace()
    rates.record(made.checkpoint().fingerprint, 10 * int(FORWARD), 10.0)  # the speed that the constants are of
    return made


def spent(workspace, spec):
    """Seconds without those of the start."""
    return estimate(workspace, spec).seconds - START


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1, "about 5 s"), (18, "about 20 s"), (89, "about 90 s"), (725, "about 12 min"), (3 * 3600, "about 3 h")],
)
def test_words(seconds, words):
    assert Estimate(seconds).words == words


def test_the_projection_passes_through_what_was_measured():
    assert projecting(1100, 1) == pytest.approx(10)
    assert projecting(900, 32) == pytest.approx(10)
    assert projecting(100, 1) < projecting(100, 8) < projecting(100, 32)


def test_a_measured_rate_scales_everything_and_few_rows_are_no_measurement(workspace):
    spec, own = PredictSpec(workspace="tiny", split="train"), workspace.checkpoint().fingerprint
    assert spent(workspace, spec) == pytest.approx(TRAIN / FORWARD)
    rates.record(own, 10, 10.0)
    assert spent(workspace, spec) == pytest.approx(TRAIN / FORWARD)
    rates.record("another checkpoint", 4000, 10.0)
    assert spent(workspace, spec) == pytest.approx(TRAIN / FORWARD)
    rates.record(own, 4000, 10.0)
    assert spent(workspace, spec) == pytest.approx(TRAIN / 400)
    rates.record(own, 100, 0.0)
    assert rates.rate([own], 1) == 400


def test_a_checkpoint_that_was_never_measured_is_as_fast_as_its_parent_or_its_size(workspace, monkeypatch):
    own = workspace.checkpoint()
    add_checkpoint(workspace, "kept", np.random.default_rng(3), parent=own.name)
    spec = PredictSpec(workspace="tiny", checkpoint="kept", split="train")
    assert spent(workspace, spec) == pytest.approx(TRAIN / FORWARD)
    assert rates.rate(["unknown"], int(PARAMETERS)) == FORWARD
    assert rates.rate(["unknown"], 5 * int(PARAMETERS)) == pytest.approx(FORWARD / 5)
    assert rates.rate(["unknown"], 6) == FASTEST
    monkeypatch.setattr(rates, "speed", lambda: 0.25)  # a machine four times as slow
    assert rates.rate(["unknown"], int(PARAMETERS)) == FORWARD / 4
    assert rates.rate([own.fingerprint], int(PARAMETERS)) == FORWARD  # measured


@pytest.mark.own_speed
def test_the_speed_of_a_machine_is_what_its_matrix_products_take(monkeypatch):
    ticks = iter([0, 1, 5, 5.5, 7, 9, 9, 10])  # the least of four: half a second
    monkeypatch.setattr(rates.time, "perf_counter", lambda: next(ticks))
    found = rates.speed.__wrapped__()
    assert found == pytest.approx(2e-9 * rates.SIDE**3 / 0.5 / rates.REFERENCE)


def test_a_ranking_costs_a_pass_unless_it_is_kept(workspace):
    kept = RankSpec(workspace="tiny", example="test-3", method="tracin")
    other = RankSpec(workspace="tiny", example="test-1", method="tracin")
    assert spent(workspace, other) == pytest.approx(projecting(TRAIN, 1))
    assert spent(workspace, kept) == 0
    workspace.relabel("train-1", "negative", expect="positive", annotator="me")
    again = kept.model_copy(update={"refresh": True})
    assert spent(workspace, again) == pytest.approx(projecting(1, 1))


def test_an_index_costs_its_hessian_products_unless_the_basis_is_kept(workspace):
    add_index(workspace, k=2)
    small = IndexSpec(workspace="tiny", k=2, iterations=4, hessian_rows=8)
    assert spent(workspace, small) == pytest.approx(4 * 8 / HESSIAN + projecting(TRAIN, 2))
    (Abif().table(workspace, RankSpec(workspace="tiny", example="")).folder / "basis.safetensors").touch()
    assert spent(workspace, small) == pytest.approx(projecting(TRAIN, 2))
    other = small.model_copy(update={"seed": 1})
    assert spent(workspace, other) == pytest.approx(4 * 8 / HESSIAN + projecting(TRAIN, 2))
    query = RankSpec(workspace="tiny", example="test-3", method="abif")
    assert spent(workspace, query) == pytest.approx(projecting(1, 2))


def test_a_correction_warms_up_once(workspace):
    spec = CorrectionSpec(workspace="tiny", example="test-3", k=4, batch_size=8, steps=10)
    cold = spent(workspace, spec)
    zeros = spent(workspace, spec.model_copy(update={"optimizer_state": "zeros"}))
    assert cold - zeros == pytest.approx(WARM_BATCHES * 8 / 90)
    key = {**base_key(workspace, None, None), "batch_size": 8, "seed": 0, "dropout": True}
    folder = workspace.artefacts.make("warm", key)
    (folder / "state.safetensors").touch()
    assert spent(workspace, spec) == pytest.approx(zeros)
    assert spent(workspace, spec.model_copy(update={"seed": 1})) == pytest.approx(cold)  # other batches
    longer = spec.model_copy(update={"steps": 20})
    assert spent(workspace, longer) > spent(workspace, spec)
    assert spent(workspace, spec.model_copy(update={"optimizer": "sgd"})) == pytest.approx(zeros)
    assert np.isfinite(cold)


def test_predictions_cost_a_tangent_beside_the_two_trajectories_and_its_memory(workspace):
    spec = CorrectionSpec(workspace="tiny", example="test-3", k=4, batch_size=8, steps=10, strategy="random")
    asked = spec.model_copy(update={"predict": True})
    assert spent(workspace, asked) - spent(workspace, spec) == pytest.approx(TANGENT * 10 * (8 + 4) / TRAINED)
    assert estimate(workspace, spec).bytes == 0
    assert estimate(workspace, asked).bytes == 8 * 4 * 6  # Adam: two sets of three, ∇l_B, Eq. 2's sum
    assert estimate(workspace, asked.model_copy(update={"optimizer": "sgd"})).bytes == 4 * 4 * 6


def test_a_correction_makes_the_frozen_parts_outputs_where_its_batches_come_to_half_of_the_rows(workspace):
    zeros = CorrectionSpec(workspace="tiny", example="test-3", k=4, batch_size=2, optimizer_state="zeros")
    half = TRAIN // 4  # batches of two
    assert fills(workspace, zeros.model_copy(update={"steps": half}))
    assert not fills(workspace, zeros.model_copy(update={"steps": half - 1}))
    assert fills(workspace, zeros.model_copy(update={"steps": 1, "optimizer_state": "warm"}))  # 200 rows of warming
    assert not fills(workspace, zeros.model_copy(update={"steps": 1, "optimizer_state": "warm", "optimizer": "sgd"}))
    key = {**base_key(workspace, None, None), "batch_size": 2, "seed": 0, "dropout": True}
    (workspace.artefacts.make("warm", key) / "state.safetensors").touch()
    assert not fills(workspace, zeros.model_copy(update={"steps": 1, "optimizer_state": "warm"}))  # it is kept


def test_memory_is_said_where_it_matters():
    assert Estimate(30, 10**7).words == "about 30 s"
    assert Estimate(725, 1_500_000_000).words == "about 12 min, 1.5 GB"


def test_the_size_of_a_scope_is_what_a_loaded_model_said_else_the_whole_file(workspace):
    assert scope_size(workspace, None, "head") == 6  # one tensor of 2 × 3
    record_size(workspace, None, "head", 4)
    assert scope_size(workspace, None, "head") == scope_size(workspace, None, None) == 4
    assert scope_size(workspace, None, "all") == 6


def test_explaining_everything_counts_what_is_missing_in_groups_that_fit(workspace, monkeypatch):
    spec = ExplainSpec(workspace="tiny", method="tracin")
    assert spent(workspace, spec) == 0  # all eight mispredictions have their products
    gold = ExplainSpec(workspace="tiny", method="hif-cr", settings={"iterations": 10, "hessian_rows": 16})
    solving = 8 * 10 * 16 / HESSIAN
    assert spent(workspace, gold) == pytest.approx(solving + projecting(TRAIN, 8))
    monkeypatch.setattr(gradient, "GROUP_BYTES", 3 * 4 * TRAIN)  # three queries' products, more than six parameters
    assert spent(workspace, gold) == pytest.approx(solving + 2 * projecting(TRAIN, 3) + projecting(TRAIN, 2))
    assert estimate(workspace, gold).bytes == 4 * 6 * (3 + 2 * SOLVER)  # two solved at once


def test_controls_cost_predictions_or_nothing(workspace):
    random = RankSpec(workspace="tiny", example="test-1", method="random")
    assert spent(workspace, random) == 0
    embedding = RankSpec(workspace="tiny", example="test-1", method="embedding")
    assert spent(workspace, embedding) == pytest.approx((TRAIN + TEST) / FORWARD)
    suspects = SuspectsSpec(workspace="tiny", method="tracin")
    assert spent(workspace, suspects) == 0
    assert spent(workspace, suspects.model_copy(update={"method": "tracin-adam"})) >= projecting(TRAIN, 1)
