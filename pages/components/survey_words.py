"""What a check found, in words; no Streamlit, so that each sentence is tested alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from influence_core.specs import WARM_BATCHES, Split
from influence_core.survey import CheckpointFound, DataFound, SplitFound

OPTIMIZERS = {"adam": "Adam", "sgd": "SGD"}


def optimizer_words(optimizer: Mapping[str, Any] | None) -> str:
    """Say what is known of the optimizer, and where its state will come from."""
    warm = f"warmed over {WARM_BATCHES} batches"
    if optimizer is None:
        return f"not recorded: Adam, {warm}"
    kind = str(optimizer.get("kind", "adam"))
    name = OPTIMIZERS.get(kind, kind)
    if "state" in optimizer:
        return f"{name}, its state is there"
    if kind == "sgd" and not optimizer.get("momentum"):
        return f"{name}, which keeps no state"
    return f"{name}, its state will be {warm}"


def parameters_words(count: int) -> str:
    """Write a number of parameters ("0.27 M", "66.4 M", "1,024")."""
    return f"{count:,}" if count < 100_000 else f"{count / 1e6:,.3g} M"


def classes_words(found: CheckpointFound) -> str:
    """Write how many classes a checkpoint tells apart."""
    return f"{len(found.classes):,}" if found.classes else "as the data has"


def rows_words(splits: Mapping[Split, SplitFound], held_out: bool) -> str:
    """Write how many rows each split has, and where the test rows come from."""
    said = " · ".join(f"{found.rows:,} {split}" for split, found in splits.items())
    return f"{said}. No test data was given: every fifth row is held out as one." if held_out else f"{said}."


def copies_words(splits: Mapping[Split, SplitFound]) -> list[str]:
    """Say what duplicates and leaks there are, and what they mean; empty where there are none."""
    said = []
    copies = [f"{found.duplicates:,} in {split}" for split, found in splits.items() if found.duplicates]
    if copies:
        said.append(
            f"Duplicates: {', '.join(copies)}. These inputs stand there more than once; each copy counts in training, "
            "and rankings list them side by side."
        )
    leaks = [f"{found.leaks:,} of {split}" for split, found in splits.items() if found.leaks]
    if leaks:
        said.append(
            f"Leaks: {', '.join(leaks)} stand in the training split as well. Accuracy on them is memory, and their "
            "first proponent is likely their own copy."
        )
    return said


def broken_count(data: DataFound) -> int:
    """Return how many rows cannot be used."""
    return sum(found.broken for found in data.splits.values())


def matched_words(data: DataFound, known: Sequence[str]) -> str:
    """Say how the data's labels were matched to the classes that the checkpoint knows."""
    if not known:
        return "The checkpoint names no classes: the data's labels are taken."
    return {
        "name": "Matched by name. Change what is wrong before anything runs.",
        "number": "Matched by number: the labels are taken as places in the checkpoint's list. Look closely.",
        "given": "As you chose.",
        "none": "No label matches a class: choose one for each.",
    }[data.matched]
