from collections.abc import Iterator

import pytest
import torch
from hessians import dense_hessian
from models import Mlp, mlp, random_tokens, seeded, split, tiny_bert, token_batch, vector_batch
from torch import Tensor, nn

from influence_core.curvature.flat import directions_from_flat, flatten, unflatten
from influence_core.curvature.hvp import HessianOperator
from influence_core.errors import UserError
from influence_core.models.classifier import Batch, Classifier


def test_flat_vectors_keep_the_scope_order():
    classifier = mlp()
    scope = classifier.scope("all")
    own = classifier.parameters(scope)
    flat = flatten(own, scope)
    assert torch.equal(flat[:20], classifier.module.first.weight.flatten())
    back = unflatten(flat, own)
    assert all(torch.equal(back[name], value) for name, value in own.items())
    directions = directions_from_flat(torch.stack([flat, 2 * flat]), own)
    assert all(torch.equal(directions[name][1], 2 * value) for name, value in own.items())
    with pytest.raises(ValueError, match="numbers do not fit"):
        unflatten(flat[1:], own)


@pytest.mark.parametrize("l2", [0.0, 0.3])
@pytest.mark.parametrize("keep", [True, False])
def test_products_agree_with_the_dense_hessian(keep, l2):
    classifier, batch = mlp(), vector_batch(30)
    dense = dense_hessian(classifier, batch, l2)
    operator = HessianOperator(classifier, classifier.scope("all"), split(batch, 8), l2, keep_graph=keep)
    columns = torch.stack([operator.matvec(row) for row in torch.eye(operator.size, dtype=torch.float64)], 1)
    torch.testing.assert_close(columns, dense, rtol=1e-10, atol=1e-13)
    assert torch.linalg.eigvalsh(dense).min() < (l2 or -1e-4)  # indefinite, but for l2


@pytest.mark.parametrize("scope", ["head", "last:1", "all"])
def test_products_agree_with_finite_differences(scope):
    classifier, batch = tiny_bert(dropout=0.5), token_batch(*random_tokens(12))
    chosen = classifier.scope(scope)
    own = classifier.parameters(chosen)
    operator = HessianOperator(classifier, chosen, split(batch, 5))
    v = torch.randn(operator.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def gradient(shift: float) -> Tensor:
        moved = unflatten(flatten(own, chosen) + shift * v, own)
        leaves = {name: value.clone().requires_grad_() for name, value in moved.items()}
        loss = classifier.losses(batch, leaves).mean()
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
        return flatten(dict(zip(leaves, found, strict=True)), chosen)

    h = 1e-5
    differences = (gradient(h) - gradient(-h)) / (2 * h)
    product = operator.matvec(v)
    assert torch.linalg.vector_norm(product - differences) < 1e-6 * torch.linalg.vector_norm(differences)


def test_keeping_the_graph_changes_no_bit():
    classifier, batch = tiny_bert(), token_batch(*random_tokens(9))
    scope = classifier.scope("last:1")
    kept = HessianOperator(classifier, scope, split(batch, 4))
    fresh = HessianOperator(classifier, scope, split(batch, 4), keep_graph=False)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        v = torch.randn(kept.size, generator=generator, dtype=torch.float64)
        assert torch.equal(kept.matvec(v), fresh.matvec(v))


@pytest.mark.parametrize("keep", [True, False])
def test_many_vectors_at_once_have_the_bits_of_one_by_one(keep):
    classifier, batch = tiny_bert(), token_batch(*random_tokens(9))
    scope = classifier.scope("last:1")
    one = HessianOperator(classifier, scope, split(batch, 4), 0.1, keep_graph=keep)
    many = HessianOperator(classifier, scope, split(batch, 4), 0.1, keep_graph=keep)
    vectors = torch.randn(5, one.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    together = many.matmat(vectors)
    assert together.shape == vectors.shape
    assert torch.equal(together, torch.stack([one.matvec(v) for v in vectors]))
    assert torch.equal(many.matmat(vectors), together)  # by the graphs that it kept, or built again
    assert many.matmat(vectors[:0]).shape == (0, one.size)


class Counting(Classifier):
    forwards = 0

    def logits(self, batch, parameters=None, buffers=None):
        self.forwards += 1
        return super().logits(batch, parameters, buffers)


def counting() -> Counting:
    return Counting(seeded(Mlp, 4, 6, 3), ["a", "b", "c"])


@pytest.mark.parametrize(("keep", "forwards"), [(True, 3), (False, 6)])
def test_each_batch_is_built_once_for_all_vectors_and_once_ever_where_kept(keep, forwards):
    classifier, batch = counting(), vector_batch(30)
    operator = HessianOperator(classifier, classifier.scope("all"), split(batch, 10), keep_graph=keep)
    assert operator.kept is keep
    for _ in range(2):
        operator.matmat(torch.ones(4, operator.size, dtype=torch.float64))
    assert classifier.forwards == forwards


def test_graphs_are_kept_while_they_fit_the_limit():
    classifier, batch = counting(), vector_batch(30)
    scope, batches = classifier.scope("all"), split(batch, 10)
    needed = HessianOperator(classifier, scope, batches).graph_bytes
    assert needed > 0
    v = torch.ones(HessianOperator(classifier, scope, batches).size, dtype=torch.float64)
    for limit, kept in ((needed, True), (needed - 1, False), (None, True)):
        classifier.forwards = 0
        operator = HessianOperator(classifier, scope, batches, memory_limit=limit)
        operator.matvec(v)
        assert (operator.kept, operator.graph_bytes) == (kept, needed)
        assert classifier.forwards == 1 + 3  # one to measure
        operator.matvec(v)
        assert classifier.forwards == 1 + 3 + (0 if kept else 3)


class Doubly(nn.Module):
    """exp(x exp(θ)): what its gradient's graph saves can be told by hand."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return (self.weight.exp() * x).exp()


class Summed(Classifier):
    def losses(self, batch, parameters=None, buffers=None):
        return self.logits(batch, parameters, buffers).sum(1)


def test_graph_bytes_are_those_saved_for_backward_once_each_over_all_batches():
    rows, width = 50, 200
    classifier = Summed(seeded(Doubly, width), ["a", "b"])
    batch = Batch({"x": torch.randn(rows, width, dtype=torch.float64)}, torch.zeros(rows, dtype=torch.int64))
    operator = HessianOperator(classifier, classifier.scope("all"), split(batch, 20))  # 20, 20, 10
    # Of the batch of 20: its x and the outer exp's values [20, width], exp(θ) and the gradient that reaches
    # it [width], and the one number that the sum's gradient is expanded from.
    assert operator.graph_bytes == (2 * 20 * width + 2 * width + 1) * 8 * rows / 20


def test_the_largest_batch_is_measured():
    classifier = tiny_bert()
    scope = classifier.scope("last:1")
    short, long = token_batch(*random_tokens(4)), token_batch(*random_tokens(4), padding=10)
    alone = HessianOperator(classifier, scope, [long]).graph_bytes
    both = HessianOperator(classifier, scope, [short, long]).graph_bytes
    elements = [batch.inputs["input_ids"].numel() for batch in (short, long)]
    assert both == pytest.approx(alone * sum(elements) / elements[1], abs=1)


def test_batches_may_be_made_on_the_way():
    classifier, batch = mlp(), vector_batch(30)

    class Lazy:
        def __iter__(self) -> Iterator[Batch]:
            yield from split(batch, 8)

    scope = classifier.scope("all")
    v = torch.ones(HessianOperator(classifier, scope, [batch]).size, dtype=torch.float64)
    for keep in (True, False, None):
        lazy = HessianOperator(classifier, scope, Lazy(), keep_graph=keep)
        ready = HessianOperator(classifier, scope, split(batch, 8), keep_graph=keep)
        for _ in range(2):
            assert torch.equal(lazy.matvec(v), ready.matvec(v))


def test_the_operator_does_not_depend_on_the_batch_size():
    classifier, batch = mlp(), vector_batch(200)
    scope = classifier.scope("all")
    v = torch.randn(flatten(classifier.parameters(scope), scope).numel(), dtype=torch.float64)
    products = [HessianOperator(classifier, scope, split(batch, size), 0.1).matvec(v) for size in (7, 64, 200)]
    for other in products[1:]:  # a mean of batch means would differ at 1e-2
        torch.testing.assert_close(other, products[0], rtol=1e-12, atol=1e-14)


class Normed(nn.Module):
    """BatchNorm and dropout: whoever forgets eval mode gets other numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.5)
        self.unused = nn.Linear(2, 2)
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.drop(torch.tanh(self.norm(self.first(x)))))


