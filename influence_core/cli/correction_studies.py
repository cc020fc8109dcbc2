"""Commands of the studies of corrections: ``study correction W``, ``study mislabelled W`` and ``study retrain W``."""

from typing import Annotated, Any

import typer

from influence_core.cli.output import emit, table
from influence_core.cli.studies import app, drawn, measured, several, shown
from influence_core.cli.study_files import check_file
from influence_core.cli.study_options import CorrectionOptions, Figure, StudyOptions, study
from influence_core.errors import UserError
from influence_core.specs import CorrectionStudySpec, MislabelledSpec, RetrainSpec

WAY, MEASURES = ("strategy", "method", "by", "share"), ("success", "steps", "retention")
Mispredictions = Annotated[int | None, typer.Option(help="mispredictions corrected (default 30)")]
CORRECTION_FIGURES = {
    "success": "correction_outcome",
    "retention": "correction_retention",
    "steps": "correction_steps",
}


def correction(
    shared: CorrectionOptions,
    mispredictions: Mispredictions = None,
    strategy: Annotated[
        list[str] | None, typer.Option(help="proponents, opponents, random, permuted (default: all four)")
    ] = None,
    method: Annotated[list[str] | None, typer.Option(help="as often as needed (default: abif, else tracin)")] = None,
    by: Annotated[list[str] | None, typer.Option(help="cosine, score or both (default cosine)")] = None,
    share: Annotated[
        list[float] | None, typer.Option(help="of the batch's weight, as often as needed, in place of --points")
    ] = None,
    points: Annotated[
        int | None, typer.Option(help="shares from no up-sampling, k / (k + batch size), to 0.52 (default 5)")
    ] = None,
    k: Annotated[int | None, typer.Option("--k", help="rows of B (default 12)")] = None,
    tune_rate: Annotated[
        bool, typer.Option("--tune-rate", help="choose the learning rate on other mispredictions than those reported")
    ] = False,
    tuning: Annotated[int | None, typer.Option(help="mispredictions tuned on (default 8)")] = None,
    draw: Annotated[str, typer.Option(help="what --figure shows: success, retention or steps")] = "success",
) -> None:
    """Correct many mispredictions by every strategy: success, retention and steps by share (paper, Fig. 3, 11)."""
    if draw not in CORRECTION_FIGURES:
        raise UserError(f"draw = {draw!r}: choose one of {', '.join(CORRECTION_FIGURES)}")
    lists = {"strategies": several(strategy), "methods": several(method), "orders": several(by)}
    sizes = {"mispredictions": mispredictions, "points": points, "k": k, "tuning": tuning}
    value = measured(CorrectionStudySpec, shared, **lists, **sizes, shares=several(share), tune=tune_rate or None)
    drawn(shared.figure, lambda charts: getattr(charts, CORRECTION_FIGURES[draw])(value["cells"]))
    if shared.json:
        emit(value["cells"])
        return
    if value["tuned"]:
        tried = ", ".join(f"{each['learning_rate']:.2g}: {each['flipped']}" for each in value["tuned"]["tried"])
        count = len(value["tuned"]["examples"])
        print(f"learning rate {value['learning_rate']:.2g}, tuned on {count} other mispredictions ({tried} flipped)")
    print(f"{value['corrections']} of {value.get('corrections_asked', '–')} corrections")
    numbers = ("success", "retention", "at flip", "at last", "steps", "median", "by itself")
    table([_cell(row) for row in value["cells"]], (*WAY, "n", *numbers))
    if differences := [line for row in value["cells"] for line in _against(row)]:
        print("minus a control, on the same mispredictions; steps where both flip")
        table(differences, (*WAY, "minus", *MEASURES))


def _way(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "strategy": row["strategy"],
        "method": row["method"] or "–",
        "by": row["by"] or "–",
        "share": shown(row["share"]),
    }


def _cell(row: dict[str, Any]) -> dict[str, Any]:
    return {
        **_way(row),
        "n": row["mispredictions"],
        **{name: ranged(row[name]) for name in ("success", "retention", "steps")},
        "at flip": shown(row["retention_at_flip"]["value"]),
        "at last": shown(row["retention_at_last"]["value"]),
        "median": shown(row["median_steps"]),
        "by itself": shown(row["by_itself"]["value"]),
    }


