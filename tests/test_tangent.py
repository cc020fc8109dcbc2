"""The exact Jacobian of a trajectory (Eq. 6) against differences and dense Hessians, and Eq. 2 beside it."""

import numpy as np
import pytest
import torch
from models import random_tokens, tiny_bert
from step_models import TokenClassifier, bert_rows, build, mlp, mlp_rows

from influence_core.curvature.flat import flatten, unflatten
from influence_core.errors import UserError
from influence_core.gradients.rows import row_gradients
from influence_core.models.classifier import Rows
from influence_core.models.modes import in_eval
from influence_core.trajectory.lockstep import lockstep
from influence_core.trajectory.optimizers import OptimizerSpec, OptimizerState, root
from influence_core.trajectory.perturbation import Perturbation
from influence_core.trajectory.tangent import group_size, inner, loss_tangents, tangent
from influence_core.trajectory.unfelt import unfelt
from influence_core.trajectory.warm import warm_state

SPECS = {
    "sgd": OptimizerSpec("sgd", 0.05, weight_decay=0.01),
    "momentum": OptimizerSpec("sgd", 0.02, momentum=0.9),
    "adam": OptimizerSpec("adam", 1e-3),
}
ZERO = torch.zeros(2, dtype=torch.float64)


def setting(kind, model="mlp", warm=40, **flags):
    """A step with a perturbation of two groups, from a warmed state."""
    rows = bert_rows() if model == "bert" else mlp_rows(mlp(batchnorm=model == "batchnorm"))
    flags["batchnorm_train"] = model == "batchnorm"
    scope = "last:1" if model == "bert" else "all"
    step, parameters, state = build(rows, SPECS[kind], scope, batch_size=6, **flags)
    *_, state = warm_state(step, parameters, warm) if kind != "sgd" else [state]
    assert isinstance(state, OptimizerState)
    batch = rows.batch([0, 1, 2, 3], labels=[1, 0, 1, 1])
    return step, parameters, state, Perturbation(batch, torch.tensor([[1.0, 1.0], [1.0, 2.0]]))


def end(step, parameters, state, perturbation, epsilon, steps):
    for t in range(steps):
        parameters, state = step(parameters, state, epsilon, perturbation, t)
    return parameters


def size(values) -> float:
    return float(torch.cat([value.flatten() for value in values.values()]).norm())


def minus(first, second):
    return {name: value - second[name] for name, value in first.items()}


def central(step, parameters, state, perturbation, epsilon, steps, q, h=1e-4):
    """(θ_{ε+h} − θ_{ε−h}) / 2h, by Richardson's rule from two widths."""
    unit = torch.eye(len(epsilon), dtype=torch.float64)[q]

    def width(h):
        above, below = (end(step, parameters, state, perturbation, epsilon + s * h * unit, steps) for s in (1, -1))
        return {name: (above[name] - below[name]) / (2 * h) for name in above}

    wide, narrow = width(2 * h), width(h)
    return {name: (4 * narrow[name] - wide[name]) / 3 for name in wide}


@pytest.mark.parametrize(
    ("kind", "model", "at"),
    [
        *((kind, "mlp", at) for kind in SPECS for at in (0.0, 0.1)),
        ("momentum", "batchnorm", 0.1),
        ("adam", "bert", 0.0),
    ],
)
def test_the_jacobian_is_that_of_central_differences_over_20_steps_with_dropout(kind, model, at):
    step, parameters, state, perturbation = setting(kind, model)
    assert step.dropout
    epsilon = torch.tensor([0.0, at], dtype=torch.float64)
    keys = [name for name in parameters if name.endswith("key.bias")]
    *_, last = tangent(step, parameters, state, perturbation, epsilon, 20, left_out=keys)
    assert last.t == 20
    assert last.integrated_lr == pytest.approx(20 * step.optimizer.learning_rate)
    reached = end(step, parameters, state, perturbation, epsilon, 20)
    felt = parameters.keys() - set(keys)
    assert all(torch.allclose(last.parameters[name], reached[name], rtol=1e-9, atol=1e-11) for name in felt)
    for q in [1] if model == "bert" else range(2):
        expected = central(step, parameters, state, perturbation, epsilon, 20, q)
        expected = {name: expected[name] for name in felt}
        found = {name: value for name, value in last.direction(q).items() if name in felt}
        assert size(expected) > 1e-3
        assert size(minus(found, expected)) <= 1e-6 * size(expected), q
    assert all(not last.direction(0)[name].any() for name in keys)


