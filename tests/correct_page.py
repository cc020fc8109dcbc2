"""The Correct page under test: opening it, reading it, and runs with everything that they leave behind."""

import numpy as np
from safetensors.numpy import save_file
from workspaces import (
    open_app,
)

from influence_core.events import Result, Step
from influence_core.home import write_json
from influence_core.runs.directory import RunDirectory
from influence_core.specs import CorrectionSpec

EXAMPLE = "test-3"  # true positive, predicted negative


def opened(**query):
    app = open_app("correct", **query)
    assert not app.exception
    return app


def texts(app):
    return " | ".join(element.value for element in app.text)


def has(app, key):
    return any(element.key == key for element in app.button)


def captions(app):
    return " | ".join(element.value for element in app.caption).replace("\\", "")


def start(app):
    app.button(key="correct_start").click().run()
    assert not app.exception
    return app


def spec_of(run_id):
    found = RunDirectory.open(run_id).spec()
    assert isinstance(found, CorrectionSpec)
    return found


def step(n, prediction="negative", **fields):
    values = {
        "loss": 1.0 - 0.1 * n,
        "probability": 0.3 + 0.1 * n,
        "base_loss": 1.0,
        "base_probability": 0.3,
        "base_prediction": "negative",
        "divergence": 0.001 * n,
        "integrated_lr": 1e-5 * n,
        "retention": 1.0,
        "changed": [],
    }
    return Step(step=n, prediction=prediction, **{**values, **fields})


def running(workspace, example=EXAMPLE, **options):
    run = RunDirectory.create(CorrectionSpec(workspace=workspace.name, checkpoint="first", example=example, **options))
    run.claim()
    return run


def finished(workspace, flip=2, min_retention=None, example=EXAMPLE, **outcome):
    """A run that flipped at step 2, fixed test-3 and broke test-1, with everything it leaves behind."""
    run = running(workspace, example, min_retention=min_retention)
    for n in range(flip + 1):
        changed = ["test-1"] if n == flip else []
        prediction = "positive" if n == flip else "negative"
        run.append(step(n, prediction, retention=0.98 if n == flip else 1.0, changed=changed))
    value = {
        "flipped": True,
        "flip_step": flip,
        "base_flip_step": None,
        "retention": 0.98,
        "checkpoint": None,
        "steps": flip,
        "split": "test",
        "before": 16 / 24,
        "after": 16 / 24,
        "fixed": [EXAMPLE],
        "broken": ["test-1"],
        **outcome,
    }
    run.append(Result(value=value))
    write_json(run.result / "result.json", value)
    leave_parameters(workspace, run, flip)
    table = workspace.predictions("test").copy()
    table.loc[table["id"] == EXAMPLE, "prediction"] = 1
    table.loc[table["id"] == "test-1", "prediction"] = 0
    table.to_parquet(run.result / "after.parquet", index=False)
    run.finish()
    return run


def leave_parameters(workspace, run, steps):
    save_file({"weight": np.ones((2, 3), dtype=np.float32)}, run.result / "parameters.safetensors")
    save_file({"exp_avg.weight": np.ones((2, 3), dtype=np.float32)}, run.result / "optimizer.safetensors")
    manifest = {
        "checkpoint": "first",
        "checkpoint_fingerprint": workspace.checkpoint("first").fingerprint,
        "data": workspace.data_fingerprint,
        "optimizer": {"kind": "adam", "learning_rate": 1e-5},
        "optimizer_state": "warm",
        "cursor": 0,
        "stale": 0,
        "scope": "head",
        "prefix": "kept",
        "predicted": "negative",
        "desired": "positive",
        "epsilon": 0.375,
        "rows": ["train-0", "train-3"],
        "row_labels": ["positive", "positive"],
        "retention_rows": ["test-1", "test-2"],
        "threads": 1,
        "device": "cpu",
        "dtype": "torch.float32",
        "torch": "2.14.1",
        "spec": run.spec().model_dump(),
        "steps": steps,
        "made": run.id,
    }
    write_json(run.result / "manifest.json", manifest)
