"""Fixtures that several files share."""

import json
import os
from pathlib import Path

import pytest
from checkpoints import save_tiny_checkpoint, write_data

from influence_core import rates
from influence_core.data.opening import run as open_workspace
from influence_core.events import Result
from influence_core.specs import OpenSpec
from influence_core.workspace import Workspace


def pytest_configure() -> None:
    """Give each of several processes a home of its own, where one was given."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None and "INFLUENCE_HOME" in os.environ:
        os.environ["INFLUENCE_HOME"] = str(Path(os.environ["INFLUENCE_HOME"]) / worker)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of several processes one begins with the browser's journeys, which take longest."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: not _is_journey(item.nodeid))


def _is_journey(name: str) -> bool:
    return "test_journey" in name.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """With several processes a file stays whole in one of them, and so do all journeys: one browser at a time."""
    from xdist.scheduler import LoadFileScheduling

    class JourneysTogether(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "journeys" if _is_journey(nodeid) else str(super()._split_scope(nodeid))

    return JourneysTogether(config, log)


@pytest.fixture(autouse=True)
def _reference_machine(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Guess times as on the machine that the guesses were measured on, whatever the tests run on."""
    if request.node.get_closest_marker("own_speed") is None:
        monkeypatch.setattr(rates, "speed", lambda: 1.0)


@pytest.fixture
def home(monkeypatch, tmp_path) -> Path:
    """A fresh INFLUENCE_HOME."""
    path = tmp_path / "home"
    monkeypatch.setenv("INFLUENCE_HOME", str(path))
    monkeypatch.delenv("INFLUENCE_DATABASE_URL", raising=False)
    return path


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """A briefly trained tiny BERT, made once; not to be changed."""
    return save_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny-bert")


@pytest.fixture(scope="session")
def data_files(tmp_path_factory) -> tuple[Path, Path]:
    """train.csv and test.csv of the tiny checkpoint's kind."""
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def opened(home, tiny_checkpoint, data_files, tmp_path) -> Workspace:
    """A workspace opened from the tiny checkpoint and files, scope last:1."""
    spec = OpenSpec(checkpoint=str(tiny_checkpoint), data=str(data_files[0]), test=str(data_files[1]), scope="last:1")
    for event in open_workspace(spec, tmp_path / "opening"):
        if isinstance(event, Result):
            return Workspace.open(str(json.loads(json.dumps(event.value))["workspace"]))
    raise AssertionError("open ended without a result")