def test_the_jacobian_of_sgd_is_eq_6_summed_with_dense_hessians():
    step, parameters, state, perturbation = setting("sgd", dropout=False)
    scope, classifier, decay = step.scope, step.classifier, step.optimizer.weight_decay
    rate, steps = step.optimizer.learning_rate, 6
    theta = flatten(parameters, scope)
    jacobians = [torch.zeros(2, len(theta), dtype=torch.float64)]
    mixed, products = torch.zeros_like(jacobians[0]), torch.zeros_like(jacobians[0])
    for t in range(steps):

        def mean(theta, t=t):
            losses = classifier.losses(step.batch(t), unflatten(theta, parameters))
            return losses.mean() + decay / 2 * theta.square().sum()

        def groups(theta):
            losses = classifier.losses(perturbation.batch, unflatten(theta, parameters)).view(2, 2)
            return torch.stack([losses[0].mean(), (losses[1, 0] + 2 * losses[1, 1]) / 3])

        with in_eval(classifier.module):
            hessian = torch.autograd.functional.hessian(mean, theta)
            mixed = mixed + rate * torch.autograd.functional.jacobian(groups, theta)
            products = products + rate * jacobians[-1] @ hessian
            jacobians.append(-mixed - products)  # Eq. 6 at t + 1
            theta = theta - rate * torch.autograd.functional.jacobian(mean, theta)
    items = list(tangent(step, parameters, state, perturbation, ZERO, steps, additive=True))
    for item, jacobian in zip(items, jacobians, strict=True):
        for q in range(2):
            found = flatten(item.direction(q), scope)
            assert (found - jacobian[q]).norm() <= 1e-10 * jacobian[q].norm()
    for q in range(2):  # Eq. 2 is what is left without the second sum
        found = torch.cat([items[-1].additive[name][q].flatten() for name in scope.parameters])
        assert (found + mixed[q]).norm() <= 1e-12 * mixed[q].norm()
        assert (found - jacobians[-1][q]).norm() > 1e-2 * found.norm()


@pytest.mark.parametrize("kind", SPECS)
def test_eq_6_errs_by_epsilon_squared_and_eq_2_by_epsilon(kind):
    step, parameters, state, perturbation = setting(kind)
    *_, last = tangent(step, parameters, state, perturbation, ZERO, 12, additive=True)
    sizes, direction = [1e-3, 2e-3, 4e-3], torch.tensor([1.0, -0.5], dtype=torch.float64)
    errors: dict[str, list[float]] = {"tangents": [], "additive": []}
    for s in sizes:
        *_, item = lockstep(step, parameters, state, s * direction, perturbation, 12)
        shift = minus(item.parameters, item.base_parameters)
        for kept, found in errors.items():
            jacobian = getattr(last, kept)
            told = {name: torch.einsum("q,q...->...", s * direction, value) for name, value in jacobian.items()}
            found.append(size(minus(shift, told)))
    orders = {kept: np.polyfit(np.log(sizes), np.log(found), 1)[0] for kept, found in errors.items()}
    assert orders["tangents"] == pytest.approx(2, abs=0.1)
    assert orders["additive"] == pytest.approx(1, abs=0.1)