def test_eval_mode_own_buffers_and_nothing_left_behind():
    classifier, batch = Classifier(seeded(Normed), ["a", "b", "c"]), vector_batch(20)
    classifier.module.norm.running_mean += 0.5
    scope = classifier.scope("all")
    dense = dense_hessian(classifier, batch)
    classifier.module.train()
    state = {name: value.clone() for name, value in classifier.module.state_dict().items()}
    operator = HessianOperator(classifier, scope, split(batch, 6))
    v = torch.randn(operator.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(operator.matvec(v), dense @ v, rtol=1e-9, atol=1e-12)
    assert all(part.training for part in classifier.module.modules())
    assert not any(parameter.requires_grad for parameter in classifier.module.parameters())
    assert all(torch.equal(value, state[name]) for name, value in classifier.module.state_dict().items())


def test_a_loss_linear_in_the_scope_has_only_l2():
    class Linearised(Classifier):
        def losses(self, batch, parameters=None, buffers=None):
            return self.logits(batch, parameters, buffers)[:, 0]

    module = seeded(nn.Sequential, nn.Linear(4, 3))
    module.forward = lambda x: module[0](x)
    classifier = Linearised(module, ["a", "b", "c"])
    operator = HessianOperator(classifier, classifier.scope("all"), [vector_batch(5)], 0.25)
    v = torch.ones(operator.size, dtype=torch.float64)
    assert torch.equal(operator.matvec(v), 0.25 * v)


def test_no_rows_is_an_error():
    with pytest.raises(UserError, match="at least one row"):
        HessianOperator(mlp(), mlp().scope("all"), [])


class Fused(Mlp):
    def forward(self, x: Tensor) -> Tensor:
        q = self.first(x)[:, None, None].repeat(1, 1, 2, 1)
        return self.last(nn.functional.scaled_dot_product_attention(q, q, q)[:, 0, 0])


def test_fused_attention_is_an_error_that_says_what_to_do():
    classifier = Classifier(seeded(Fused, 4, 8, 3, dtype=torch.float32), ["a", "b", "c"])
    batch = vector_batch(3, dtype=torch.float32)
    operator = HessianOperator(classifier, classifier.scope("all"), [batch])
    with pytest.raises(UserError, match="attn_implementation"):
        operator.matvec(torch.ones(operator.size))
