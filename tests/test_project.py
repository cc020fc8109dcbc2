import pytest
import torch
from agreement import agree, close, expected
from models import (
    loop_gradients,
    mlp,
    random_directions,
    random_metric,
    random_tokens,
    seeded,
    split,
    tiny_bert,
    token_batch,
    vector_batch,
)
from torch import Tensor, nn

from influence_core.errors import UserError
from influence_core.gradients.project import iterate, project
from influence_core.gradients.rows import row_gradients
from influence_core.gradients.rules import Factor, embedding, linear
from influence_core.gradients.rules.linear import LinearWeight
from influence_core.models.classifier import Batch, Classifier, Scope


def text_batch(count: int = 32) -> Batch:
    return token_batch(*random_tokens(count))


@pytest.mark.parametrize("metric", [False, True])
@pytest.mark.parametrize("size", [1, 7, 32])
@pytest.mark.parametrize("scope", ["head", "last:1", "all"])
def test_bert_agrees_with_a_loop(scope, size, metric):
    agree(tiny_bert(), text_batch(), scope=scope, size=size, metric=metric)


@pytest.mark.parametrize("metric", [False, True])
def test_every_parameter_alone_agrees_with_a_loop(metric):
    classifier = tiny_bert(layers=1)
    batch = text_batch(5)
    gradients = loop_gradients(classifier, classifier.scope("all"), batch)
    for name in classifier.scope("all").parameters:
        scope = Scope(name, (name,), ("",))
        directions = random_directions(classifier, scope, 3)
        diagonal = random_metric(classifier, scope) if metric else None
        mine = {name: gradients[name]}
        if name.endswith("key.bias"):  # the softmax makes it zero but for rounding
            assert project(classifier, scope, [batch], directions, diagonal).sqnorms.max() < 1e-25
            continue
        assert mine[name].abs().max() > 1e-6
        close(
            project(classifier, scope, [batch], directions, diagonal),
            expected(mine, directions, diagonal),
            mine,
            directions,
        )


@pytest.mark.parametrize("k", [1, 2, 40])
def test_any_number_of_directions(k):
    agree(tiny_bert(layers=1), text_batch(6), k=k)


def test_no_directions_gives_norms():
    classifier = tiny_bert()
    scope, batch = classifier.scope("last:1"), text_batch(9)
    gradients = loop_gradients(classifier, scope, batch)
    wanted = expected(gradients, random_directions(classifier, scope, 1)).sqnorms
    for directions in ({}, random_directions(classifier, scope, 0)):
        found = project(classifier, scope, split(batch, 4), directions)
        assert found.dots.shape == (9, 0)
        torch.testing.assert_close(found.sqnorms, wanted, rtol=1e-10, atol=0)
    metric = random_metric(classifier, scope)
    found = project(classifier, scope, split(batch, 4), {}, metric)
    wanted = expected(gradients, random_directions(classifier, scope, 1), metric).sqnorms
    torch.testing.assert_close(found.sqnorms, wanted, rtol=1e-10, atol=0)


def test_no_rows_gives_empty_products():
    classifier = mlp()
    scope = classifier.scope("all")
    found = project(classifier, scope, [], random_directions(classifier, scope, 3))
    assert found.dots.shape == (0, 3)
    assert found.sqnorms.shape == (0,)


