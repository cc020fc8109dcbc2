"""A coupled weight decay is part of the loss, of the parameters that it acts on only: Hessians and their keys."""

from pathlib import Path

import pytest
import torch
from models import mlp, split, vector_batch
from torch import Tensor

from influence_core.attribution.base import Query
from influence_core.attribution.hessian import sampled_hessian
from influence_core.attribution.indexing import index_key
from influence_core.attribution.methods import METHODS
from influence_core.attribution.projection import Projection
from influence_core.curvature.flat import flatten, unflatten
from influence_core.curvature.hvp import HessianOperator
from influence_core.specs import IndexSpec, RankSpec
from influence_core.trajectory.optimizers import OptimizerSpec, init, update

RATE, DECAY = 0.1, 0.3


@pytest.mark.parametrize("keep", [True, False])
def test_the_hessian_is_that_of_the_loss_which_a_step_trains(keep):
    """One step of SGD takes θ to θ − η∇L(θ), so its Jacobian is I − ηH."""
    classifier, batch = mlp(), vector_batch(30)
    scope = classifier.scope("all")
    own = classifier.parameters(scope)
    undecayed = tuple(name for name in own if name.endswith("bias"))
    assert 0 < len(undecayed) < len(own)
    spec = OptimizerSpec("sgd", RATE, weight_decay=DECAY, undecayed=undecayed)

    def stepped(flat: Tensor) -> Tensor:
        parameters = unflatten(flat, own)
        gradients = torch.func.grad(lambda given: classifier.losses(batch, given).mean())(parameters)
        return flatten(update(spec, parameters, gradients, init(spec, parameters))[0], scope)

    jacobian = torch.func.jacrev(stepped)(flatten(own, scope))
    operator = HessianOperator(classifier, scope, split(batch, 8), DECAY, keep_graph=keep, undecayed=undecayed)
    identity = torch.eye(operator.size, dtype=torch.float64)
    torch.testing.assert_close(operator.matmat(identity), (identity - jacobian) / RATE, rtol=1e-9, atol=1e-11)
    everywhere = HessianOperator(classifier, scope, split(batch, 8), DECAY, keep_graph=keep)
    assert (everywhere.matmat(identity) - operator.matmat(identity)).abs().max() == pytest.approx(DECAY)


def decayed(workspace, name: str, **recorded) -> str:
    """Add the same weights under another optimizer; returns the entry's name."""
    optimizer = {"kind": "adam", "weight_decay": DECAY, **recorded}
    return workspace.add_checkpoint(name, model=Path(workspace.checkpoint().path), optimizer=optimizer).name


def test_a_workspaces_hessian_and_its_keys_follow_the_recorded_groups(opened):
    biases = [name for name, _ in Projection(opened, None, "head").classifier.module.named_parameters()]
    biases = [name for name in biases if name.endswith("bias")]
    coupled, spared = decayed(opened, "coupled"), decayed(opened, "spared", undecayed=biases)
    apart = decayed(opened, "decoupled", decoupled=True, undecayed=biases)
    products = {}
    for name in (None, coupled, spared, apart):
        work = Projection(opened, name, "head")
        operator = run(sampled_hessian(work, name, 20, 0)).operator
        products[name] = operator.matvec(torch.ones(operator.size))
    flat = {name: torch.full_like(value, 0.0 if name in biases else DECAY) for name, value in work_leaves(work).items()}
    expected = torch.cat([value.flatten() for value in flat.values()])
    torch.testing.assert_close(products[spared] - products[None], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        products[coupled] - products[None], torch.full_like(expected, DECAY), rtol=1e-4, atol=1e-5
    )
    assert torch.equal(products[apart], products[None])
    indices = [
        index_key(opened, IndexSpec(workspace=opened.name, checkpoint=name)) for name in (coupled, spared, apart)
    ]
    assert [key.get("undecayed") for key in indices] == [None, sorted(biases), None]
    solves = [
        METHODS["hif-cr"].table(
            opened, RankSpec(workspace=opened.name, example="1-0", method="hif-cr", checkpoint=name)
        )
        for name in (coupled, spared, apart)
    ]
    assert [table.key.get("undecayed") for table in solves] == [None, sorted(biases), None]


def test_an_index_is_found_for_the_groups_it_was_built_with_only(opened):
    settings = {"k": 3, "iterations": 20, "hessian_rows": 20, "scope": "head"}
    coupled = decayed(opened, "coupled")
    opened.index(**settings, checkpoint=coupled)
    spared = decayed(opened, "spared", undecayed=["classifier.bias"])
    wrong = opened.mispredictions().iloc[0]
    specs = [
        RankSpec(workspace=opened.name, example=wrong["id"], scope="head", checkpoint=name)
        for name in (coupled, spared)
    ]
    assert METHODS["abif"].table(opened, specs[0]) is not None
    assert METHODS["abif"].table(opened, specs[1]) is None
    assert METHODS["abif"].ready(opened, specs[1], Query(wrong["id"], 0)) is None
    opened.index(**settings, checkpoint=spared)
    assert METHODS["abif"].table(opened, specs[1]) is not None


def run(work):
    """Return what a computation that yields progress returns."""
    while True:
        try:
            next(work)
        except StopIteration as ended:
            return ended.value


def work_leaves(work: Projection):
    return work.classifier.parameters(work.scope)
