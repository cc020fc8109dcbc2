"""Commands that say how far a ranking can be trusted, and what a row would do: horizon, forecast."""

from typing import Annotated

import typer

from influence_core.cli.output import Checkpoint, Json, Name, Scope, emit, given, number, run_here, table
from influence_core.cli.settings import Method, SetOptions, settings_of
from influence_core.estimates import estimate
from influence_core.horizons import Course, Followed, Forecast, Horizon
from influence_core.specs import ForecastSpec, HorizonSpec
from influence_core.workspace import Workspace

Example = Annotated[str, typer.Option(help="id of a validation or test row")]
Target = Annotated[str | None, typer.Option(help="predicted (default), gold, or a label")]
Optimizer = Annotated[str | None, typer.Option(help="sgd, adam or checkpoint (default: the checkpoint's own)")]
State = Annotated[str | None, typer.Option(help="checkpoint, warm or zeros (default: the checkpoint's, else warm)")]
Rate = Annotated[float | None, typer.Option(help="default 1e-5 for Adam, 1e-3 for SGD")]
Steps = Annotated[int | None, typer.Option(help="training steps (default 20)")]
Epsilon = Annotated[float | None, typer.Option(help="weight of a training row (default -0.01)")]
BatchSize = Annotated[int | None, typer.Option(help="rows of each training batch (default 32)")]
Seed = Annotated[int | None, typer.Option(help="of rows, batches and dropout (default 0)")]
SHOWN = 10  # lines of a table of steps, at most


def horizon(
    workspace: Name,
    example: Example,
    target: Target = None,
    method: Method = None,
    settings: SetOptions = None,
    by: Annotated[str | None, typer.Option(help="cosine (default) or score")] = None,
    scope: Scope = None,
    checkpoint: Checkpoint = None,
    steps: Steps = None,
    train_rows: Annotated[int | None, typer.Option(help="training rows, each perturbed alone (default 16)")] = None,
    repeats: Annotated[int | None, typer.Option(help="on other random rows and batches each (default 1)")] = None,
    optimizer: Optimizer = None,
    optimizer_state: State = None,
    learning_rate: Rate = None,
    batch_size: BatchSize = None,
    epsilon: Epsilon = None,
    seed: Seed = None,
    trust: Annotated[float | None, typer.Option(help="what the band's lower end has to reach (default 0.3)")] = None,
    json: Json = False,
) -> None:
    """Measure for how many steps a ranking predicts what training does."""
    found = Workspace.open(workspace)
    options = given(
        example=example,
        target=target,
        method=method,
        settings=settings_of(method, settings),
        by=by,
        scope=scope,
        checkpoint=checkpoint,
        steps=steps,
        train_rows=train_rows,
        repeats=repeats,
        optimizer=optimizer,
        optimizer_state=optimizer_state,
        learning_rate=learning_rate,
        batch_size=batch_size,
        epsilon=epsilon,
        seed=seed,
        trust=trust,
    )
    spec = found.spec(HorizonSpec, options)
    typer.echo(f"this takes {estimate(found, spec).words}", err=True)
    value = Horizon(**run_here(spec))
    if json:
        emit({**value.model_dump(), "horizon": value.whole.horizon, "integrated_lr": value.integrated_lr})
        return
    print(f"{value.method} by {value.by} for {value.target!r}, {_circumstances(value)}")
    print(f"band: {value.band}, {value.repeats} of {value.repeats_asked} repeats; trusted while ≥ {value.trust:g}")
    halves = {"all rows": value.whole, "random half": value.random, "the two ends": value.ends}
    columns = ("rows", "of them", "peak", "at step", "low", "last", "low at last", "horizon", "Σ η")
    table([_half(name, course, value.learning_rate) for name, course in halves.items()], columns)


def _half(name: str, course: Course, learning_rate: float) -> dict[str, object]:
    def shown(values: list[float | None], step: int | None) -> object:
        found = values[step - 1] if step else None
        return "–" if found is None else number(found)

    end = len(course.r) or None
    return {
        "rows": name,
        "of them": course.rows,
        "peak": shown(course.r, course.peak),
        "at step": course.peak or "–",
        "low": shown(course.low, course.peak),
        "last": shown(course.r, end),
        "low at last": shown(course.low, end),
        "horizon": course.horizon or "none",
        "Σ η": number(course.horizon * learning_rate) if course.horizon else "–",
    }


def forecast(
    workspace: Name,
    example: Example,
    row: Annotated[list[str], typer.Option(help="id of a training row, as often as needed (at most 8)")],
    target: Target = None,
    scope: Scope = None,
    checkpoint: Checkpoint = None,
    steps: Steps = None,
    optimizer: Optimizer = None,
    optimizer_state: State = None,
    learning_rate: Rate = None,
    batch_size: BatchSize = None,
    epsilon: Epsilon = None,
    seed: Seed = None,
    json: Json = False,
) -> None:
    """Predict step by step what training on L + ε l_x does to a test row's loss, for single training rows x."""
    found = Workspace.open(workspace)
    options = given(
        example=example,
        rows=tuple(row),
        target=target,
        scope=scope,
        checkpoint=checkpoint,
        steps=steps,
        optimizer=optimizer,
        optimizer_state=optimizer_state,
        learning_rate=learning_rate,
        batch_size=batch_size,
        epsilon=epsilon,
        seed=seed,
    )
    spec = found.spec(ForecastSpec, options)
    typer.echo(f"this takes {estimate(found, spec).words}", err=True)
    value = Forecast(**run_here(spec))
    if json:
        emit(value.model_dump())
        return
    print(f"change of the loss of {value.target!r} (nats), {_circumstances(value)}")
    wanted = sorted({round(place * value.steps / SHOWN) for place in range(SHOWN + 1)})
    rows = [
        {
            "step": t,
            **{f"{name} Eq. 6": value.exact[q][t] for q, name in enumerate(value.rows)},
            **{f"{name} Eq. 2": value.additive[q][t] for q, name in enumerate(value.rows)},
        }
        for t in wanted
    ]
    table(rows, list(rows[0]))


def _circumstances(value: Followed) -> str:
    of = f"{value.optimizer} ({value.state} state) at {value.learning_rate:g}, batches of {value.batch_size}"
    return f"scope {value.scope} of {value.checkpoint}, {of}, ε = {value.epsilon:g}"


def register(app: typer.Typer) -> None:
    """Add this room's commands."""
    for command in (horizon, forecast):
        app.command()(command)
