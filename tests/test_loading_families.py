"""Checkpoints as users have them: each family is recognised, brought in, and predicts what its own library does."""

import io
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from agreement import close, expected
from checkpoints import NAMES, sentences
from family_checkpoints import FAMILIES, IMAGES, LABEL_WORDS, PREFIX, TEXT, pictures, save_family
from models import random_directions
from PIL import Image
from safetensors.torch import load_file, save_file

from influence_core.checkpoints.inspecting import inspect
from influence_core.data.arrow import read_frame, write_frame
from influence_core.data.pictures import netpbm
from influence_core.errors import UserError
from influence_core.gradients.project import project
from influence_core.home import read_json, write_json
from influence_core.models import image as image_module
from influence_core.models.classifier import Classifier, Rows
from influence_core.models.importing import Imported, import_checkpoint
from influence_core.models.items import Lazy, Tokens
from influence_core.models.loading import load_folder, rows_of
from influence_core.models.predict import Predictions, predict
from influence_core.specs import CheckSpec

SCOPES = {  # DEFINITIONS, Scope: what head and last:1 own
    "bert": (("bert.pooler.", "classifier."), "bert.encoder.layer.1."),
    "roberta": (("classifier.",), "roberta.encoder.layer.1."),
    "distilbert": (("pre_classifier.", "classifier."), "distilbert.transformer.layer.1."),
    "t5": (("decoder.final_layer_norm.",), "decoder.block.1."),
    "torchvision": (("fc.",), "layer4."),
    "resnet": (("classifier.",), "resnet.encoder.stages.1."),
    "vit": (("vit.layernorm.", "classifier."), "vit.layers.1."),
}
TEXTS = sentences(12, seed=2)["text"].tolist()
PIXELS = pictures(12, 2, seed=2)[0]


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {family: save_family(root / family, family) for family in FAMILIES}


def bring_in(path: Path, place: Path, names=NAMES, **fields) -> Imported:
    spec = CheckSpec(checkpoint=str(path), data="unused", **fields)
    return import_checkpoint(inspect(spec, path)[0], spec, place, names)


def load(path: Path, place: Path, names=NAMES, **fields) -> Classifier:
    imported = bring_in(path, place, names, **fields)
    return load_folder.__wrapped__(imported.path, "fingerprint", names, imported.kind, imported.preparation)


def logits(classifier: Classifier, raw) -> torch.Tensor:
    rows = Rows(classifier, classifier.encode(raw), np.zeros(len(raw), np.int64))
    with torch.no_grad():
        return classifier.logits(rows.batch(range(len(raw))))


def their_logits(folder: Path, family: str) -> torch.Tensor:
    """The family's own library on the same inputs, one at a time; without a padding mask or a batch."""
    import transformers

    with torch.no_grad():
        if family == "torchvision":
            from torchvision.models import resnet18

            module = resnet18(num_classes=2)
            module.conv1, module.maxpool = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False), torch.nn.Identity()
            module.load_state_dict(load_file(folder / "model.safetensors"))
            values = torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float() / 255
            return module.eval()((values - 0.3) / 0.25)
        if family in IMAGES:
            module = transformers.AutoModelForImageClassification.from_pretrained(folder)
            processor = transformers.AutoImageProcessor.from_pretrained(folder)
            images = [Image.fromarray(picture) for picture in PIXELS]
            return module(**processor(images=images, return_tensors="pt")).logits
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        if family == "t5":
            module = transformers.T5ForConditionalGeneration.from_pretrained(folder)
            return torch.tensor(
                [[_likelihood(module, tokenizer, PREFIX + t, word) for word in LABEL_WORDS] for t in TEXTS]
            )
        module = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
        return torch.cat([module(**tokenizer(text, return_tensors="pt")).logits for text in TEXTS])


def _likelihood(module, tokenizer, text: str, word: str) -> float:
    labels = tokenizer(word, return_tensors="pt")["input_ids"]
    loss = module(**tokenizer(text, return_tensors="pt"), labels=labels).loss  # the mean over tokens
    return -float(loss) * labels.shape[1]


