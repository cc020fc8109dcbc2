from types import SimpleNamespace

import pytest
import torch
from hessians import dense_hessian
from models import mlp, split, vector_batch
from torch import Tensor

from influence_core.curvature.hvp import HessianOperator
from influence_core.curvature.lanczos import Eigenpairs, lanczos
from influence_core.curvature.memory import basis_bytes, lanczos_bytes
from influence_core.errors import UserError
from influence_core.events import Progress


def solve(matvec, size: int, *, k: int, iterations: int, seed: int = 0, dtype=torch.float64, **room) -> Eigenpairs:
    cpu = torch.device("cpu")
    *_, pairs = lanczos(matvec, size, k=k, iterations=iterations, seed=seed, dtype=dtype, device=cpu, **room)
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


@pytest.fixture
def mapped(monkeypatch) -> list[int]:
    """The numbers in each file that was mapped."""
    counts, real = [], torch.from_file

    def from_file(name, **options):
        counts.append(options["size"])
        return real(name, **options)

    monkeypatch.setattr(torch, "from_file", from_file)
    return counts


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_basis_in_a_file_gives_the_same_bits(tmp_path, mapped, dtype):
    matrix = indefinite(80).to(dtype)
    options = {"k": 6, "iterations": 30, "dtype": dtype}
    count = basis_bytes(80, 30, dtype.itemsize)
    inside = solve(lambda v: matrix @ v, 80, **options)
    fits = solve(lambda v: matrix @ v, 80, **options, folder=tmp_path, memory_limit=count)
    assert mapped == []
    outside = solve(lambda v: matrix @ v, 80, **options, folder=tmp_path / "new", memory_limit=count - 1)
    assert mapped == [80 * 30]
    for pairs in (fits, outside):
        assert torch.equal(pairs.values, inside.values)
        assert torch.equal(pairs.vectors, inside.vectors)
        assert pairs.orthogonality == inside.orthogonality


def test_the_file_has_no_name_that_could_be_left_behind(tmp_path, mapped):
    matrix, names = indefinite(20), []

    def matvec(v: Tensor) -> Tensor:
        names.append(list(tmp_path.iterdir()))
        if len(names) == 4:
            raise KeyboardInterrupt
        return matrix @ v

    with pytest.raises(KeyboardInterrupt):
        solve(matvec, 20, k=2, iterations=9, folder=tmp_path, memory_limit=0)
    assert mapped == [20 * 9]
    assert names == [[]] * 4
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_room_for_the_basis_is_refused(tmp_path, monkeypatch):
    options = {"k": 2, "iterations": 5, "memory_limit": 0}
    taken = tmp_path / "file"
    taken.touch()
    with pytest.raises(UserError, match=r"cannot be kept in .*file"):
        solve(lambda v: v, 9, folder=taken, **options)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=basis_bytes(9, 5, 8) - 1))
    with pytest.raises(UserError, match="GB free: make room"):
        solve(lambda v: v, 9, folder=tmp_path, **options)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=basis_bytes(9, 5, 8)))
    assert solve(lambda v: v, 9, folder=tmp_path, **options).iterations == 5


def test_memory_is_told_before_the_run():
    assert lanczos_bytes(1000, k=32, iterations=64) == 64 * 1000 * 4 + 32 * 1000 * 4
    assert basis_bytes(9, iterations=64) == 9 * 9 * 4  # no more vectors than dimensions
