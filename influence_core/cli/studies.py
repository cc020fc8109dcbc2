"""Commands of the studies: ``study NAME W``."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from influence_core.cli.output import Checkpoint, Json, Name, Scope, emit, given, number, run_here, table
from influence_core.errors import UserError
from influence_core.specs import DivergenceSpec, FadingSpec, StabilitySpec, TracinErrorSpec
from influence_core.workspace import Workspace

if TYPE_CHECKING:
    import plotly.graph_objects as go

Optimizer = Annotated[str | None, typer.Option(help="sgd, adam or checkpoint (default: the checkpoint's own)")]
State = Annotated[str | None, typer.Option(help="checkpoint, warm or zeros (default: the checkpoint's, else warm)")]
Rate = Annotated[float | None, typer.Option(help="default 1e-5 for Adam, 1e-3 for SGD")]
Steps = Annotated[int | None, typer.Option(help="training steps (default 40)")]
BatchSize = Annotated[int | None, typer.Option(help="rows of each training batch (default 32)")]
Seed = Annotated[int | None, typer.Option(help="of rows, batches and dropout (default 0)")]
NoDropout = Annotated[bool, typer.Option("--no-dropout", help="train on without dropout")]
Dtype = Annotated[str | None, typer.Option(help="float32 or float64 (default: the checkpoint's own)")]
Minutes = Annotated[float | None, typer.Option(help="begin no repeat that would end later; start again to go on")]
Figure = Annotated[Path | None, typer.Option(help="write the figure to this .html, or with kaleido installed .png")]
Weights = Annotated[list[float] | None, typer.Option(help="a weight ε, as often as needed")]

app = typer.Typer(no_args_is_help=True, help="Experiments on a workspace; what they compute is kept.")


@app.command()
def stability(
    workspace: Name,
    hessian_rows: Annotated[list[int] | None, typer.Option(help="sample sizes (default 256, 128, 512)")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="seeds of the first size (default 0, 1)")] = None,
    k: Annotated[int | None, typer.Option(help="eigenvectors kept (default 32)")] = None,
    iterations: Annotated[int | None, typer.Option(help="Lanczos iterations (default 64)")] = None,
    queries: Annotated[int | None, typer.Option(help="mispredictions compared (default 16)")] = None,
    top: Annotated[int | None, typer.Option(help="rows of each end compared (default 20)")] = None,
    scope: Scope = None,
    checkpoint: Checkpoint = None,
    json: Json = False,
) -> None:
    """Say how much ABIF's top rows depend on the Hessian's sample."""
    found = Workspace.open(workspace)
    options = given(
        hessian_rows=tuple(hessian_rows) if hessian_rows else None,
        seeds=tuple(seed) if seed else None,
        k=k,
        iterations=iterations,
        queries=queries,
        top=top,
        scope=scope,
        checkpoint=checkpoint,
    )
    value = run_here(found.spec(StabilitySpec, options))
    if json:
        emit(value)
        return
    print(f"ABIF, k = {value['k']}, {value['queries']} mispredictions, top {value['top']} of both ends by cosine")
    rows = [
        {
            "Hessian rows": " / ".join(map(str, pair["rows"])),
            "seeds": " / ".join(map(str, pair["seeds"])),
            "overlap": pair["overlap"],
            "Spearman": pair["spearman"],
        }
        for pair in value["pairs"]
    ]
    table(rows, ("Hessian rows", "seeds", "overlap", "Spearman"))


@app.command()
def fading(
    workspace: Name,
    method: Annotated[
        list[str] | None, typer.Option(help="a method, as often as needed, or all (default: all that can be used here)")
    ] = None,
    optimizer: Optimizer = None,
    optimizer_state: State = None,
    learning_rate: Rate = None,
    steps: Steps = None,
    train_rows: Annotated[int | None, typer.Option(help="training rows, each perturbed alone (default 32)")] = None,
    test_rows: Annotated[int | None, typer.Option(help="test rows whose loss is read (default 16)")] = None,
    repeats: Annotated[int | None, typer.Option(help="with other rows each (default 5, which a verdict needs)")] = None,
    epsilon: Annotated[float | None, typer.Option(help="weight of a training row (default -0.01)")] = None,
    batch_size: BatchSize = None,
    seed: Seed = None,
    no_dropout: NoDropout = False,
    dtype: Dtype = None,
    scope: Scope = None,
    checkpoint: Checkpoint = None,
    budget_minutes: Minutes = None,
    figure: Figure = None,
    json: Json = False,
) -> None:
    """Measure how the predictive power of scores fades while training goes on (paper, Fig. 2)."""
    named = [name for text in method or () for name in text.split(",")]
    options = given(
        methods=None if not named or named == ["all"] else tuple(named),
        optimizer=optimizer,
        optimizer_state=optimizer_state,
        learning_rate=learning_rate,
        steps=steps,
        train_rows=train_rows,
        test_rows=test_rows,
        repeats=repeats,
        epsilon=epsilon,
        batch_size=batch_size,
        seed=seed,
        dropout=False if no_dropout else None,
        dtype=dtype,
        scope=scope,
        checkpoint=checkpoint,
        budget_minutes=budget_minutes,
    )
    check_figure(figure)
    value = run_here(Workspace.open(workspace).spec(FadingSpec, options))
    if figure is not None:
        from influence_core import charts

        save_figure(charts.fading(value["methods"]), figure)
    if json:
        emit(value["methods"])
        return
    print(
        f"{value['repeats']} of {value['repeats_asked']} repeats of {value['train_rows']} × {value['test_rows']} rows, "
        f"{value['optimizer']} at {value['learning_rate']:g}, ε = {value['epsilon']:g}"
    )
    rows = [_fading_row(row) for row in value["methods"]]
    table(rows, ("method", "peak", "at step", "last", "low", "high", "faded at", "horizon", "verdict"))
    for name, why in value["left_out"].items():
        print(f"without {name}: {why}")


def _fading_row(row: dict[str, Any]) -> dict[str, Any]:
    known = row["peak"] is not None

    def shown(value: float | None) -> str:
        return "–" if value is None else number(float(value))

    return {
        "method": row["method"],
        "peak": shown(row["r"][row["peak"] - 1] if known else None),
        "at step": row["peak"] if known else "–",
        **{"last": shown(row["r"][-1]), "low": shown(row["low"][-1]), "high": shown(row["high"][-1])},
        "faded at": row["faded_at"] if row["faded_at"] is not None else "never",
        "horizon": row["horizon"] if row["horizon"] is not None else "none",
        "verdict": row["verdict"] or f"too few repeats ({row['band']})",
    }


@app.command()
def divergence(
    workspace: Name,
    epsilon: Weights = None,
    rows: Annotated[int | None, typer.Option(help="training rows up-sampled together (default 16)")] = None,
    optimizer: Optimizer = None,
    optimizer_state: State = None,
    learning_rate: Rate = None,
    steps: Steps = None,
    repeats: Annotated[int | None, typer.Option(help="with other rows each (default 1)")] = None,
    batch_size: BatchSize = None,
    seed: Seed = None,
    no_dropout: NoDropout = False,
    dtype: Dtype = None,
    scope: Scope = None,
    checkpoint: Checkpoint = None,
    budget_minutes: Minutes = None,
    figure: Figure = None,
    json: Json = False,
) -> None:
    """Measure how far training on a perturbed loss leads away (paper, Fig. 1)."""
    options = given(
        epsilons=tuple(epsilon) if epsilon else None,
        rows=rows,
        optimizer=optimizer,
        optimizer_state=optimizer_state,
        learning_rate=learning_rate,
        steps=steps,
        repeats=repeats,
        batch_size=batch_size,
        seed=seed,
        dropout=False if no_dropout else None,
        dtype=dtype,
        scope=scope,
        checkpoint=checkpoint,
        budget_minutes=budget_minutes,
    )
    check_figure(figure)
    value = run_here(Workspace.open(workspace).spec(DivergenceSpec, options))
    if figure is not None:
        from influence_core import charts

        save_figure(charts.phases(value["series"]), figure)
    if json:
        emit(value["series"])
        return
    shown = []
    for row in value["series"]:
        fit = row["fit"] or {"slopes": ["–"] * 2, "breakpoint": "–", "r2": ["–"] * 2, "best": "too few steps for a fit"}
        (first, second), (_, r2) = fit["slopes"], fit["r2"]
        about = {"repeat": row["repeat"] + 1, "epsilon": row["epsilon"], "distance": row["divergence"][-1]}
        shown.append({**about, "slope 1": first, "slope 2": second, "R² 2": r2, "bend": fit["breakpoint"], **fit})
    table(shown, ("repeat", "epsilon", "distance", "slope 1", "slope 2", "R² 2", "bend", "best"))


@app.command("tracin-error")
def tracin_error(
    workspace: Name,
    epsilon: Weights = None,
    rows: Annotated[int | None, typer.Option(help="training rows up-sampled together (default 16)")] = None,
    learning_rate: Rate = None,
    steps: Steps = None,
    repeats: Annotated[int | None, typer.Option(help="with other rows each (default 1)")] = None,
    batch_size: BatchSize = None,
    seed: Seed = None,
    no_dropout: NoDropout = False,
    dtype: Annotated[list[str] | None, typer.Option(help="float64 or float32 (default: both)")] = None,
    scope: Scope = None,
    checkpoint: Checkpoint = None,
    budget_minutes: Minutes = None,
    figure: Figure = None,
    json: Json = False,
) -> None:
    """Measure how much more TracIn's Jacobian (Eq. 2) errs than the exact one (Eq. 6; paper, Fig. 12)."""
    options = given(
        epsilons=tuple(epsilon) if epsilon else None,
        rows=rows,
        learning_rate=learning_rate,
        steps=steps,
        repeats=repeats,
        batch_size=batch_size,
        seed=seed,
        dropout=False if no_dropout else None,
        dtypes=tuple(dtype) if dtype else None,
        scope=scope,
        checkpoint=checkpoint,
        budget_minutes=budget_minutes,
    )
    check_figure(figure)
    value = run_here(Workspace.open(workspace).spec(TracinErrorSpec, options))
    if figure is not None:
        from influence_core import charts

        save_figure(charts.tracin_error(value["series"]), figure)
    if json:
        emit(value["series"])
        return
    names = {"error_eq2": "Eq. 2 errs by", "error_eq6": "Eq. 6 errs by", "ratio": "ratio"}
    shown = [
        {**row, "repeat": row["repeat"] + 1, **{name: row[field][-1] for field, name in names.items()}}
        for row in value["series"]
    ]
    table(shown, ("repeat", "dtype", "epsilon", *names.values()))


def check_figure(path: Path | None) -> None:
    """Refuse a figure's file before anything long begins: another ending, no folder, or PNG without kaleido."""
    if path is None:
        return
    if path.suffix not in (".html", ".png"):
        raise UserError(f"--figure {path}: give a file that ends in .html or .png")
    if not path.parent.is_dir():
        raise UserError(f"--figure {path}: there is no folder {path.parent}, make it first")
    if path.suffix == ".png" and find_spec("kaleido") is None:
        raise UserError(f"--figure {path}: a PNG needs the kaleido library: run pip install kaleido, or write .html")


def save_figure(figure: "go.Figure", path: Path) -> None:
    """Write a figure; HTML ones of a folder share one plotly.min.js beside them, so that they work offline."""
    if path.suffix == ".html":
        figure.write_html(path, include_plotlyjs="directory")
    else:
        figure.write_image(path, scale=2)


def register(root: typer.Typer) -> None:
    """Add this room's commands."""
    root.add_typer(app, name="study")
