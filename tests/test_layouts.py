"""Scopes own what the definitions say in every family; the new classifiers compute what their models do."""

import numpy as np
import pytest
import torch
from families import FAMILIES, NAMES, rows, seeded, t5
from models import random_directions
from PIL import Image
from torch import nn

from influence_core.errors import UserError
from influence_core.gradients.project import project
from influence_core.gradients.rows import row_gradients
from influence_core.models.classifier import Classifier, Scope
from influence_core.models.image import ImageClassifier
from influence_core.models.layout import layout_of
from influence_core.models.predict import Predictions, predict
from influence_core.models.seq2seq import T5Classifier, label_sequences
from influence_core.models.suffix import cut

EVERY = sorted(FAMILIES)


@pytest.mark.parametrize("family", EVERY)
def test_scopes_own_what_the_definitions_say(family):
    own, classifier = FAMILIES[family], FAMILIES[family].build()
    names = [name for name, _ in classifier.module.named_parameters()]
    assert list(classifier.scope("all").parameters) == names
    head = [name for name in names if name.startswith(own.head)]
    assert sorted(classifier.scope("head").parameters) == sorted(head)
    block = [name for name in names if name.startswith(own.last)]
    assert head
    assert block
    assert sorted(classifier.scope("last:1").parameters) == sorted(head + block)
    widest = set(classifier.scope(f"last:{own.blocks}").parameters)
    assert widest > set(classifier.scope("last:1").parameters)
    stem = {name for name in names if name.startswith(tuple(f"{part}." for part in classifier.layout.stem))}
    assert widest | stem == set(names)
    assert not widest & stem
    for name in ("head", "last:1"):  # every module that trains is there, and owns nothing outside the scope
        scope = classifier.scope(name)
        inside = {f"{root}.{n}" for root in scope.modules for n, _ in get(classifier, root).named_parameters()}
        assert inside == set(scope.parameters)


def get(classifier: Classifier, name: str) -> nn.Module:
    return classifier.module.get_submodule(name)


@pytest.mark.parametrize("family", EVERY)
def test_unknown_scopes_are_refused_with_what_there_is(family):
    own, classifier = FAMILIES[family], FAMILIES[family].build()
    with pytest.raises(UserError, match=f"asks for 9 blocks, the model has {own.blocks}: use last:{own.blocks}"):
        classifier.scope("last:9")
    with pytest.raises(UserError, match="'body' is not one of head, last:n"):
        classifier.scope("body")


def test_a_family_that_is_not_known_has_no_layout():
    module = seeded(lambda: nn.Linear(2, 3))
    assert layout_of(module) is None
    classifier = Classifier(module, NAMES, {"head": Scope("head", ("weight",), ("",))})
    assert classifier.scope("head").parameters == ("weight",)
    assert "Linear is of no family" in str(cut(classifier, classifier.scope("head")))


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_padded_texts_have_the_logits_of_each_alone_by_the_model_s_own_rules(family):
    classifier, raw = FAMILIES[family].build(), FAMILIES[family].raw()
    found = classifier.logits(rows(classifier, raw).batch(range(len(raw))))
    for row, text in enumerate(raw):
        expected = classifier.module(input_ids=torch.tensor([text])).logits[0]
        torch.testing.assert_close(found[row], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("family", "entry"), [("vit", "pixel_values"), ("resnet", "pixel_values"), ("torchvision", "x")]
)
def test_images_go_in_by_the_module_s_own_argument(family, entry):
    classifier, raw = FAMILIES[family].build(), FAMILIES[family].raw()
    batch = rows(classifier, raw).batch([4, 2])
    assert set(batch.inputs) == {entry}
    output = classifier.module(torch.from_numpy(np.stack([raw[4], raw[2]]).astype(np.float32)).double())
    expected = output if isinstance(output, torch.Tensor) else output.logits
    torch.testing.assert_close(classifier.logits(batch), expected)