def test_under_adam_eq_2_takes_each_gradient_times_the_preconditioner_of_its_step():
    step, parameters, state, perturbation = setting("adam")
    expected = {name: torch.zeros(2, *value.shape, dtype=torch.float64) for name, value in parameters.items()}
    point = (parameters, state)
    for t in range(3):
        after = step(*point, ZERO, perturbation, t)
        gradients = []
        for q in range(2):  # through the plain step: SGD at rate 1 moves by the gradient
            plain, _, nothing = build(step.rows, OptimizerSpec("sgd", 1.0), batch_size=6)
            unit = torch.eye(2, dtype=torch.float64)[q]
            gradients.append(minus(plain(point[0], nothing, ZERO, perturbation, t)[0],
                                   plain(point[0], nothing, unit, perturbation, t)[0]))  # fmt: skip
        for name in expected:
            corrected = after[1].exp_avg_sq[name] / (1 - step.optimizer.beta2 ** after[1].step)
            both = torch.stack([each[name] for each in gradients])
            expected[name] -= step.optimizer.learning_rate * both / (root(corrected) + step.optimizer.eps)
        point = after
    *_, last = tangent(step, parameters, state, perturbation, ZERO, 3, additive=True)
    assert size(minus(last.additive, expected)) <= 1e-9 * size(expected)


def test_an_embedding_row_that_nothing_touches_has_no_influence_and_no_nan():
    """Adam's root has an infinite derivative at v = 0, unless it is told otherwise."""
    plain = tiny_bert(classes=2, dropout=0.2)
    classifier = TokenClassifier(plain.module, plain.label_names)
    ids, labels = random_tokens(8, classes=2)
    untouched = 39
    ids = [[token if token != untouched else 1 for token in row] for row in ids]
    rows = Rows(classifier, ids, labels)
    step, parameters, state = build(rows, SPECS["adam"], batch_size=4)
    *_, state = warm_state(step, parameters, 40)
    keys = [name for name in parameters if name.endswith("key.bias")]
    perturbation = Perturbation.mean(rows.batch([0, 1, 2]))
    epsilon = torch.zeros(1, dtype=torch.float64)
    *_, last = tangent(step, parameters, state, perturbation, epsilon, 20, additive=True, left_out=keys)
    table = "bert.embeddings.word_embeddings.weight"
    for found in (last.tangents, last.additive):
        assert all(torch.isfinite(value).all() for value in found.values())
        assert not found[table][0, untouched].any()
        assert found[table][0, ids[0][0]].any()
    assert not state.exp_avg_sq[table][untouched].any()
    expected = central(step, parameters, state, perturbation, epsilon, 20, 0)
    felt = parameters.keys() - set(keys)
    difference = {name: last.direction(0)[name] - expected[name] for name in felt}
    assert size(difference) <= 1e-6 * size({name: expected[name] for name in felt})


@pytest.mark.parametrize("at", [0.0, 0.1])
@pytest.mark.parametrize("trains", [False, True])
def test_directions_in_groups_that_fit_memory_are_those_of_one_group(trains, at):
    step, parameters, state, perturbation = setting("adam", "bert", perturbation_trains=trains)
    epsilon = ZERO + at
    whole = list(tangent(step, parameters, state, perturbation, epsilon, 3, additive=True))
    assert [(item.t, item.directions) for item in whole] == [(t, range(2)) for t in range(4)]
    assert group_size(step, parameters, 2, limit=1) == 1
    parts = list(tangent(step, parameters, state, perturbation, epsilon, 3, additive=True, limit=1))
    assert [(item.t, list(item.directions)) for item in parts] == [(t, [q]) for q in range(2) for t in range(4)]
    felt = [name for name in parameters if not name.endswith("key.bias")]
    for item in parts:
        (q,) = item.directions
        for name in felt:
            assert torch.allclose(item.direction(q)[name], whole[item.t].direction(q)[name], rtol=1e-8, atol=1e-10)
            assert torch.allclose(item.additive[name][0], whole[item.t].additive[name][q], rtol=1e-8, atol=1e-10)


