"""Code that loads a kept checkpoint without this library, for its model card."""

from collections.abc import Sequence
from typing import Any

from influence_core.preparation import MAX_LENGTH, Kind, Preparation
from influence_core.resnets import RESIZED, TORCHVISION, architecture, image_size, is_cifar, normalisation

TEXT = """\
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = "."  # where this card lies
names = {names}
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder).eval()


def predict(texts):
    found = []
    for text in texts:
        inputs = tokenizer({prefix}text, truncation=True, max_length={length}, return_tensors="pt")
        with torch.no_grad():
            found.append(names[int(model(**inputs).logits.argmax())])
    return found
"""
SEQ2SEQ = """\
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

folder = "."  # where this card lies
names = {names}
words = {words}  # what the decoder says for each class
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
answers = [tokenizer(word, return_tensors="pt")["input_ids"] for word in words]


def predict(texts):
    found = []
    for text in texts:
        inputs = tokenizer({prefix}text, truncation=True, max_length={length}, return_tensors="pt")
        with torch.no_grad():
            losses = [float(model(**inputs, labels=answer).loss) * answer.shape[1] for answer in answers]
        found.append(names[losses.index(min(losses))])
    return found
"""
IMAGE = """\
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

folder = "."  # where this card lies
names = {names}
processor = AutoImageProcessor.from_pretrained(folder)
model = AutoModelForImageClassification.from_pretrained(folder).eval()


def predict(files):
    images = [Image.open(file).convert({mode}) for file in files]
    with torch.no_grad():
        logits = model(**processor(images=images, return_tensors="pt")).logits
    return [names[label] for label in logits.argmax(1).tolist()]
"""
TORCHVISION_RESNET = """\
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.models import get_model
from torchvision.transforms import InterpolationMode, v2

folder = "."  # where this card lies
names = {names}
model = get_model({architecture}, weights=None, num_classes={classes})
{stem}model.load_state_dict(load_file(f"{{folder}}/model.safetensors"))
model.eval()
prepare = v2.Compose(
    [
{resize}        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize({mean}, {std}),
    ]
)


def predict(files):
    images = torch.stack([prepare(Image.open(file).convert({mode})) for file in files])
    with torch.no_grad():
        logits = model(images)
    return [names[label] for label in logits.argmax(1).tolist()]
"""
MODES = {1: "L", 3: "RGB"}


def snippet(kind: Kind, preparation: Preparation, config: dict[str, Any], names: Sequence[str], channels: int) -> str:
    """Return Python that defines ``predict`` with transformers or torchvision alone.

    ``config`` is the folder's config.json; ``channels`` are those of an image model's inputs.
    """
    given: dict[str, Any] = {"names": repr(list(names))}
    if kind == "image":
        given["mode"] = repr(MODES[channels])
        return _torchvision(config, channels, given) if _is_torchvision(config) else IMAGE.format(**given)
    given["prefix"] = f"{preparation.prefix!r} + " if preparation.prefix else ""
    given["length"] = _length(preparation, config)
    if kind == "text":
        return TEXT.format(**given)
    return SEQ2SEQ.format(**given, words=repr(list(preparation.label_words or names)))


def library(kind: Kind, config: dict[str, Any]) -> str:
    """Return the library that loads the checkpoint."""
    return "torchvision" if kind == "image" and _is_torchvision(config) else "transformers"


def _is_torchvision(config: dict[str, Any]) -> bool:
    return config.get("model_type") == TORCHVISION


def _length(preparation: Preparation, config: dict[str, Any]) -> int:
    """Return the tokens after which a text is cut, as `models.text` has it."""
    wanted = preparation.max_length or MAX_LENGTH
    first = int(config.get("pad_token_id") or 0) + 1 if config.get("model_type") == "roberta" else 0
    return min(wanted, int(config.get("max_position_embeddings") or wanted + first) - first)


def _torchvision(config: dict[str, Any], channels: int, given: dict[str, Any]) -> str:
    size, cifar = image_size(config), is_cifar(config)
    mean, std = (_each(values, channels) for values in normalisation(config, channels))
    stem, resize = "", [f"v2.Resize({round(size * RESIZED)}, InterpolationMode.BILINEAR)", f"v2.CenterCrop({size})"]
    if cifar:
        stem = f"model.conv1 = torch.nn.Conv2d({channels}, 64, 3, padding=1, bias=False)\n"
        stem += "model.maxpool = torch.nn.Identity()\n"
        resize = [f"v2.Resize(({size}, {size}), InterpolationMode.BILINEAR)"]
    elif channels != 3:
        stem = f"model.conv1 = torch.nn.Conv2d({channels}, 64, 7, stride=2, padding=3, bias=False)\n"
    given |= {"architecture": repr(architecture(config)), "classes": len(config.get("id2label") or (0, 0))}
    lines = "".join(f"        {line},\n" for line in resize)
    return TORCHVISION_RESNET.format(**given, stem=stem, resize=lines, mean=mean, std=std)


def _each(values: Any, channels: int) -> list[float]:
    given = list(values) if isinstance(values, list | tuple) else [values]
    return given * channels if len(given) == 1 else given
