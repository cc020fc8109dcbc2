"""Commands of the studies: ``study NAME W``."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from influence_core.cli.output import Json, emit, number, run_here, table
from influence_core.cli.settings import SetOfMethods, settings_of_methods
from influence_core.cli.study_files import check_file, save_figure, save_record
from influence_core.cli.study_options import (
    OptimizerOptions,
    StudyOptions,
    TrainingOptions,
    TrajectoryOptions,
    Upsampled,
    Weights,
    study,
)
from influence_core.estimates import estimate
from influence_core.specs import (
    CorrectionStudySpec,
    DivergenceSpec,
    FadingSpec,
    MislabelledSpec,
    RetrainSpec,
    StabilitySpec,
    TracinErrorSpec,
)
from influence_core.study_checks import check_study
from influence_core.workspace import Workspace

if TYPE_CHECKING:
    import plotly.graph_objects as go

Asked = TypeVar(
    "Asked",
    StabilitySpec,
    FadingSpec,
    DivergenceSpec,
    TracinErrorSpec,
    CorrectionStudySpec,
    MislabelledSpec,
    RetrainSpec,
)
BOUNDS = {"bound": "bound (8)", "bound_tight": "tighter"}

app = typer.Typer(no_args_is_help=True, help="Experiments on a workspace; what they compute is kept.")


def measured(kind: type[Asked], shared: StudyOptions, **own: Any) -> dict[str, Any]:
    """Run a study with the options given, write its record if asked to, and return its value."""
    check_file("--out", shared.out, (".json",))
    if isinstance(shared, TrainingOptions):
        check_file("--figure", shared.figure, (".html", ".png"))
    workspace = Workspace.open(shared.workspace)
    spec = workspace.spec(kind, shared.of_spec(**own))
    if not isinstance(spec, StabilitySpec):  # whose cost nobody has measured
        check_study(workspace, spec)
        typer.echo(f"this takes {estimate(workspace, spec).words}", err=True)
    value = run_here(spec, early=True)
    save_record(shared, spec, value)
    return value


def drawn(file: Path | None, figure: "Callable[[ModuleType], go.Figure]") -> None:
    """Write the figure that ``figure(charts)`` makes to a file, if one is named; plotly is imported only then."""
    if file is not None:
        from influence_core import charts

        save_figure(charts.standalone(figure(charts)), file)


@study(app, "stability", StudyOptions)
def stability(
    shared: StudyOptions,
    hessian_rows: Annotated[list[int] | None, typer.Option(help="sample sizes (default 256, 128, 512)")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="seeds of the first size (default 0, 1)")] = None,
    k: Annotated[int | None, typer.Option(help="eigenvectors kept (default 32)")] = None,
    iterations: Annotated[int | None, typer.Option(help="Lanczos iterations (default 64)")] = None,
    queries: Annotated[int | None, typer.Option(help="mispredictions compared (default 16)")] = None,
    top: Annotated[int | None, typer.Option(help="rows of each end compared (default 20)")] = None,
) -> None:
    """Say how much ABIF's top rows depend on the Hessian's sample."""
    sizes, sampled = {"k": k, "iterations": iterations, "queries": queries, "top": top}, several(hessian_rows)
    value = measured(StabilitySpec, shared, hessian_rows=sampled, seeds=several(seed), **sizes)
    if shared.json:
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


@study(app, "fading", OptimizerOptions)
def fading(
    shared: OptimizerOptions,
    method: Annotated[
        list[str] | None, typer.Option(help="a method, as often as needed, or all (default: all that can be used here)")
    ] = None,
    train_rows: Annotated[int | None, typer.Option(help="training rows, each perturbed alone (default 32)")] = None,
    test_rows: Annotated[int | None, typer.Option(help="test rows whose loss is read (default 16)")] = None,
    epsilon: Annotated[float | None, typer.Option(help="weight of a training row (default -0.01)")] = None,
    settings: SetOfMethods = None,
) -> None:
    """Measure how the predictive power of scores fades while training goes on (paper, Fig. 2)."""
    named = [name for text in method or () for name in text.split(",")]
    methods = None if named == ["all"] else several(named)
    sizes = {"train_rows": train_rows, "test_rows": test_rows, "epsilon": epsilon}
    value = measured(FadingSpec, shared, methods=methods, **sizes, settings=settings_of_methods(settings))
    drawn(shared.figure, lambda charts: charts.fading(value["methods"]))
    if shared.json:
        emit(value["methods"])
        return
    print(
        f"{value['repeats']} of {value['repeats_asked']} repeats of {value['train_rows']} × {value['test_rows']} rows, "
        f"{value['optimizer']} at {value['learning_rate']:g}, ε = {value['epsilon']:g}"
    )
    rows = [_fading_row(row) for row in value["methods"]]
    table(rows, ("method", "peak", "at step", "last", "low", "high", "faded at", "horizon", "verdict"))
    if value["noise"] is not None:
        noise = shown(value["noise"])
        print(
            f"noise: trained once more at ε = 0, losses differ by {'exactly 0' if noise == '0' else f'up to {noise}'}"
        )
    for name, why in value["left_out"].items():
        print(f"without {name}: {why}")


def _fading_row(row: dict[str, Any]) -> dict[str, Any]:
    known = row["peak"] is not None
    return {
        "method": " ".join([row["method"], *(f"{name}={value}" for name, value in row.get("settings", {}).items())]),
        "peak": shown(row["r"][row["peak"] - 1] if known else None),
        "at step": row["peak"] if known else "–",
        **{"last": shown(row["r"][-1]), "low": shown(row["low"][-1]), "high": shown(row["high"][-1])},
        "faded at": row["faded_at"] if row["faded_at"] is not None else "never",
        "horizon": row["horizon"] if row["horizon"] is not None else "none",
        "verdict": row["verdict"] or f"too few repeats ({row['band']})",
    }


@study(app, "divergence", OptimizerOptions)
def divergence(
    shared: OptimizerOptions,
    epsilon: Weights = None,
    rows: Upsampled = None,
    bounds: Annotated[
        bool, typer.Option("--bounds", help="Theorem 3's bounds beside it, which cost 20 Hessian products a step")
    ] = False,
) -> None:
    """Measure how far training on a perturbed loss leads away (paper, Fig. 1)."""
    value = measured(DivergenceSpec, shared, epsilons=several(epsilon), rows=rows, bounds=bounds)
    drawn(shared.figure, lambda charts: charts.phases(value["series"]))
    if shared.json:
        emit(value["series"])
        return
    lines = []
    for row in value["series"]:
        fit = row["fit"] or {"slopes": ["–"] * 2, "breakpoint": "–", "r2": ["–"] * 2, "best": "too few steps for a fit"}
        (first, second), (_, r2) = fit["slopes"], fit["r2"]
        about = {"repeat": row["repeat"] + 1, "epsilon": row["epsilon"], "distance": row["divergence"][-1]}
        met = {name: shown(row[name][-1] if row[name] else None) for name in BOUNDS} if bounds else {}
        named = {BOUNDS[name]: text for name, text in met.items()}
        lines.append(
            {**about, **named, "slope 1": first, "slope 2": second, "R² 2": r2, "bend": fit["breakpoint"], **fit}
        )
    columns = ("repeat", "epsilon", "distance", *(BOUNDS.values() if bounds else ()))
    table(lines, (*columns, "slope 1", "slope 2", "R² 2", "bend", "best"))
    if bounds and lines:
        why = value["series"][0]["bounds_unavailable"]
        print(f"no bound: {why}" if why else "bounds: constants estimated from below, on both trajectories")


@study(app, "tracin-error", TrajectoryOptions)
def tracin_error(
    shared: TrajectoryOptions,
    epsilon: Weights = None,
    rows: Upsampled = None,
    dtype: Annotated[list[str] | None, typer.Option(help="float64 or float32 (default: both)")] = None,
) -> None:
    """Measure how much more TracIn's Jacobian (Eq. 2) errs than the exact one (Eq. 6; paper, Fig. 12)."""
    value = measured(TracinErrorSpec, shared, epsilons=several(epsilon), rows=rows, dtypes=several(dtype))
    drawn(shared.figure, lambda charts: charts.tracin_error(value["series"]))
    if shared.json:
        emit(value["series"])
        return
    names = {"error_eq2": "Eq. 2 errs by", "error_eq6": "Eq. 6 errs by", "ratio": "ratio"}
    lines = [
        {**row, "repeat": row["repeat"] + 1, **{name: row[field][-1] for field, name in names.items()}}
        for row in value["series"]
    ]
    table(lines, ("repeat", "dtype", "epsilon", *names.values()))