def raw_of(family: str) -> list:
    return TEXTS if family in TEXT else [netpbm(picture) for picture in PIXELS]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_recognised_and_predicts_as_its_own_library(saved, tmp_path, family):
    spec = CheckSpec(checkpoint=str(saved[family]), data="unused")
    (found,) = inspect(spec, saved[family])
    kind = "seq2seq" if family == "t5" else "text" if family in TEXT else "image"
    assert (found.kind, found.family, found.classes, found.path) == (kind, family, NAMES, str(saved[family]))
    assert (found.optimizer, found.step, found.notes) == (None, None, ())
    classifier = load(saved[family], tmp_path / "place")
    assert found.parameters == sum(parameter.numel() for parameter in classifier.module.parameters())
    assert not (tmp_path / "place").exists()  # it is read where it lies
    ours, theirs = logits(classifier, raw_of(family)), their_logits(saved[family], family)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert ours.std(0).min() > 1e-4  # that it depends on the input


@pytest.mark.parametrize("family", FAMILIES)
def test_scopes_of_a_loaded_checkpoint_are_those_of_the_definitions(saved, tmp_path, family):
    classifier = load(saved[family], tmp_path / "place")
    names = [name for name, _ in classifier.module.named_parameters()]
    head, block = SCOPES[family]
    assert set(classifier.scope("head").parameters) == {name for name in names if name.startswith(head)}
    assert set(classifier.scope("last:1").parameters) == {name for name in names if name.startswith((*head, block))}
    assert classifier.scope("all").parameters == tuple(names)
    with pytest.raises(UserError, match="asks for 9 blocks"):
        classifier.scope("last:9")


def encoded(content: Image.Image, form: str) -> bytes:
    stream = io.BytesIO()
    content.save(stream, form)
    return stream.getvalue()


@pytest.mark.parametrize("family", ["vit", "resnet"])
def test_images_are_prepared_exactly_as_the_checkpoints_own_processor_does(saved, tmp_path, family):
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(saved[family])
    classifier = load(saved[family], tmp_path / "place")
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8))
    square = Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8))
    grey = Image.fromarray(rng.integers(0, 256, (20, 20), dtype=np.uint8))
    clear = Image.fromarray(rng.integers(0, 256, (20, 20, 4), dtype=np.uint8))
    given = [encoded(square, "PNG"), encoded(grey, "PNG"), encoded(clear, "PNG"), square, np.asarray(grey)]
    wanted = [square, grey, clear, square, grey]
    if family == "vit":  # brings every image to one size
        given, wanted = [*given, encoded(colour, "PNG")], [*wanted, colour]
    theirs = processor(images=[image.convert("RGB") for image in wanted], return_tensors="np")["pixel_values"]
    items = classifier.encode(given)
    assert items[0].dtype == np.float32
    np.testing.assert_array_equal(np.stack(items), theirs)