def test_running_statistics_that_the_state_does_not_carry_yet_are_followed_all_the_same():
    step, parameters, state, perturbation = setting("momentum", "batchnorm", warm=0)
    assert state.buffers
    bare = state._replace(buffers={})
    for with_them, without in zip(
        tangent(step, parameters, state, perturbation, ZERO, 3),
        tangent(step, parameters, bare, perturbation, ZERO, 3),
        strict=True,
    ):
        assert all(torch.equal(value, without.tangents[name]) for name, value in with_them.tangents.items())


@pytest.mark.parametrize("model", ["mlp", "bert"])
def test_inner_products_and_loss_tangents_are_how_losses_change(model):
    step, parameters, state, perturbation = setting("momentum", model)
    keys = [name for name in parameters if name.endswith("key.bias")]
    *_, last = tangent(step, parameters, state, perturbation, ZERO, 10, left_out=keys)
    classifier, rows, h = step.classifier, step.rows.batch([9, 10, 11]), 1e-5
    expected = []
    for q in range(2):
        unit = torch.eye(2, dtype=torch.float64)[q]
        above, below = (
            classifier.losses(rows, end(step, parameters, state, perturbation, sign * h * unit, 10)) for sign in (1, -1)
        )
        expected.append((above - below) / (2 * h))
    found = loss_tangents(classifier, rows, last.parameters, last.tangents)
    assert found.shape == (3, 2)
    assert found.dtype == torch.float64
    assert torch.allclose(found, torch.stack(expected, 1), rtol=1e-5, atol=1e-7)
    assert found.abs().min() > 1e-4
    classifier.module.load_state_dict(last.parameters, strict=False)  # row_gradients are the module's own
    gradients = row_gradients(classifier, step.scope, rows)
    assert torch.allclose(inner(gradients, last.tangents), found, rtol=1e-9, atol=1e-12)
    one = inner({name: value[0] for name, value in gradients.items()}, last.tangents)
    assert torch.allclose(one, found[0], rtol=1e-9, atol=1e-12)


def test_key_biases_are_left_out_by_themselves_where_the_layout_is_known():
    rows = bert_rows()
    assert unfelt(rows.classifier) == frozenset()  # no layout
    from influence_core.models.layout import layout_of

    module = rows.classifier.module
    known = TokenClassifier(module, rows.classifier.label_names, layout=layout_of(module))
    assert sorted(unfelt(known)) == [f"bert.encoder.layer.{n}.attention.self.key.bias" for n in range(2)]
    step, parameters, state = build(Rows(known, rows.items, rows.labels), SPECS["adam"], "last:1", batch_size=6)
    perturbation = Perturbation.mean(rows.batch([0, 1]))
    key = "bert.encoder.layer.1.attention.self.key.bias"
    zero = torch.zeros(1, dtype=torch.float64)
    *_, without = tangent(step, parameters, state, perturbation, zero, 2)
    *_, with_them = tangent(step, parameters, state, perturbation, zero, 2, left_out=())
    assert not without.tangents[key].any()
    assert with_them.tangents[key].any()
    gradient = torch.func.grad(lambda p: known.losses(rows.batch([0]), p).sum())(parameters)
    assert gradient[key].abs().max() < 1e-12 * gradient["classifier.weight"].abs().max()


def test_what_has_no_tangent_is_refused_in_words():
    step, parameters, state, perturbation = setting("sgd")
    with pytest.raises(UserError, match="-1 steps"):
        next(tangent(step, parameters, state, perturbation, ZERO, -1))
    with pytest.raises(UserError, match=r"shape \(1,\) for 2 groups"):
        next(tangent(step, parameters, state, perturbation, ZERO[:1], 1))
    with pytest.raises(UserError, match="'nothing', which scope all does not train"):
        next(tangent(step, parameters, state, perturbation, ZERO, 1, left_out=["nothing"]))