def test_rows_keep_their_order_and_come_a_batch_at_a_time():
    classifier = mlp()
    scope, batch = classifier.scope("all"), vector_batch(10)
    directions = random_directions(classifier, scope, 2)
    parts = list(iterate(classifier, scope, split(batch, 4), directions))
    assert [len(part.sqnorms) for part in parts] == [4, 4, 2]
    alone = [project(classifier, scope, [one], directions).dots for one in split(batch, 1)]
    torch.testing.assert_close(torch.cat([part.dots for part in parts]), torch.cat(alone), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("middle", [(), (1,), (3,), (2, 4)])
@pytest.mark.parametrize("k", [0, 1, 5])
@pytest.mark.parametrize("metric", [False, True])
def test_linear_with_any_middle_dimensions(middle, k, metric):
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(3, *middle, 6, generator=generator, dtype=torch.float64)
    b = torch.randn(3, *middle, 5, generator=generator, dtype=torch.float64)
    factor = linear.linear(nn.Linear(6, 5), a, b)["weight"]
    full = torch.einsum("bto,bti->boi", b.reshape(3, -1, 5), a.reshape(3, -1, 6))
    directions = torch.randn(k, 5, 6, generator=generator, dtype=torch.float64)
    diagonal = torch.rand(5, 6, generator=generator, dtype=torch.float64) if metric else None
    weighted = full if diagonal is None else full * diagonal
    for dots, sqnorms in [
        factor.products(directions, diagonal),
        (factor.dot(directions), factor.sqnorm(diagonal)),
    ]:
        torch.testing.assert_close(dots, torch.einsum("boi,koi->bk", full, directions), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(sqnorms, (full * weighted).sum((1, 2)), rtol=1e-10, atol=0)


@pytest.mark.parametrize("weighted", [False, True])
def test_linear_in_pieces_equals_linear_at_once(monkeypatch, weighted):
    batch, classifier = text_batch(6), tiny_bert(layers=1)
    scope = classifier.scope("last:1")
    directions = random_directions(classifier, scope, 3)
    metric = random_metric(classifier, scope) if weighted else None
    whole = project(classifier, scope, [batch], directions, metric)
    monkeypatch.setattr("influence_core.gradients.rules.factors.CPU_ELEMENTS", 1)
    pieces = project(classifier, scope, [batch], directions, metric)
    torch.testing.assert_close(pieces.dots, whole.dots, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(pieces.sqnorms, whole.sqnorms, rtol=1e-10, atol=0)


class Odd(nn.Module):
    """A shared layer used twice, a tied table, norms with and without bias and affine, in-place ReLU."""

    def __init__(self, positions_broadcast: bool = False) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 6, padding_idx=0)
        self.positions = nn.Embedding(12, 6)
        self.kinds = nn.Embedding(2, 6)
        self.first = nn.LayerNorm(6, bias=False)
        self.plain = nn.LayerNorm(6, elementwise_affine=False)
        self.shared = nn.Linear(6, 6)
        self.wide = nn.LayerNorm((1, 6))
        self.tied = nn.Linear(6, 11)
        self.tied.weight = self.table.weight
        self.out = nn.Linear(11, 3, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.broadcast = positions_broadcast

    def forward(self, ids: Tensor) -> Tensor:
        where = torch.arange(ids.shape[1])
        where = where[None] if self.broadcast else where.expand_as(ids)
        x = self.table(ids) + self.positions(where) + self.kinds(ids % 2) + self.table(ids.flip(1)).tanh()
        x = self.shared(self.relu(self.first(x)))
        x = self.plain(self.shared(x.tanh()) + x)
        x = self.wide(x.unsqueeze(2)).squeeze(2)
        return self.out(self.tied(x).tanh().mean(1))


def odd(**options: bool) -> tuple[Classifier, Batch]:
    def build() -> nn.Module:
        return Odd(**options)

    ids = torch.tensor([[1, 2, 2, 0, 5], [3, 3, 3, 3, 3], [0, 0, 7, 8, 10], [9, 1, 4, 6, 1]])
    return Classifier(seeded(build), ["a", "b", "c"]), Batch({"ids": ids}, torch.tensor([0, 1, 2, 1]))


@pytest.mark.parametrize("metric", [False, True])
@pytest.mark.parametrize("size", [1, 3, 4])
def test_shared_tied_and_in_place_layers(size, metric):
    classifier, batch = odd()
    assert "tied.weight" not in classifier.scope("all").parameters  # it is table.weight
    agree(classifier, batch, size=size, metric=metric)


@pytest.mark.parametrize("metric", [False, True])
def test_norm_of_a_tied_weight_has_its_cross_terms(metric):
    classifier, batch = odd()
    scope = Scope("table", ("table.weight",), ("",))
    gradients = loop_gradients(classifier, scope, batch)
    directions = random_directions(classifier, scope, 2)
    diagonal = random_metric(classifier, scope) if metric else None
    found = project(classifier, scope, [batch], directions, diagonal)
    close(found, expected(gradients, directions, diagonal), gradients, directions)
    untied = Classifier(seeded(lambda: Odd()), ["a", "b", "c"])
    untied.module.tied.weight = nn.Parameter(untied.module.table.weight.detach().clone(), requires_grad=False)
    parts = [project(untied, Scope("t", (f"{name}.weight",), ("",)), [batch], {}, None) for name in ("table", "tied")]
    plain = project(classifier, scope, [batch], {})
    assert ((parts[0].sqnorms + parts[1].sqnorms) / plain.sqnorms - 1).abs().max() > 1e-3


def test_cross_products_agree_with_full_gradients():
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    table = nn.Embedding(9, 4)
    ids = torch.randint(0, 9, (3, 5), generator=generator)
    short = torch.arange(10).expand(3, 10) % 9  # longer than the table: kept in full
    factors: list[Factor] = [
        LinearWeight(normal(3, 2, 4), normal(3, 2, 9)),
        LinearWeight(normal(3, 6, 4), normal(3, 6, 9)),
        embedding.embedding(table, ids, normal(3, 5, 4))["weight"],
        embedding.embedding(table, ids.flip(0), normal(3, 5, 4))["weight"],
        embedding.embedding(table, short, normal(3, 10, 4))["weight"],
    ]
    diagonal = normal(9, 4).abs()
    for metric in (None, diagonal):
        for one in factors:
            for two in factors:
                wanted = (one.dense(0, 3) * two.dense(0, 3) * (1 if metric is None else metric)).sum((1, 2))
                torch.testing.assert_close(one.cross(two, metric), wanted, rtol=1e-10, atol=1e-12)


def test_padding_row_of_a_table_has_no_gradient():
    classifier, batch = odd()
    # Not tied, so that only the look-ups give the table a gradient.
    classifier.module.tied.weight = nn.Parameter(classifier.module.table.weight.detach().clone(), requires_grad=False)
    scope = Scope("table", ("table.weight",), ("",))
    directions = {"table.weight": torch.zeros(2, 11, 6, dtype=torch.float64)}
    directions["table.weight"][0, 0] = 1.0
    directions["table.weight"][1, 3] = 1.0
    dots = project(classifier, scope, [batch], directions).dots
    assert dots[:, 0].tolist() == [0.0] * 4
    assert dots[1, 1] != 0


def test_extra_padding_changes_nothing():
    classifier = tiny_bert()
    scope = classifier.scope("all")
    ids, labels = random_tokens(8)
    directions = random_directions(classifier, scope, 3)
    tight = project(classifier, scope, [token_batch(ids, labels)], directions)
    loose = project(classifier, scope, [token_batch(ids, labels, padding=9)], directions)
    torch.testing.assert_close(loose.dots, tight.dots, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(loose.sqnorms, tight.sqnorms, rtol=1e-10, atol=0)


def test_float32_model_gives_float32_products():
    classifier = tiny_bert(dtype=torch.float32)
    scope = classifier.scope("last:1")
    batch = token_batch(*random_tokens(8), dtype=torch.float32)
    directions = random_directions(classifier, scope, 3)
    found = project(classifier, scope, [batch], directions)
    wanted = expected(loop_gradients(classifier, scope, batch), directions)
    assert found.dots.dtype == torch.float32
    torch.testing.assert_close(found.sqnorms, wanted.sqnorms, rtol=1e-4, atol=0)
    torch.testing.assert_close(found.dots, wanted.dots, rtol=1e-4, atol=1e-4 * float(wanted.sqnorms.max().sqrt()))


def test_row_gradients_are_those_of_the_loop():
    classifier = tiny_bert()
    scope, batch = classifier.scope("all"), text_batch(4)
    found, wanted = row_gradients(classifier, scope, batch), loop_gradients(classifier, scope, batch)
    assert list(found) == list(scope.parameters)
    for name, value in wanted.items():
        assert not found[name].requires_grad
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-13)


def test_nothing_is_left_behind():
    classifier = tiny_bert(dropout=0.5)
    scope, batch = classifier.scope("last:1"), text_batch(5)
    directions = random_directions(classifier, scope, 2)
    quiet = project(classifier, scope, [batch], directions)
    classifier.module.bert.encoder.layer[1].train()  # as a caller may leave it
    classifier.module.classifier.weight.requires_grad_(True)
    classifier.module.bert.embeddings.word_embeddings.weight.requires_grad_(True)

    def state() -> list[object]:
        modules = [
            (name, part.training, len(part._forward_hooks), len(part._forward_pre_hooks))
            for name, part in classifier.module.named_modules()
        ]
        parameters = [(name, p.requires_grad, p.grad, p._version) for name, p in classifier.module.named_parameters()]
        return [modules, parameters, torch.get_rng_state().tolist(), torch.is_grad_enabled()]

    before = state()
    with torch.no_grad():
        found = project(classifier, scope, [batch], directions)
    row_gradients(classifier, scope, batch)
    assert state() == before
    torch.testing.assert_close(found.dots, quiet.dots, rtol=0, atol=0)  # eval whatever the mode
    assert not found.dots.requires_grad
    assert not found.sqnorms.requires_grad


def test_hooks_go_away_after_an_error():
    classifier, batch = odd(positions_broadcast=True)
    with pytest.raises(UserError):
        project(classifier, classifier.scope("all"), [batch], {})
    assert not any(part._forward_hooks for part in classifier.module.modules())


def test_what_precedes_the_scope_has_no_graph():
    classifier = tiny_bert()
    seen = []
    layer = classifier.module.bert.encoder.layer[0]
    handle = layer.register_forward_hook(
        lambda module, args, output: seen.append((output if isinstance(output, Tensor) else output[0]).requires_grad)
    )
    classifier.module.bert.embeddings.requires_grad_(True)  # whatever the flags say
    project(classifier, classifier.scope("last:1"), [text_batch(3)], {})
    handle.remove()
    assert seen
    assert not any(seen)


def test_a_broadcast_output_is_an_error_that_names_the_module():
    classifier, batch = odd(positions_broadcast=True)
    with pytest.raises(UserError, match=r"'positions'.*\(1, 5\).*batch of 4 rows"):
        project(classifier, classifier.scope("all"), [batch], {})


class Convolved(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv1d(1, 2, 3)
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.mix(x[:, None]).flatten(1))


def test_a_layer_without_a_rule_is_an_error_that_names_it():
    classifier = Classifier(seeded(Convolved), ["a", "b", "c"])
    batch = vector_batch(4)
    with pytest.raises(UserError, match=r"'mix' is a .*Conv1d.*no layer rule.*rules/conv1d.py.*@register\(Conv1d\)"):
        project(classifier, classifier.scope("all"), [batch], {})
    head = Scope("head", ("out.weight", "out.bias"), ("out",))
    gradients = loop_gradients(classifier, head, batch)
    directions = random_directions(classifier, head, 2)
    close(project(classifier, head, [batch], directions), expected(gradients, directions), gradients, directions)


class Doubled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Renamed(nn.Linear):
    pass


class Around(nn.Module):
    def __init__(self, kind: type[nn.Linear]) -> None:
        super().__init__()
        self.inner = kind(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(input=x)


def test_a_subclass_has_its_base_rule_only_with_the_same_forward():
    agree(Classifier(seeded(Around, Renamed), ["a", "b", "c"]), vector_batch(3))
    doubled = Classifier(seeded(Around, Doubled), ["a", "b", "c"])
    with pytest.raises(UserError, match=r"'inner'.*Doubled"):
        project(doubled, doubled.scope("all"), [vector_batch(3)], {})
    patched = mlp()
    patched.module.first.forward = lambda x: 3 * nn.functional.linear(x, patched.module.first.weight)
    with pytest.raises(UserError, match="'first'"):
        project(patched, patched.scope("all"), [vector_batch(3)], {})


class Outside(nn.Module):
    """Uses a layer's weight without calling the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.inner(x)) @ self.inner.weight)


def test_a_weight_used_outside_its_module_is_an_error():
    classifier = Classifier(seeded(Outside), ["a", "b", "c"])
    with pytest.raises(UserError, match=r"'inner\.weight'.*differs from autograd"):
        project(classifier, classifier.scope("all"), [vector_batch(3)], {})


class Overwritten(nn.Module):
    """Changes a layer's input after the layer has read it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x * 1
        y = self.inner(x)
        return self.out(torch.tanh(y) + x.mul_(2))


def test_an_input_changed_in_place_is_an_error():
    classifier = Classifier(seeded(Overwritten), ["a", "b", "c"])
    with pytest.raises(UserError, match=r"'inner'.*in place"):
        project(classifier, classifier.scope("all"), [vector_batch(3)], {})


def test_a_hook_of_the_users_that_changes_an_output_is_part_of_the_model():
    classifier = mlp()
    classifier.module.first.register_forward_hook(lambda module, args, output: 2 * output.sin())
    agree(classifier, vector_batch(5))


class Rectified(nn.Module):
    """Changes the output of a layer in place: a view of its result if x has positions."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.inner(x))
        x = torch.relu_(self.inner(x))
        return self.out(x if x.dim() == 2 else x.mean(1))


def test_an_output_changed_in_place_is_right_or_an_error():
    classifier = Classifier(seeded(Rectified), ["a", "b", "c"])
    batch = vector_batch(4)
    agree(classifier, batch)
    deep = Batch({"x": batch.inputs["x"][:, None].repeat(1, 3, 1)}, batch.labels)
    with pytest.raises(UserError, match=r"output of module 'inner'.*in place"):
        project(classifier, classifier.scope("all"), [deep], {})


def test_a_table_that_rescales_its_gradient_is_an_error():
    module = nn.Sequential(nn.Embedding(5, 3, scale_grad_by_freq=True), nn.Flatten(), nn.Linear(6, 3)).double()
    module.forward = lambda x: module[2](module[1](module[0](x)))
    classifier = Classifier(module, ["a", "b", "c"])
    batch = Batch({"x": torch.tensor([[1, 1], [2, 3]])}, torch.tensor([0, 1]))
    with pytest.raises(UserError, match="scale_grad_by_freq"):
        project(classifier, Scope("table", ("0.weight",), ("0",)), [batch], {})


def test_a_parametrised_weight_is_an_error():
    classifier = mlp()
    nn.utils.parametrizations.weight_norm(classifier.module.first)
    with pytest.raises(UserError, match=r"first\.parametrizations"):
        project(classifier, classifier.scope("all"), [vector_batch(3)], {})


@pytest.mark.parametrize("wrong", ["missing", "shape", "count"])
def test_directions_that_do_not_fit_the_scope_are_refused(wrong):
    classifier = mlp()
    scope = classifier.scope("all")
    directions = random_directions(classifier, scope, 2)
    if wrong == "missing":
        del directions["first.bias"]
    elif wrong == "shape":
        directions["first.bias"] = directions["first.bias"][:, :2]
    else:
        directions["first.bias"] = directions["first.bias"][:1]
    with pytest.raises(ValueError, match=r"first\.bias|one K"):
        project(classifier, scope, [vector_batch(3)], directions)
