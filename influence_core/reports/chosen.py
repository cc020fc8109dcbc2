"""What a correction's strategy notes of the rows it chose, in words."""

from typing import Any

from influence_core.charts import percent

FEWEST = 0.5  # of chosen opponents with the desired label, below which tuning on them is not to be expected to help
FEW = "With fewer than half, tuning on them can be expected to do little: the paper saw no effect at 54 % (CIFAR-10)."


def chosen_words(noted: dict[str, Any]) -> str | None:
    """Say whose proponents the rows are, how many opponents carry the desired label, how few there were; or None.

    ``noted`` is a manifest, or as much of it as is known before the run.
    """
    other, share, spec = noted.get("proponents_of"), noted.get("desired_share"), noted.get("spec", {})
    said = []
    if other is not None:
        said.append(
            f"The rows are the proponents of {other}, a misprediction with the same prediction and desired label."
        )
    if share is not None:
        said.append(f"{percent(share)} of the chosen opponents carry the desired label, “{noted['desired']}”.")
    if shares := _shares_of_several(noted):
        few, of = sum(each < FEWEST for each in shares), noted.get("of", len(shares))
        which = (
            f"{len(shares)} rows" if of == len(shares) else f"the {len(shares)} rows of {of} that are ranked already"
        )
        said.append(
            f"{percent(sum(shares) / len(shares))} of the chosen opponents carry the desired label, on average; "
            f"for {few} of {which} fewer than half do."
        )
    said += [FEW] if few_desired(noted) else []
    if spec.get("only_annotated"):
        count = sum(len(each["rows"]) for each in noted.get("groups", [noted]))
        examples = len(spec.get("examples", [1]))
        if count < spec["k"] * examples:
            each = f"k = {spec['k']}" + (f" for each of {examples}" if examples > 1 else "")
            said.append(f"Annotators changed fewer rows of the kind than {each}: B is of {count}.")
    return " ".join(said) or None


def few_desired(noted: dict[str, Any]) -> bool:
    """Whether fewer than half of the chosen opponents carry the desired label, of several for any of them."""
    share = noted.get("desired_share")
    shares = _shares_of_several(noted) if share is None else [share]
    return any(each < FEWEST for each in shares)


def _shares_of_several(noted: dict[str, Any]) -> list[float]:
    found = (each.get("desired_share") for each in noted.get("examples", ()))
    return [share for share in found if share is not None]
