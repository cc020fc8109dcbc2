"""The Fashion-MNIST demo's rows as a saved data set, to open other checkpoints with, for the studies in docs/results.

``python -m benchmarks.fashion_data FOLDER`` after ``demo prepare fashion-mnist``; then
``python -m influence_core train --recipe fashion-mnist-resnet --out RUN`` and
``python -m influence_core open RUN FOLDER --scope all``, which adds the checkpoints to ``demo:fashion-mnist``.
"""

import sys
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value

from influence_core.workspace import Workspace


def write(folder: Path) -> None:
    """Write every split with the demo's ids, images and labels."""
    workspace = Workspace.open("demo:fashion-mnist")
    names = list(workspace.label_names)
    features = Features({"id": Value("string"), "image": Image(), "label": ClassLabel(names=names)})
    splits = {}
    for split, frame in workspace.dataset.splits.items():
        columns = {
            "id": [str(each) for each in frame["id"]],
            "image": [{"bytes": each, "path": None} for each in frame["image"]],
            "label": [names[int(each)] for each in frame["label"]],
        }
        splits[split] = Dataset.from_dict(columns, features=features)
    DatasetDict(splits).save_to_disk(folder)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
