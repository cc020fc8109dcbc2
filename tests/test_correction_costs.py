"""What the studies of corrections and of retraining are estimated to cost: by hand, and nothing for what is kept."""

import json

import pytest
from workspaces import TEST, TRAIN, add_predictions, tiny_workspace, use_home, wrong_ids

from influence_core import rates
from influence_core.artefacts import base_key
from influence_core.correction_costs import corrections_kept, drawn, trainings_left
from influence_core.estimates import START, WARM_BATCHES, estimate, projecting
from influence_core.estimates import TRAIN as TRAINED
from influence_core.rates import FORWARD
from influence_core.specs import RETENTION_ROWS, CorrectionStudySpec, MislabelledSpec, RetrainSpec
from influence_core.studies.cases import cases
from influence_core.study_costs import OVERHEAD, PADDING
from influence_core.training.origins import origin_of

SMALL = {"workspace": "tiny", "scope": "all", "optimizer": "sgd", "batch_size": 10, "learning_rate": 0.1}
STUDY = {**SMALL, "steps": 9, "mispredictions": 3, "k": 4, "points": 2, "strategies": ("random",)}
RECIPE = {"name": "r", "base": "small-vit", "epochs": 2, "batch_size": 16, "learning_rate": 0.1}
SORTED_READ = 1 + OVERHEAD / 2  # passes to read a row, 3 more to train on one, among rows of its length
SORTED = 3 + OVERHEAD
READ, TRAINING = PADDING * SORTED_READ, PADDING * SORTED  # in random batches


@pytest.fixture
def workspace(monkeypatch, tmp_path):
    use_home(monkeypatch, tmp_path)
    made = tiny_workspace()
    made.change_checkpoint("first", notes={"recipe": RECIPE})
    rates.record(made.checkpoint().fingerprint, 10 * int(FORWARD), 10.0)  # the speed that the constants are of
    return made


def spent(workspace, spec):
    """Forward passes of one row."""
    return (estimate(workspace, spec).seconds - START) * FORWARD


def keep(workspace, spec, examples, courses):
    """Leave what a study keeps of its corrections."""
    names = ("steps", "seed", "batch_size", "dropout", "dtype")
    for example in examples:
        key = {**base_key(workspace, None, spec.scope), **{name: getattr(spec, name) for name in names}}
        key |= {"state": None, "optimizer": {"kind": "sgd", "learning_rate": 0.1}, "example": example}
        folder = workspace.artefacts.make("correction", json.loads(json.dumps(key)))
        for number in range(courses):
            (folder / f"course-{number}.safetensors").touch()


def test_each_correction_trains_its_steps_and_the_base_reads_all(workspace):
    spec = CorrectionStudySpec(**STUDY)
    one = 9 * ((10 + 4) * TRAINING + READ) + RETENTION_ROWS * SORTED_READ
    base = 9 * (10 * TRAINING + 3 * READ) + 2 * RETENTION_ROWS * SORTED_READ
    assert spent(workspace, spec) == pytest.approx(3 * 2 * one + base, rel=0.01)  # of three, at two shares
    tuned = spec.model_copy(update={"tune": True, "tuning": 5})
    assert spent(workspace, tuned) - spent(workspace, spec) == pytest.approx(9 * 5 * one, rel=0.01)
    adam = spec.model_copy(update={"optimizer": "adam"})
    warmed = spent(workspace, adam) - spent(workspace, spec)
    assert warmed == pytest.approx(WARM_BATCHES * 10 / TRAINED * FORWARD, rel=0.01)
    both = spec.model_copy(update={"strategies": ("random", "proponents"), "methods": ("tracin",)})
    ranked = projecting(TRAIN, 3) * FORWARD  # three queries' products with all rows of this scope
    assert spent(workspace, both) == pytest.approx(3 * 4 * one + base + ranked, rel=0.003)
    hif = both.model_copy(update={"methods": ("hif-cr",)})
    assert spent(workspace, hif) > 2 * spent(workspace, both)


