"""``demo:fashion-mnist``: a small ResNet on 10,000 images of clothes."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from influence_core.data import fashion
from influence_core.demo.demos import Demo
from influence_core.home import write_text
from influence_core.training.recipes import RECIPES
from influence_core.workspace import WEIGHTS


def write_model(demo: Demo, folder: Path, shipped: Mapping[str, np.ndarray], label_names: tuple[str, ...]) -> None:
    """Write a plain Hugging Face checkpoint of the shipped tensors, in single precision."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: value.astype(np.float32) if value.dtype == np.float16 else value for name, value in shipped.items()
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    for file in demo.side_files:
        shutil.copyfile(demo.folder / file, folder / file)
    write_text(folder / "README.md", "Fashion-MNIST by a small ResNet; see the recipe in the manifest.\n")


FASHION = Demo(
    name="demo:fashion-mnist",
    recipe=RECIPES["fashion-mnist-resnet"],
    base="random weights, seeded",
    scope="last:1",
    weights=WEIGHTS,
    load=fashion.load,
    write_model=write_model,
    side_files=("config.json", "preprocessor_config.json"),
    tracin=False,
)