def test_a_model_of_grey_images_takes_colour_ones_as_grey(tmp_path):
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(num_channels=1, embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic")
    ResNetForImageClassification(config).save_pretrained(tmp_path / "grey")
    settings = {"image_processor_type": "ViTImageProcessor", "size": {"height": 28, "width": 28}, "resample": 2}
    settings |= {"do_resize": True, "do_normalize": True, "do_rescale": True, "rescale_factor": 1 / 255}
    settings |= {"image_mean": [0.286], "image_std": [0.353]}
    write_json(tmp_path / "grey" / "preprocessor_config.json", settings)
    classifier = load(tmp_path / "grey", tmp_path / "place")
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    colour = Image.fromarray(np.stack([pixels] * 3, 2))
    first, second = classifier.encode([netpbm(pixels), encoded(colour, "PNG")])
    np.testing.assert_allclose(first, (pixels[None] / 255 - 0.286) / 0.353, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(first, second)
    settings["image_mean"], settings["image_std"] = [0.5] * 3, [0.5] * 3
    write_json(tmp_path / "grey" / "preprocessor_config.json", settings)
    with pytest.raises(UserError, match="normalises 3 channels, the model takes 1"):
        load(tmp_path / "grey", tmp_path / "place")


@pytest.mark.parametrize("family", ["vit", "torchvision"])
def test_images_that_would_not_fit_memory_are_prepared_when_they_are_looked_at(saved, tmp_path, family, monkeypatch):
    classifier = load(saved[family], tmp_path / "place")
    column = [netpbm(picture) for picture in PIXELS]
    whole = classifier.encode(column)
    monkeypatch.setattr(image_module, "IN_MEMORY", 100)
    opened: list[str] = []
    decode = image_module.decode
    monkeypatch.setattr(image_module, "decode", lambda content, name: (opened.append(name), decode(content, name))[1])
    lazy = classifier.encode(column)
    assert isinstance(lazy, Lazy)
    assert len(lazy) == len(whole)
    assert classifier.sizes(lazy).tolist() == [1] * len(column)
    assert opened == ["0"]  # the size, and nothing else
    np.testing.assert_array_equal(np.stack(lazy[3:5]), np.stack(whole[3:5]))
    assert opened == ["0", "3", "4"]
    batches = list(Rows(classifier, lazy, np.arange(12) % 2).buckets(0, 12, 5))
    np.testing.assert_array_equal(np.concatenate([rows for rows, _ in batches]), np.arange(12))


def test_an_image_that_cannot_be_read_is_named(saved, tmp_path):
    classifier = load(saved["vit"], tmp_path / "place")
    with pytest.raises(UserError, match="the image 1 cannot be read"):
        classifier.encode([netpbm(PIXELS[0]), b"no image"])


def test_a_mapped_column_of_texts_becomes_one_array_of_tokens(saved, tmp_path, monkeypatch):
    classifier = load(saved["roberta"], tmp_path / "place")
    frame = pd.DataFrame({"id": [str(n) for n in range(12)], "text": TEXTS, "label": np.arange(12) % 2})
    write_frame(tmp_path / "train.arrow", frame)
    monkeypatch.setattr("influence_core.models.items.BLOCK", 5)
    monkeypatch.setattr("influence_core.models.items.blocks.__defaults__", (5,))
    dataset = SimpleNamespace(splits={"train": read_frame(tmp_path / "train.arrow")}, modality="text")
    workspace = SimpleNamespace(data_fingerprint="some", dataset=dataset)
    rows = rows_of(workspace, classifier, "train")
    assert isinstance(rows.items, Tokens)
    assert rows.items.values.dtype == np.int32
    for row, text in enumerate(TEXTS):
        assert rows.items[row].tolist() == classifier.tokenizer(text)["input_ids"]
    assert rows.sizes.tolist() == [len(classifier.tokenizer(text)["input_ids"]) for text in TEXTS]
    assert rows_of(workspace, classifier, "train").items is rows.items
    assert [item.tolist() for item in rows.items[-2:]] == [rows.items[10].tolist(), rows.items[11].tolist()]
    with pytest.raises(IndexError):
        rows.items[12]


def test_images_of_a_workspace_are_read_from_its_column(saved, tmp_path):
    classifier = load(saved["vit"], tmp_path / "place")
    ids, labels = [str(n) for n in range(12)], np.arange(12) % 2
    frame = pd.DataFrame({"id": ids, "image": [netpbm(picture) for picture in PIXELS], "label": labels})
    write_frame(tmp_path / "train.arrow", frame)
    dataset = SimpleNamespace(splits={"train": read_frame(tmp_path / "train.arrow")}, modality="image")
    rows = rows_of(SimpleNamespace(data_fingerprint="some", dataset=dataset), classifier, "train")
    found = list(predict(classifier, rows))[-1]
    assert isinstance(found, Predictions)
    theirs = their_logits(saved["vit"], "vit").double().softmax(1)
    np.testing.assert_allclose(found.probabilities, theirs.numpy(), rtol=1e-4)


def test_prefix_length_and_label_words_are_the_specs_over_the_checkpoints(saved, tmp_path):
    own = bring_in(saved["t5"], tmp_path / "place")
    assert own.preparation.model_dump() == {"max_length": None, "prefix": PREFIX, "label_words": LABEL_WORDS}
    given = {"prefix": "", "max_length": 5, "label_words": {"negative": "dull"}}
    classifier = load(saved["t5"], tmp_path / "place", **given)
    assert bring_in(saved["t5"], tmp_path / "place", **given).preparation.label_words == ("dull", "good")
    tokens = classifier.encode([" ".join(["film"] * 20)])[0]
    assert tokens.tolist() == classifier.tokenizer("film film film film")["input_ids"]
    assert classifier.sequences.tolist() == [classifier.tokenizer(word)["input_ids"] for word in ("dull", "good")]
    reordered = bring_in(saved["t5"], tmp_path / "place", names=("positive", "negative"))
    assert reordered.preparation.label_words == ("good", "bad")
    with pytest.raises(UserError, match="does not know the label word 'excellent'"):
        load(saved["t5"], tmp_path / "place", label_words={"positive": "excellent"})
    with pytest.raises(UserError, match="'negative' and 'positive' have the same label word 'bad'"):
        load(saved["t5"], tmp_path / "place", label_words={"positive": "bad"})
    with pytest.raises(UserError, match="label word is given for 'neutral'"):
        load(saved["t5"], tmp_path / "place", label_words={"neutral": "fine"})
    with pytest.raises(UserError, match="outputs of its own"):
        load(saved["bert"], tmp_path / "place", label_words={"positive": "good"})


def test_a_t5_tokenizer_needs_no_sentencepiece(saved, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)  # importing it fails, installed or not
    classifier = load(saved["t5"], tmp_path / "place")
    assert classifier.encode(["good film"])[0].tolist() == classifier.tokenizer(f"{PREFIX}good film")["input_ids"]
    folder = Path(shutil.copytree(saved["t5"], tmp_path / "mine"))
    (folder / "tokenizer.json").rename(folder / "spiece.model")  # all that old checkpoints have
    with pytest.raises(UserError, match=r"the tokenizer in .* cannot be loaded"):
        load(folder, tmp_path / "place")


def test_a_prefix_and_a_length_reach_any_text_model(saved, tmp_path):
    classifier = load(saved["distilbert"], tmp_path / "place", prefix="very ", max_length=4)
    assert classifier.encode(["good film"])[0].tolist() == classifier.tokenizer("very good")["input_ids"]


def test_a_t5_without_label_words_says_the_classes_names(saved, tmp_path):
    folder = Path(shutil.copytree(saved["t5"], tmp_path / "mine"))
    config = read_json(folder / "config.json")
    del config["label_words"]
    write_json(folder / "config.json", config)
    (found,) = inspect(CheckSpec(checkpoint=str(folder), data="unused"), folder)
    assert found.classes == ()
    assert "records no label words" in found.notes[0]
    assert bring_in(folder, tmp_path / "place").preparation.label_words == NAMES
    assert load(folder, tmp_path / "place").label_names == NAMES


@pytest.mark.parametrize("family", ["bert", "t5", "vit"])
@pytest.mark.parametrize("form", ["pickle", "sharded", "sharded pickle", "half precision"])
def test_other_forms_of_weights_are_brought_into_one_safetensors(saved, tmp_path, family, form):
    folder = Path(shutil.copytree(saved[family], tmp_path / "mine"))
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    if form == "half precision":
        save_file(
            {n: v.bfloat16() for n, v in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"}
        )
    elif form == "pickle":
        if family == "t5":  # as torch.save writes tied weights: under each name
            tensors |= dict.fromkeys(("lm_head.weight", "encoder.embed_tokens.weight"), tensors["shared.weight"])
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        ending, stem = (".bin", "pytorch_model") if "pickle" in form else (".safetensors", "model")
        halves = {f"{stem}-1-of-2{ending}": names[::2], f"{stem}-2-of-2{ending}": names[1::2]}
        for file, own in halves.items():
            part = {name: tensors[name] for name in own}
            torch.save(part, folder / file) if "pickle" in form else save_file(part, folder / file, {"format": "pt"})
        index = {"metadata": {}, "weight_map": {name: file for file, own in halves.items() for name in own}}
        write_json(folder / f"{stem}{ending}.index.json", index)
    spec = CheckSpec(checkpoint=str(folder), data="unused")
    (found,) = inspect(spec, folder)
    imported = import_checkpoint(found, spec, tmp_path / "place", NAMES)
    classifier = load(folder, tmp_path / "again")
    assert found.parameters == sum(parameter.numel() for parameter in classifier.module.parameters())
    assert classifier.dtype == torch.float32
    theirs = their_logits(saved[family], family)
    if form == "half precision":
        assert imported.path == folder
        torch.testing.assert_close(logits(classifier, raw_of(family)), theirs, rtol=0.05, atol=0.05)
    else:
        assert imported.path == tmp_path / "place"
        assert "copied into one safetensors file" in found.notes[-1]
        torch.testing.assert_close(logits(classifier, raw_of(family)), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
@pytest.mark.parametrize("stem", ["", "-cifar"])
def test_a_bare_state_dict_of_torchvision(tmp_path, ending, stem):
    from torchvision.models import resnet18

    torch.manual_seed(0)
    module = resnet18(num_classes=3).eval()
    if stem:
        module.conv1, module.maxpool = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False), torch.nn.Identity()
    file = tmp_path / f"mine{ending}"
    save_file(module.state_dict(), file) if ending == ".safetensors" else torch.save(module.state_dict(), file)
    spec = CheckSpec(checkpoint=str(file), data="unused", architecture=f"resnet18{stem}")
    (found,) = inspect(spec, file)
    assert found.classes == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert found.parameters == sum(parameter.numel() for parameter in module.parameters())
    names = ("cat", "dog", "fox")
    imported = import_checkpoint(found, spec, tmp_path / "place", names)
    classifier = load_folder.__wrapped__(imported.path, "some", names, imported.kind, imported.preparation)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    if stem:
        item = np.asarray(classifier.encode([pixels])[0])
        assert item.shape == (3, 32, 32)
    else:
        from torchvision.models import ResNet18_Weights

        item = ResNet18_Weights.DEFAULT.transforms()(Image.fromarray(pixels)).numpy()
        np.testing.assert_allclose(classifier.encode([pixels])[0], item, atol=0.03)  # they resize as floats
    with torch.no_grad():
        torch.testing.assert_close(
            logits(classifier, [pixels]), module(torch.from_numpy(classifier.encode([pixels])[0])[None])
        )
    other = CheckSpec(checkpoint=str(file), data="unused", architecture="resnet18" if stem else "resnet18-cifar")
    with pytest.raises(UserError, match="give the other stem's"):
        inspect(other, file)
    with pytest.raises(UserError, match="does not say of what model"):
        inspect(CheckSpec(checkpoint=str(file), data="unused"), file)
    deeper = CheckSpec(checkpoint=str(file), data="unused", architecture=f"resnet50{stem}")
    with pytest.raises(UserError, match=r"of shape .* its configuration describes"):
        import_checkpoint(inspect(deeper, file)[0], deeper, tmp_path / "deeper", names)
    unknown = CheckSpec(checkpoint=str(file), data="unused", architecture=f"resnet19{stem}")
    with pytest.raises(UserError, match=r"torchvision has no 'resnet19'.* give one of resnet101, resnet152, resnet18"):
        import_checkpoint(inspect(unknown, file)[0], unknown, tmp_path / "deeper", names)


@pytest.mark.parametrize("family", ["xlm-roberta", "gpt2"])
def test_a_family_whose_parts_are_not_known_is_read_with_all_as_its_only_scope(tmp_path, saved, family):
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(saved["roberta"])
    config = AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=66,
        type_vocab_size=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "mine")
    tokenizer.save_pretrained(tmp_path / "mine")
    (found,) = inspect(CheckSpec(checkpoint=str(tmp_path / "mine"), data="unused"), tmp_path / "mine")
    assert found.family == family
    assert any("only the scope all" in note for note in found.notes)
    classifier = load(tmp_path / "mine", tmp_path / "place")
    torch.testing.assert_close(logits(classifier, TEXTS), their_logits(tmp_path / "mine", family), rtol=1e-4, atol=1e-5)
    assert classifier.scope("all").parameters
    with pytest.raises(UserError, match=r"scope 'head': \w+ is of no family .* use all"):
        classifier.scope("head")


def test_an_output_folder_gives_all_its_checkpoints(saved, tmp_path):
    output = tmp_path / "output"
    for step in (9, 20, 100):
        shutil.copytree(saved["bert"], output / f"checkpoint-{step}")
    shutil.copytree(saved["bert"], output / "checkpoint-draft")
    spec = CheckSpec(checkpoint=str(output), data="unused", also=(str(saved["bert"]), str(output / "checkpoint-9")))
    paths = [Path(found.path) for found in inspect(spec, output)]
    assert [path.name for path in paths] == ["checkpoint-100", "checkpoint-20", "checkpoint-9", "bert"]
    shutil.copytree(saved["bert"], output, dirs_exist_ok=True)
    assert Path(inspect(spec, output)[0].path) == output
    with pytest.raises(UserError, match="give checkpoints of one training"):
        inspect(CheckSpec(checkpoint=str(output), data="unused", also=(str(saved["roberta"]),)), output)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: shutil.rmtree(folder), "there is nothing at"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json in it"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "has no preprocessor_config.json"),
    ],
)
def test_what_is_missing_is_named(saved, tmp_path, change, said):
    folder = Path(shutil.copytree(saved["vit"], tmp_path / "mine"))
    change(folder)
    with pytest.raises(UserError, match=said):
        inspect(CheckSpec(checkpoint=str(folder), data="unused"), folder)


