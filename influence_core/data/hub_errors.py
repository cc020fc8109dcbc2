"""The hub's libraries kept quiet, and what they raise in one line."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

LIBRARIES = ("huggingface_hub", "datasets")
PROBE = 5.0  # seconds until the hub counts as out of reach
SAID = 160  # characters of a library's own words in ours


@contextmanager
def quietly() -> Iterator[None]:
    """Keep the libraries from printing: what went wrong is said once, by whoever calls."""
    loggers = [logging.getLogger(name) for name in LIBRARIES]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def out_of_reach(name: str) -> Exception | None:
    """Ask the hub for a data set, once: returns what kept it from answering; None where it answered, whatever it said.

    The `datasets` library itself asks six times, for half a minute.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().dataset_info(name, timeout=PROBE)
    except HfHubHTTPError:
        return None
    except Exception as error:  # the network's errors are of many kinds
        return error
    return None


@contextmanager
def from_cache_alone() -> Iterator[None]:
    """Let the libraries read what they fetched before and ask nobody, as their HF_HUB_OFFLINE does."""
    from datasets import config
    from huggingface_hub import constants

    before = config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def unreachable(what: str, name: str, error: Exception) -> str:
    """Say in one line why the hub did not give it."""
    return (
        f"could not fetch the {what} {name!r} from the Hugging Face hub ({cause(error)}): "
        f"check the name and the network, or give a local path"
    )


def cause(error: BaseException) -> str:
    """Return the first line of what is at the root of an error; of the hub's own refusals, their meaning."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    meaning: dict[type[BaseException], str] = {
        GatedRepoError: "it is gated: ask for access there, and log in",
        RepositoryNotFoundError: "there is none of that name, or it is private",
        RevisionNotFoundError: "it has no such revision",
    }
    behind: BaseException | None = error
    while behind is not None:
        error = behind
        for kind, said in meaning.items():
            if isinstance(error, kind):
                return said
        behind = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    lines = str(error).strip().splitlines()
    return lines[0][:SAID] if lines else type(error).__name__
