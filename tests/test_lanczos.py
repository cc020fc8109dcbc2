import pytest
import torch
from models import Mlp, mlp, random_tokens, seeded, split, tiny_bert, token_batch, vector_batch
from torch import Tensor, nn

from influence_core.curvature.flat import directions_from_flat, flatten, unflatten
from influence_core.curvature.hvp import HessianOperator
from influence_core.curvature.lanczos import Eigenpairs, lanczos
from influence_core.errors import UserError
from influence_core.events import Progress
from influence_core.models.classifier import Batch, Classifier


def dense_hessian(classifier: Classifier, batch: Batch, l2: float = 0.0) -> Tensor:
    """∇²L over all parameters, from torch.func, [P, P]."""
    scope = classifier.scope("all")
    own = classifier.parameters(scope)

    def loss(flat: Tensor) -> Tensor:
        losses = nn.functional.cross_entropy(
            torch.func.functional_call(classifier.module, unflatten(flat, own), (), batch.inputs), batch.labels
        )
        return losses + l2 / 2 * flat.square().sum()

    return torch.func.hessian(loss)(flatten(own, scope))


def solve(matvec, size: int, *, k: int, iterations: int, seed: int = 0, dtype=torch.float64) -> Eigenpairs:
    *_, pairs = lanczos(matvec, size, k=k, iterations=iterations, seed=seed, dtype=dtype, device=torch.device("cpu"))
    assert isinstance(pairs, Eigenpairs)
    return pairs


def indefinite(size: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return normal + normal.T


def by_magnitude(matrix: Tensor, k: int) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(matrix)
    order = values.abs().argsort(descending=True)[:k]
    return values[order], vectors[:, order].T


def same_lines(one: Tensor, two: Tensor, tolerance: float) -> None:
    """The rows are the same up to sign."""
    torch.testing.assert_close((one * two).sum(1).abs(), torch.ones(len(one), dtype=one.dtype), rtol=0, atol=tolerance)


def test_eigenpairs_of_a_network_agree_with_its_dense_hessian():
    classifier, batch = mlp(inputs=3, hidden=3), vector_batch(40, inputs=3)
    dense = dense_hessian(classifier, batch)
    operator = HessianOperator(classifier, classifier.scope("all"), split(batch, 16))
    k = 8
    values, vectors = by_magnitude(dense, k)
    assert operator.size == len(dense) > 3 * k
    pairs = solve(operator.matvec, operator.size, k=k, iterations=operator.size)
    assert pairs.exhausted
    assert pairs.negative == int((values < 0).sum()) > 0
    torch.testing.assert_close(pairs.values, values, rtol=1e-9, atol=1e-12)
    same_lines(pairs.vectors, vectors, 1e-9)


def test_fewer_iterations_than_dimensions_find_the_outer_pairs():
    matrix = indefinite(120)
    matrix += torch.diag(torch.cat([torch.tensor([90.0, -80.0, 70.0, -60.0]), torch.zeros(116)])).double()
    pairs = solve(lambda v: matrix @ v, 120, k=4, iterations=60)
    values, vectors = by_magnitude(matrix, 4)
    assert values.min() < 0 < values.max()
    torch.testing.assert_close(pairs.values, values, rtol=1e-8, atol=0)
    same_lines(pairs.vectors, vectors, 1e-8)
    assert pairs.values.abs().tolist() == sorted(pairs.values.abs().tolist(), reverse=True)
    assert (pairs.iterations, pairs.negative, pairs.exhausted) == (60, int((values < 0).sum()), False)


def test_residuals_are_those_of_the_vectors():
    matrix = indefinite(80)
    pairs = solve(lambda v: matrix @ v, 80, k=6, iterations=15)
    true = torch.linalg.vector_norm(pairs.vectors @ matrix - pairs.values[:, None] * pairs.vectors, dim=1)
    assert true.max() > 1e-3  # far from converged
    torch.testing.assert_close(pairs.residuals, true, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-10), (torch.float32, 2e-6)])