@app.command()
def conjecture(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="of study fading and divergence --out")],
    json: Json = False,
) -> None:
    """Compare divergence with fading over models: does influence fade sooner where parameters part faster (G.1)?"""
    from influence_core.studies.conjecture import conjecture as compare

    value = compare(files)
    if json:
        emit(value)
        return
    lines = [
        {
            **row,
            "rate": row["learning_rate"],
            "slope per Σ η": shown(row["slope_lr"]),
            "per step": shown(row["slope_step"]),
            "steps to fade": "never" if row["span_step"] is None else row["span_step"],
            "Σ η to fade": "never" if row["span_lr"] is None else shown(row["span_lr"]),
        }
        for row in value["rows"]
    ]
    names = ("model", "scope", "optimizer", "rate", "method", "repeats")
    measures = ("epsilon", "slope per Σ η", "per step", "described by", "peak", "steps to fade", "Σ η to fade")
    table([{**line, "described by": line["described_by"]} for line in lines], (*names, *measures))
    for each in value["spearman"]:
        said = shown(each["r"]) if each["r"] is not None else "not defined (3 that differ are needed)"
        print(f"{each['method']}, per {each['per']}: Spearman of slope and time to fade over {each['models']}: {said}")
    for study_of in value["unpaired"]:
        print(f"without {study_of}: it has no other study of the same setting")
    for method in value["powerless"]:
        print(f"without {method}: its band contains zero at its peak, so there is nothing to fade")


def shown(value: float | None) -> str:
    """Write a number that may not be defined."""
    return "–" if value is None else number(float(value))


def several(values: Sequence[Any] | None) -> tuple[Any, ...] | None:
    """Return repeated options as a spec wants them, None where none was given."""
    return tuple(values) if values else None


def register(root: typer.Typer) -> None:
    """Add this room's commands."""
    root.add_typer(app, name="study")
