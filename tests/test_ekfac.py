"""EK-FAC through kronfluence: against the matrix that it stands for, written out."""

import gc
import importlib
import sys
from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from families import bert
from models import loop_gradients, mlp, random_tokens
from step_models import TokenClassifier, bert_rows
from torch import Tensor, nn

from influence_core.attribution.ekfac_library import EkfacScores, ekfac, factored_modules
from influence_core.errors import UserError
from influence_core.events import Progress
from influence_core.models.classifier import Classifier, Rows, Scope
from influence_core.models.suffix import Suffix, cut

INPUTS, CLASSES = 4, 3


class Softmax(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(INPUTS, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


def softmax_regression() -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Classifier(Softmax().double(), [f"class {index}" for index in range(CLASSES)])


def rows(classifier: Classifier, count: int, seed: int) -> Rows:
    draw = np.random.default_rng(seed)
    items = list(draw.normal(size=(count, INPUTS)) * np.array([3.0, 1.0, 0.5, 0.1]))
    return Rows(classifier, items, draw.integers(0, CLASSES, count))


def run(*arguments, **options) -> EkfacScores:
    events = list(ekfac(*arguments, **options))
    assert all(isinstance(event, Progress) for event in events[:-1])
    assert [event.done for event in events[:-1]] == [1, 2, 3, 4, 5, 6]
    return events[-1]


def gradients(classifier: Classifier, given: Rows) -> Tensor:
    """Per-row gradients [N, out, in + 1] of the one Linear layer, bias last, by a loop."""
    own = loop_gradients(classifier, classifier.scope("all"), given.batch(range(len(given))))
    return torch.cat([own["linear.weight"], own["linear.bias"][:, :, None]], 2)


def written_out(classifier: Classifier, given: Rows) -> Tensor:
    """The empirical EK-FAC matrix [P, P] of the one layer: U diag(mean (Uᵀg)²) Uᵀ, U = U_S ⊗ U_A."""
    each = gradients(classifier, given)
    a = torch.cat([given.batch(range(len(given))).inputs["x"], torch.ones(len(given), 1, dtype=torch.float64)], 1)
    b = each[:, :, -1]  # the bias's gradient is the output's
    u = torch.kron(torch.linalg.eigh(b.T @ b)[1], torch.linalg.eigh(a.T @ a)[1])
    return u @ torch.diag((each.flatten(1) @ u).square().mean(0)) @ u.T


def dense_scores(matrix: Tensor, damping: float, one: Tensor, other: Tensor) -> np.ndarray:
    inverse = torch.linalg.inv(matrix + damping * torch.eye(len(matrix), dtype=torch.float64))
    return (one.flatten(1) @ inverse @ other.flatten(1).T).numpy()


@pytest.fixture
def kronfluence() -> Iterator[None]:
    if find_spec("kronfluence") is None:
        pytest.fail("kronfluence is missing: pip install -r requirements-ekfac.txt")
    importlib.import_module("kronfluence.analyzer")
    gc.freeze()  # it collects garbage at every turn, which takes a second where this much is loaded
    yield
    gc.unfreeze()


@pytest.mark.full
@pytest.mark.usefixtures("kronfluence")
def test_scores_are_those_of_the_matrix_written_out(tmp_path):
    classifier = softmax_regression()
    train, queries, sample = rows(classifier, 30, 1), rows(classifier, 5, 2), rows(classifier, 40, 3)
    scope = classifier.scope("all")
    found = run(classifier, scope, train, queries, sample, tmp_path, damping=0.02, labels="true", batch_size=8)
    matrix = written_out(classifier, sample)
    g_z, g_x = gradients(classifier, queries), gradients(classifier, train)
    np.testing.assert_allclose(found.pairwise, dense_scores(matrix, 0.02, g_z, g_x), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.train, np.diag(dense_scores(matrix, 0.02, g_x, g_x)), rtol=1e-6)
    np.testing.assert_allclose(found.queries, np.diag(dense_scores(matrix, 0.02, g_z, g_z)), rtol=1e-6)
    assert found.modules == ("linear",)
    assert found.left_out == ()


@pytest.mark.full
@pytest.mark.usefixtures("kronfluence")
def test_a_softmax_layers_scores_are_near_the_damped_hessians_in_sign_and_size(tmp_path):
    """There the Gauss-Newton matrix is the Hessian, and sampled labels estimate it."""
    classifier = softmax_regression()
    train, queries, sample = rows(classifier, 60, 1), rows(classifier, 8, 2), rows(classifier, 2000, 3)
    found = run(classifier, classifier.scope("all"), train, queries, sample, tmp_path, damping=0.05, batch_size=128)
    batch = sample.batch(range(len(sample)))
    own = classifier.parameters(classifier.scope("all"))

    def loss(flat: Tensor) -> Tensor:
        weight, bias = flat.view(CLASSES, INPUTS + 1)[:, :-1], flat.view(CLASSES, INPUTS + 1)[:, -1]
        return classifier.losses(batch, {"linear.weight": weight, "linear.bias": bias}).mean()

    flat = torch.cat([own["linear.weight"], own["linear.bias"][:, None]], 1).flatten()
    hessian = torch.autograd.functional.hessian(loss, flat)
    expected = dense_scores(hessian, 0.05, gradients(classifier, queries), gradients(classifier, train))
    assert np.corrcoef(found.pairwise.ravel(), expected.ravel())[0, 1] > 0.95
    assert np.polyfit(expected.ravel(), found.pairwise.ravel(), 1)[0] == pytest.approx(1, abs=0.3)
    assert (found.train > 0).all()


@pytest.mark.full
@pytest.mark.usefixtures("kronfluence")
def test_padding_and_batches_change_nothing_and_the_model_stays_as_it_was(tmp_path):
    data = bert_rows(10)
    classifier = data.classifier
    assert isinstance(classifier, TokenClassifier)
    before = {name: value.clone() for name, value in classifier.module.state_dict().items()}
    scope = classifier.scope("last:1")
    found = [
        run(classifier, scope, data, data, data, tmp_path, damping=0.1, labels="true", batch_size=size)
        for size in (1, 7, 10)
    ]
    for other in found[1:]:
        np.testing.assert_allclose(other.pairwise, found[0].pairwise, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(other.train, found[0].train, rtol=1e-6)
    np.testing.assert_allclose(np.diag(found[0].pairwise), found[0].train, rtol=1e-6)
    assert classifier.module.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in classifier.module.state_dict().items())
    assert {name.rsplit(".", 2)[-2] for name in found[0].left_out} == {"LayerNorm"}


@pytest.mark.full
@pytest.mark.usefixtures("kronfluence")
def test_the_frozen_prefixs_outputs_give_the_same_scores(tmp_path):
    classifier = bert()
    ids, labels = random_tokens(9)
    whole = Rows(classifier, classifier.encode(ids), labels)
    scope = classifier.scope("last:1")
    suffix = cut(classifier, scope)
    assert isinstance(suffix, Suffix)
    behind = Rows(suffix, suffix.encode(ids), labels)
    options = {"damping": 0.1, "labels": "true", "batch_size": 4}
    expected = run(classifier, scope, whole, whole, whole, tmp_path / "whole", **options)
    found = run(suffix, scope, behind, behind, behind, tmp_path / "suffix", **options)
    np.testing.assert_allclose(found.pairwise, expected.pairwise, rtol=1e-6, atol=1e-9)
    assert found.modules == expected.modules


@pytest.mark.full
@pytest.mark.usefixtures("kronfluence")
def test_what_is_kept_is_taken_up_again_only_where_nothing_changed(tmp_path):
    classifier = softmax_regression()
    train, queries = rows(classifier, 12, 1), rows(classifier, 3, 2)
    scope = classifier.scope("all")

    def kept() -> set[str]:
        return {path.name for path in (tmp_path / "ekfac").iterdir() if path.is_dir()}

    first = run(classifier, scope, train, queries, train, tmp_path, damping=0.1)
    folders = kept()
    again = run(classifier, scope, train, queries, train, tmp_path, damping=0.1)
    assert kept() == folders
    np.testing.assert_array_equal(again.pairwise, first.pairwise)
    other = Rows(classifier, queries.items, (queries.labels + 1) % CLASSES)
    changed = run(classifier, scope, train, other, train, tmp_path, damping=0.1)
    assert not np.allclose(changed.pairwise, first.pairwise)
    classifier.module.linear.bias.data[0] += 1  # all alike would change no softmax
    moved = run(classifier, scope, train, queries, train, tmp_path, damping=0.1)
    assert not np.allclose(moved.pairwise, first.pairwise)


def test_without_the_library_the_message_says_what_to_install(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "kronfluence"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "kronfluence", None)  # what an import finds where it is not installed
    with pytest.raises(ImportError):
        importlib.import_module("kronfluence.analyzer")
    classifier = softmax_regression()
    given = rows(classifier, 4, 1)
    with pytest.raises(UserError, match=r"kronfluence.*pip install -r requirements-ekfac\.txt"):
        next(ekfac(classifier, classifier.scope("all"), given, given, given, tmp_path))


def test_modules_with_factors_are_the_scopes_linear_and_convolution_layers():
    classifier = mlp()
    assert factored_modules(classifier, classifier.scope("all")) == ["first", "second", "last"]
    assert factored_modules(classifier, classifier.scope("head")) == ["last"]
    part = Scope("weights", ("last.weight",), ("last",))  # its bias is not trained, but would have a factor
    with pytest.raises(UserError, match="no Linear or Conv2d"):
        factored_modules(classifier, part)


@pytest.mark.full
@pytest.mark.usefixtures("kronfluence")
@pytest.mark.parametrize(("option", "said"), [({"damping": -1.0}, "damping = -1"), ({"empty": True}, "no queries")])
def test_bad_input_is_refused_in_one_line(tmp_path, option, said):
    classifier = softmax_regression()
    train = rows(classifier, 4, 1)
    queries = rows(classifier, 0 if option.pop("empty", False) else 2, 2)
    with pytest.raises(UserError, match=said):
        next(ekfac(classifier, classifier.scope("all"), train, queries, train, tmp_path, **option))