def test_kept_corrections_cost_nothing(workspace):
    spec = CorrectionStudySpec(**STUDY)
    whole = spent(workspace, spec)
    keep(workspace, spec, wrong_ids()[:2], 2)
    assert corrections_kept(workspace, spec) == 4
    assert 0 < spent(workspace, spec) < 0.6 * whole
    for field, value in (("learning_rate", 0.2), ("seed", 1), ("steps", 8)):
        assert corrections_kept(workspace, spec.model_copy(update={field: value})) == 0
    keep(workspace, spec, wrong_ids()[2:3], 2)
    assert spent(workspace, spec) == 0
    assert spent(workspace, spec.model_copy(update={"optimizer": "adam"})) > whole


def test_mislabelled_rows_cost_their_judges_and_two_corrections_each(workspace):
    add_predictions(workspace, "train")
    spec = MislabelledSpec(**SMALL, steps=9, mispredictions=3, look=4, method="tracin", methods=("random",))
    one = 9 * ((10 + 4) * TRAINING + READ) + RETENTION_ROWS * SORTED_READ
    base = 9 * (10 * TRAINING + 3 * READ) + 2 * RETENTION_ROWS * SORTED_READ
    ranked = projecting(TRAIN, 8) * FORWARD  # all eight mispredictions are looked at
    assert spent(workspace, spec) == pytest.approx(2 * 3 * one + base + ranked, rel=0.003)
    judged = spec.model_copy(update={"methods": ("tracin",)})
    assert spent(workspace, judged) > spent(workspace, spec) + TRAIN


def test_the_mispredictions_are_those_that_a_study_draws(workspace):
    for seed in (0, 3):
        asked = drawn(workspace, None, seed, 5)
        expected = cases(workspace, None, seed)[:5]
        assert [(each.example, each.target) for each in asked] == [(one.example, one.predicted) for one in expected]


def test_retraining_costs_its_trainings(workspace):
    spec = RetrainSpec(workspace="tiny", mispredictions=3, method="tracin", repeats=1)
    one = 2 * 3 * 16 * SORTED + TEST * SORTED_READ  # three batches of 16 hold 40 rows
    assert trainings_left(workspace, spec) == 2 + 2 * 3
    assert spent(workspace, spec) == pytest.approx(8 * one, rel=0.01)
    for options, trainings in (({"together": True}, 4), ({"strategies": ("gold",)}, 5), ({"repeats": 0}, 7)):
        assert trainings_left(workspace, spec.model_copy(update=options)) == trainings
    longer = spec.model_copy(update={"epochs": 20})
    assert spent(workspace, longer) > 7 * spent(workspace, spec)


def test_kept_trainings_cost_nothing(workspace):
    spec = RetrainSpec(workspace="tiny", mispredictions=2, method="tracin", repeats=1, strategies=("gold",))
    origin, labels = origin_of(workspace, spec), workspace.labels().values.tolist()

    def leave(rows, seed, **about):
        changed = [1 - label if row in rows else label for row, label in enumerate(labels)]
        folder = workspace.artefacts.make("retrain", origin.key(workspace, changed, seed))
        (folder / "about.json").write_text(json.dumps(about))

    assert trainings_left(workspace, spec) == 4
    leave((), 0, strategy="control", k=0)
    assert trainings_left(workspace, spec) == 3
    leave((0,), 0, strategy="gold", k=12)
    leave((39,), 0, strategy="gold", k=3)  # of another k
    leave((1,), 0, strategy="proponents", k=12)
    leave((2,), 7, strategy="gold", k=12)  # of another seed
    assert trainings_left(workspace, spec) == 2
    leave((), 1, strategy="control", k=0)
    leave((0, 1), 0, strategy="gold", k=12)
    assert trainings_left(workspace, spec) == spent(workspace, spec) == 0
