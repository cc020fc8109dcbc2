"""Studies submitted to an engine: what pages do, and the same table as in this process. One engine for all."""

import json

import pytest
from checkpoints import save_tiny_checkpoint, write_data
from test_engine import PATIENCE, clear, settle, until

from influence_core.data.opening import run as open_workspace
from influence_core.events import Fading, Progress, Result
from influence_core.runs import client, registry
from influence_core.runs.directory import RunDirectory
from influence_core.runs.stopping import request_stop
from influence_core.specs import DivergenceSpec, FadingSpec, OpenSpec, TracinErrorSpec
from influence_core.workspace import Workspace

SHARED = {"scope": "head", "batch_size": 16, "steps": 3, "learning_rate": 0.05}
FADING = {**SHARED, "optimizer": "sgd", "train_rows": 4, "test_rows": 3, "methods": ("tracin", "random")}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    root = tmp_path_factory.mktemp("studies")
    with pytest.MonkeyPatch.context() as patch:
        settle(root / "home", patch)
        checkpoint, (train, test) = save_tiny_checkpoint(root / "model"), write_data(root)
        spec = OpenSpec(checkpoint=str(checkpoint), data=str(train), test=str(test), scope="last:1")
        name = list(open_workspace(spec, root / "opening"))[-1].value["workspace"]
        client.ensure_engine()
        yield Workspace.open(name)
        clear(root / "home")


def submitted(spec):
    run = RunDirectory.open(client.submit(spec, what="a study", priority=-1))
    state = run.wait(PATIENCE)
    assert state.state == "finished", state.message
    return run.events()[0]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (FadingSpec, {**FADING, "repeats": 2}),
        (DivergenceSpec, {**SHARED, "optimizer": "sgd", "rows": 3, "epsilons": (0.1,), "bounds": True}),
        (TracinErrorSpec, {**SHARED, "rows": 3, "epsilons": (0.01, 0.1)}),
    ],
)
def test_a_study_goes_through_the_engine_and_is_kept(workspace, kind, options, tmp_path):
    spec = kind(workspace=workspace.name, **options)
    happened = submitted(spec)
    assert isinstance(happened[-1], Result)
    assert any(isinstance(event, Progress) and event.unit == "steps" for event in happened)
    if kind is FadingSpec:
        shown = [(event.repeat, event.step) for event in happened if isinstance(event, Fading)]
        assert shown == [(repeat, step) for repeat in (1, 2) for step in (1, 2, 3)]
    here = list(registry.start(spec, tmp_path))  # out of what the worker kept
    assert not [event for event in here if isinstance(event, Progress)]
    timeless = [{**value, "seconds": 0} for value in (happened[-1].value, json.loads(json.dumps(here[-1].value)))]
    assert timeless[0] == timeless[1]


def test_a_pause_keeps_the_repeats_that_are_done(workspace):
    spec = FadingSpec(workspace=workspace.name, **FADING, repeats=200, seed=1)
    run = RunDirectory.open(client.submit(spec))
    until(lambda: any(isinstance(event, Fading) and event.repeat == 2 for event in run.events()[0]))
    request_stop(run.result)
    assert run.wait(PATIENCE).state == "finished"
    value = run.events()[0][-1].value
    assert 1 <= value["repeats"] < 200
    assert value["methods"][0]["method"] == "tracin"
    again = submitted(spec.model_copy(update={"repeats": value["repeats"]}))
    assert not any(isinstance(event, Progress) for event in again)