def test_t5_per_example_gradients_of_a_loaded_checkpoint_with_its_tied_embedding(saved, tmp_path):
    """Scope all: the table is the encoder's input, the decoder's input and the output layer at once."""
    classifier = load(saved["t5"], tmp_path / "place")
    classifier.module.double()
    scope = classifier.scope("all")
    assert "shared.weight" in scope.parameters
    assert "lm_head.weight" not in scope.parameters
    labels = np.array([0, 1, 1, 0, 1])
    batch = Rows(classifier, classifier.encode(TEXTS[:5]), labels).batch(range(5))
    own = dict(classifier.module.named_parameters())
    stacked: dict[str, list[torch.Tensor]] = {name: [] for name in scope.parameters}
    for parameter in own.values():
        parameter.requires_grad_(True)
    for row, label in enumerate(labels):  # the plain module's own loss, one text at a time, without padding
        classifier.module.zero_grad()
        ids = torch.tensor([classifier.tokenizer(PREFIX + TEXTS[row])["input_ids"]])
        targets = torch.tensor([classifier.tokenizer(LABEL_WORDS[label])["input_ids"]])
        (classifier.module(input_ids=ids, labels=targets).loss * targets.shape[1]).backward()
        for name, parameter in own.items():
            stacked[name].append(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone())
    classifier.module.requires_grad_(False)
    gradients = {name: torch.stack(values) for name, values in stacked.items()}
    directions = random_directions(classifier, scope, 3)
    found = project(classifier, scope, [batch], directions)
    close(found, expected(gradients, directions), gradients, directions)
    assert gradients["shared.weight"].flatten(1).norm(dim=1).min() > 1e-3
    table = {"shared.weight": gradients["shared.weight"]}
    alone = project(
        classifier,
        type(scope)("table", ("shared.weight",), ("",)),
        [batch],
        {"shared.weight": directions["shared.weight"]},
    )
    close(alone, expected(table, directions), table, directions)