def test_basis_stays_orthogonal_after_pairs_converge(dtype, limit):
    matrix = torch.diag(torch.tensor([1e4, -1e3, 1e2] + [1 / n for n in range(1, 298)], dtype=torch.float64)).to(dtype)
    pairs = solve(lambda v: matrix @ v, 300, k=5, iterations=60, dtype=dtype)
    assert pairs.orthogonality < limit
    gram = pairs.vectors.double() @ pairs.vectors.double().T
    assert torch.linalg.matrix_norm(gram - torch.eye(5), ord=2) < limit
    assert pairs.values[:3].tolist() == pytest.approx([1e4, -1e3, 1e2], rel=1e-5)


def test_columns_in_chunks_equal_columns_at_once(monkeypatch):
    matrix = indefinite(50)
    whole = solve(lambda v: matrix @ v, 50, k=5, iterations=30)
    monkeypatch.setattr("influence_core.curvature.lanczos.CHUNK_ELEMENTS", 100)
    chunks = solve(lambda v: matrix @ v, 50, k=5, iterations=30)
    torch.testing.assert_close(chunks.values, whole.values, rtol=1e-10, atol=0)
    assert chunks.orthogonality < 1e-12


def test_a_matrix_of_low_rank_makes_it_start_again():
    generator = torch.Generator().manual_seed(4)
    basis, _ = torch.linalg.qr(torch.randn(40, 3, generator=generator, dtype=torch.float64))
    matrix = basis @ torch.diag(torch.tensor([5.0, -4.0, 3.0], dtype=torch.float64)) @ basis.T
    pairs = solve(lambda v: matrix @ v, 40, k=6, iterations=20)
    assert pairs.restarts > 0
    assert not pairs.exhausted
    torch.testing.assert_close(
        pairs.values, torch.tensor([5.0, -4.0, 3.0, 0.0, 0.0, 0.0], dtype=torch.float64), rtol=0, atol=1e-12
    )
    same_lines(pairs.vectors[:3], basis.T, 1e-10)
    assert pairs.orthogonality < 1e-10


def test_a_repeated_eigenvalue_is_found_as_often_as_it_occurs():
    values = torch.tensor([3.0, 3.0, 3.0, -2.0, -2.0, 1.0], dtype=torch.float64)
    pairs = solve(lambda v: values * v, 6, k=5, iterations=100)
    torch.testing.assert_close(pairs.values, values[:5], rtol=0, atol=1e-12)
    assert pairs.restarts > 0
    assert (pairs.iterations, pairs.exhausted) == (6, True)
    assert pairs.residuals.max() < 1e-12


def test_zero_operator():
    pairs = solve(torch.zeros_like, 7, k=2, iterations=4)
    assert pairs.values.tolist() == [0.0, 0.0]
    assert pairs.orthogonality < 1e-12


def test_progress_comes_after_each_iteration_and_the_result_last():
    matrix = indefinite(9)
    events = list(
        lanczos(lambda v: matrix @ v, 9, k=2, iterations=5, seed=0, dtype=torch.float64, device=torch.device("cpu"))
    )
    wanted = [Progress(phase="Lanczos", done=done, total=5, unit="iterations") for done in range(1, 6)]
    assert events[:-1] == wanted
    assert isinstance(events[-1], Eigenpairs)


def test_seed_decides_and_the_global_random_state_is_left_alone():
    matrix = indefinite(60)
    before = torch.get_rng_state()
    one, same, other = (solve(lambda v: matrix @ v, 60, k=3, iterations=10, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.vectors, same.vectors)
    assert torch.equal(one.values, same.values)
    assert not torch.equal(one.values, other.values)


@pytest.mark.parametrize(("k", "iterations", "message"), [(10, 20, "k = 10 .* 9 param"), (6, 5, "k = 6 .* 5")])
def test_k_too_large_is_refused(k, iterations, message):
    with pytest.raises(UserError, match=message):
        solve(lambda v: v, 9, k=k, iterations=iterations)


def test_a_product_that_is_not_finite_is_an_error():
    with pytest.raises(UserError, match="not finite"):
        solve(lambda v: v * float("nan"), 9, k=1, iterations=3)


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
