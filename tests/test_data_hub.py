"""What the hub's libraries raise, in one line, and nothing printed beside it."""

import logging
import socket
import sys

import pytest
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from influence_core.data import hub, hub_errors
from influence_core.errors import UserError


def resolving_fails(*_, **__):
    """Raise as the libraries do without a network: an error of theirs, from the network's own."""
    logging.getLogger("huggingface_hub.utils").warning("Retrying in 1s [Retry 1/5].")
    try:
        raise socket.gaierror(-2, "Name or service not known")
    except socket.gaierror as error:
        raise FileNotFoundError("An error happened while trying to locate the files\nPlease check it") from error


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", resolving_fails)
    monkeypatch.setattr("datasets.load_dataset", resolving_fails)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", resolving_fails)


@pytest.mark.parametrize(("ask", "what"), [(hub.fetch_checkpoint, "model"), (hub.open_dataset, "dataset")])
def test_without_a_network_one_short_line_says_the_root_cause_alone(offline, caplog, ask, what):
    with pytest.raises(UserError) as caught:
        ask("someone/thing")
    assert str(caught.value) == (
        f"could not fetch the {what} 'someone/thing' from the Hugging Face hub ([Errno -2] Name or service not known): "
        "check the name and the network, or give a local path"
    )
    assert not caplog.records
    logging.getLogger("huggingface_hub.utils").warning("again heard")
    assert [record.message for record in caplog.records] == ["again heard"]


def test_out_of_reach_the_cache_alone_is_read_and_the_network_is_asked_again_afterwards(monkeypatch, offline):
    from datasets import Dataset, config
    from huggingface_hub import constants

    before = config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    seen = []

    def load(name, **_):
        seen.append((config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE))
        return Dataset.from_dict({"text": ["fine"], "label": ["good"]})

    monkeypatch.setattr("datasets.load_dataset", load)
    assert hub.open_dataset("someone/thing")[""].size == 1
    assert seen == [(True, True)]
    assert before == (config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: None)
    hub.open_dataset("someone/thing")
    assert seen[1] == before


def refused(kind):
    """Raise an error of the hub's without the response that it usually carries."""
    error = kind.__new__(kind)
    Exception.__init__(error, "404 Client Error. (Request ID: Root=1-69)\n\nRepository Not Found for url: https://…")
    return error


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("RepositoryNotFoundError", "there is none of that name, or it is private"),
        ("GatedRepoError", "it is gated"),
        ("RevisionNotFoundError", "it has no such revision"),
    ],
)
def test_the_hubs_own_refusals_are_said_by_their_meaning(name, said):
    error = refused(getattr(sys.modules["huggingface_hub.errors"], name))
    outer = FileNotFoundError("Dataset 'a/b' doesn't exist on the Hub or cannot be accessed.")
    outer.__cause__ = error
    assert hub_errors.cause(error).startswith(said)
    assert hub_errors.cause(outer).startswith(said)


def test_a_hub_that_answers_is_within_reach_and_offline_mode_is_not(monkeypatch):
    def raising(error):
        def ask(*_, **__):
            raise error

        return ask

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", raising(refused(HfHubHTTPError)))
    assert hub_errors.out_of_reach("a/b") is None
    mode = OfflineModeIsEnabled("offline mode is enabled")
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", raising(mode))
    assert hub_errors.out_of_reach("a/b") is mode


def test_an_error_that_says_nothing_is_named():
    assert hub_errors.cause(TimeoutError()) == "TimeoutError"