def _against(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a line for each control that a cell is compared with."""
    return [
        {**_way(row), "minus": control, **{name: ranged(found[name]) for name in MEASURES}}
        for control, found in row["against"].items()
    ]


def ranged(interval: dict[str, Any]) -> str:
    """Write a value with its 95 % interval."""
    if interval["low"] is None:
        return shown(interval["value"])
    return f"{shown(interval['value'])} ({shown(interval['low'])} to {shown(interval['high'])})"


def mislabelled(
    shared: CorrectionOptions,
    mispredictions: Mispredictions = None,
    method: Annotated[
        str | None, typer.Option(help="whose proponents are corrected (default: abif, else tracin)")
    ] = None,
    judge: Annotated[
        list[str] | None, typer.Option(help="methods whose self-influence is looked at (default: all that give it)")
    ] = None,
    by: Annotated[str | None, typer.Option(help="cosine or score (default cosine)")] = None,
    look: Annotated[int | None, typer.Option(help="top proponents looked at (default 10)")] = None,
    at: Annotated[list[int] | None, typer.Option(help="k of precision@k (default 10, 20, 50, 100, 200, 400)")] = None,
    share: Annotated[float | None, typer.Option(help="of the batch's weight that B carries (default 0.5)")] = None,
) -> None:
    """Find truly mislabelled training rows, and correct by those among the proponents (paper, App. I)."""
    sizes = {"mispredictions": mispredictions, "look": look, "at": several(at), "share": share}
    value = measured(MislabelledSpec, shared, **sizes, method=method, methods=several(judge), by=by)
    drawn(shared.figure, lambda charts: charts.precision(value["precision"]))
    if shared.json:
        emit({name: value[name] for name in ("precision", "corrections", "difference", "pairs")})
        return
    print(
        f"{value['mislabelled']} of {value['training_rows']} training rows are mislabelled; precision among the first k"
    )
    rows = [
        {"order": " ".join(filter(None, (row["order"], row["method"])))}
        | {f"k = {each['k']}": ranged(each) for each in row["precision"]}
        for row in value["precision"]
    ]
    table(rows, ("order", *[name for name in (rows[0] if rows else {}) if name != "order"]))
    print(f"corrections by mislabelled rows among the first {value['look']} proponents ({value['method']})")
    numbers = ("influence", "success", "steps", "retention")
    lines = [
        {
            "proponents": row["proponents"],
            "n": row["mispredictions"],
            **{name: ranged(row[name]) for name in numbers},
            "median": shown(row["median_steps"]),
            "by itself": shown(row["by_itself"]["value"]),
        }
        for row in value["corrections"]
    ]
    table(lines, ("proponents", "n", *numbers, "median", "by itself"))
    difference = "; ".join(f"{name} {ranged(found)}" for name, found in value["difference"].items())
    print(f"own minus permuted: {difference}")


def retrain(
    shared: StudyOptions,
    mispredictions: Annotated[int | None, typer.Option(help="mispredictions (default 10)")] = None,
    strategy: Annotated[
        list[str] | None, typer.Option(help="proponents, gold (default: both, where the truth is known)")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="whose proponents are relabelled (default: abif, else tracin)")
    ] = None,
    by: Annotated[str | None, typer.Option(help="cosine or score (default cosine)")] = None,
    k: Annotated[int | None, typer.Option("--k", help="proponents of each misprediction (default 12)")] = None,
    together: Annotated[
        bool, typer.Option("--together", help="one training with the relabels of all, not one for each")
    ] = False,
    start: Annotated[
        str | None, typer.Option("--from", help="base, that of the recipe, or checkpoint (default base)")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="default: the recipe's, 1 from the checkpoint")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="default: the recipe's; from the checkpoint 1e-5 for Adam, 1e-3 for SGD")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="default: the recipe's, 32 from the checkpoint")] = None,
    repeats: Annotated[
        int | None, typer.Option(help="trainings without relabels, with other seeds (default 2)")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="that draws the mispredictions (default 0)")] = None,
    budget_minutes: Annotated[
        float | None, typer.Option(help="begin no training that would end later; start again to go on")
    ] = None,
    figure: Figure = None,
) -> None:
    """Train again with each misprediction's relabels: does it flip, what does test accuracy do (paper, Sec. 6)?"""
    sizes = {"mispredictions": mispredictions, "k": k, "epochs": epochs, "batch_size": batch_size, "repeats": repeats}
    told = {"strategies": several(strategy), "method": method, "by": by, "start": start, "together": together}
    numbers = {"learning_rate": learning_rate, "seed": seed, "budget_minutes": budget_minutes}
    check_file("--figure", figure, (".html", ".png"))
    value = measured(RetrainSpec, shared, **sizes, **told, **numbers)
    drawn(figure, lambda charts: charts.retrained(value["summary"]))
    if shared.json:
        emit({name: value[name] for name in ("accuracy", "summary", "rows")})
        return
    accuracy = value["accuracy"]
    seeds = ", ".join(shown(each["accuracy"]) for each in accuracy["seeds"]) or "–"
    print(f"{value['trainings']} of {value['trainings_asked']} trainings from {value['start']}, {value['method']}")
    print(
        f"test accuracy: checkpoint {shown(accuracy['checkpoint'])}, trained again without relabels "
        f"{shown(accuracy['control'])}, with other seeds {seeds}"
    )
    measures = {
        "flipped": "flipped",
        "by_itself": "by itself",
        "by_seeds": "by other seeds",
        "against_control": "− by itself",
        "accuracy_change": "Δ accuracy",
        "retention": "retention",
        "control_retention": "without relabels",
    }
    lines = [
        {"strategy": row["strategy"], "n": row["mispredictions"], "relabelled": shown(row["relabelled"]["value"])}
        | {said: ranged(row[name]) for name, said in measures.items()}
        for row in value["summary"]
    ]
    table(lines, ("strategy", "n", "relabelled", *measures.values()))
    for row in value["summary"]:
        for why, count in row["skipped"].items():
            print(f"{row['strategy']} without {count}: {why}")
    table([_retrained(row) for row in value["rows"]], RETRAINED)


RETRAINED = (
    "strategy",
    "example",
    "desired",
    "relabelled",
    "flipped",
    "by itself",
    "p before",
    "p",
    "accuracy",
    "kept",
)


def _retrained(row: dict[str, Any]) -> dict[str, Any]:
    yes = {True: "yes", False: "no"}
    return {
        **{name: row[name] for name in ("strategy", "example", "desired", "relabelled")},
        "flipped": yes[row["flipped"]],
        "by itself": yes[row["by_itself"]],
        "p before": row["probability"]["before"],
        "p": row["probability"]["after"],
        "accuracy": row["accuracy"]["after"],
        "kept": row["retention"]["after"],
    }


def register(_: typer.Typer) -> None:
    """Add these studies to those of `influence_core.cli.studies`."""
    study(app, "correction", CorrectionOptions)(correction)
    study(app, "mislabelled", CorrectionOptions)(mislabelled)
    study(app, "retrain", StudyOptions)(retrain)