def test_images_are_normalised_as_the_checkpoint_s_were():
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    classifier = ImageClassifier(module, NAMES, mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 20
    expected = np.stack([(pixels[:, :, c] / 255 - (0.1, 0.2, 0.3)[c]) / (0.5, 1.0, 2.0)[c] for c in range(3)])
    grey = np.full((2, 2), 51, dtype=np.uint8)
    encoded = classifier.encode([pixels, Image.fromarray(pixels), grey, expected])
    for item in (encoded[0], encoded[1], encoded[3]):
        np.testing.assert_allclose(item, expected, rtol=1e-6)
        assert item.dtype == np.float32
    np.testing.assert_allclose(encoded[2][:, 0, 0], [(0.2 - 0.1) / 0.5, 0.0, -0.1 / 2], atol=1e-7)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ([np.zeros((4, 4, 2), np.uint8)], "image 0 has 2 channels, the model 3"),
        ([np.zeros((4, 4), np.int64)], "image 0 is an array of int64"),
        ([np.zeros((4, 4))], r"image 0 is an array of shape \(4, 4\)"),
        ([np.zeros((4, 4), np.uint8), np.zeros((5, 4), np.uint8)], "image 1 is 3 × 5 × 4, image 0 is 3 × 4 × 4"),
    ],
)
def test_images_that_do_not_fit_are_named(images, said):
    classifier = ImageClassifier(nn.Flatten(), NAMES, mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(UserError, match=said):
        classifier.encode(images)


def test_vit_runs_plain_attention():
    assert FAMILIES["vit"].build().module.config._attn_implementation == "eager"


def test_t5_loss_is_the_sum_over_the_label_sequence_and_logits_are_minus_the_losses():
    classifier = t5()
    raw = FAMILIES["t5"].raw()
    batch = rows(classifier, raw).batch(range(len(raw)))
    losses, logits = classifier.losses(batch), classifier.logits(batch)
    for row, text in enumerate(raw):
        for label, sequence in enumerate(([5, 1], [6, 7, 1], [8, 1])):
            output = classifier.module(input_ids=torch.tensor([text]), labels=torch.tensor([sequence]))
            expected = output.loss * len(sequence)  # the model's own loss is the mean over tokens
            torch.testing.assert_close(-logits[row, label], expected, rtol=1e-6, atol=1e-6)
            if label == int(batch.labels[row]):
                torch.testing.assert_close(losses[row], expected, rtol=1e-6, atol=1e-6)


def test_t5_predictions_keep_sequence_losses_and_the_first_decoder_state():
    classifier = t5()
    raw = FAMILIES["t5"].raw()
    everything = rows(classifier, raw)
    found = list(predict(classifier, everything))[-1]
    assert isinstance(found, Predictions)
    batch = everything.batch(range(len(raw)))
    logits = classifier.logits(batch)
    np.testing.assert_allclose(found.losses, classifier.losses(batch), rtol=1e-6)
    assert (found.probabilities.argmax(1) == logits.argmax(1).numpy()).all()
    decoder = torch.zeros(len(raw), 1, dtype=torch.int64)
    states = classifier.module(**batch.inputs, decoder_input_ids=decoder, output_hidden_states=True)
    expected = states.decoder_hidden_states[-1][:, 0] * 16**-0.5  # as T5 scales what its tied output layer takes
    np.testing.assert_allclose(found.features, expected, rtol=1e-5, atol=1e-5)


TABLES = [
    "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    "shared.weight",  # the encoder's and the decoder's input and the output layer: tied
]


@pytest.mark.parametrize("table", TABLES)
def test_t5_tables_have_per_example_gradients(table):
    classifier = t5()
    everything = rows(classifier, FAMILIES["t5"].raw())
    scope = Scope("table", (table,), ("",))
    directions = random_directions(classifier, scope, 2)
    batches = [batch for _, batch in everything.buckets(0, len(everything), 4)]
    found = project(classifier, scope, batches, directions)
    gradients = torch.cat([row_gradients(classifier, scope, batch)[table] for batch in batches]).flatten(1)
    assert (gradients.norm(dim=1) > 1e-3).sum() > 8  # a text of one word repeated has none through the bias
    torch.testing.assert_close(found.sqnorms, gradients.square().sum(1), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found.dots, gradients @ directions[table].flatten(1).T, rtol=1e-6, atol=1e-9)


def test_t5_bias_by_row_changes_no_output():
    from transformers import T5ForConditionalGeneration

    classifier = t5()
    plain = T5ForConditionalGeneration(classifier.module.config).double().eval()
    plain.load_state_dict(classifier.module.state_dict())
    given = {"input_ids": torch.tensor([[3, 4, 9]]), "labels": torch.tensor([[6, 7, 1]])}
    torch.testing.assert_close(classifier.module(**given).logits, plain(**given).logits)


@pytest.mark.parametrize(
    ("sequences", "said"),
    [
        ([[5], [6]], "2 label words for 3 classes"),
        ([[5], [6], []], "3 label"),
        ([[5], [6], [5]], "share 2 label words"),
    ],
)
def test_t5_label_words_must_tell_the_classes_apart(sequences, said):
    with pytest.raises(UserError, match=said):
        T5Classifier(t5().module, t5().tokenizer, NAMES, sequences)


def test_label_words_are_tokenised_as_the_tokenizer_does():
    def tokenizer(word: str) -> dict[str, list[int]]:
        return {"input_ids": [*map(ord, word), 1]}

    assert label_sequences(tokenizer, ["a", "bc"]) == [[97, 1], [98, 99, 1]]
