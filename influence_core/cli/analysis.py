"""Commands that compute: index, correct."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from influence_core.cli.correction_set import correct_together, grouped_by, halves, stopped_by_loss
from influence_core.cli.output import Checkpoint, Json, Name, Scope, emit, follow, given, number, pairs, run_here
from influence_core.cli.report_file import check_report, report_here, save_report
from influence_core.cli.settings import Method, SetOptions, settings_of
from influence_core.errors import UserError
from influence_core.events import Result, Step
from influence_core.home import read_json
from influence_core.reports.cautions import caution, compared
from influence_core.reports.chosen import chosen_words, few_desired
from influence_core.reports.chosen_rows import scored_before
from influence_core.runs import registry
from influence_core.specs import WARM_BATCHES, CorrectionSpec, IndexSpec
from influence_core.workspace import Workspace

STEP_COLUMNS = (
    "step",
    "loss",
    "probability",
    "prediction",
    "base_probability",
    "base_prediction",
    "divergence",
    "integrated_lr",
    "retention",
    "changed",
)
PREDICTED = ("predicted_loss", "predicted_probability", "additive_loss", "additive_probability")

STATES = {
    "checkpoint": "state from the checkpoint",
    "warm": f"state warmed over {WARM_BATCHES} batches",
    "zeros": "no state at the start",
}


def index(
    workspace: Name,
    checkpoint: Checkpoint = None,
    scope: Scope = None,
    k: Annotated[int | None, typer.Option(help="eigenvectors kept (default 32)")] = None,
    iterations: Annotated[int | None, typer.Option(help="Lanczos iterations (default 64)")] = None,
    hessian_rows: Annotated[int | None, typer.Option(help="rows of the Hessian sample (default 256)")] = None,
    seed: int | None = None,
    rebuild: Annotated[bool, typer.Option(help="start over, with the labels that stand now")] = False,
    json: Json = False,
) -> None:
    """Build the ABIF index; an interrupted build goes on where it stopped."""
    found = Workspace.open(workspace)
    options = given(
        checkpoint=checkpoint, scope=scope, k=k, iterations=iterations, hessian_rows=hessian_rows, seed=seed
    )
    value = run_here(found.spec(IndexSpec, {**options, "rebuild": rebuild}))
    if json:
        emit(value)
    else:
        pairs({**value, "eigenvalues": f"{value['eigenvalues'][0]:.3g} … {value['eigenvalues'][-1]:.3g}"})


def correct(
    workspace: Name,
    example: Annotated[
        list[str], typer.Option(help="id of a mispredicted validation or test row; several are corrected together")
    ],
    strategy: Annotated[
        str | None, typer.Option(help="proponents (default), opponents, random, or permuted: another misprediction's")
    ] = None,
    method: Method = None,
    settings: SetOptions = None,
    by: Annotated[str | None, typer.Option(help="order of the ranking: cosine (default) or score")] = None,
    desired: Annotated[str | None, typer.Option(help="gold (default) or a label")] = None,
    target: Annotated[
        str | None, typer.Option(help="whose loss the ranking speaks of: predicted (default), gold, or a label")
    ] = None,
    scope: Scope = None,
    checkpoint: Checkpoint = None,
    k: Annotated[int | None, typer.Option(help="rows of B (default 12)")] = None,
    batch_size: Annotated[int | None, typer.Option(help="rows of a training batch (default 32)")] = None,
    epsilon: Annotated[float | None, typer.Option(help="weight ε of l_B")] = None,
    share: Annotated[float | None, typer.Option(help="ε / (1 + ε) instead; default k / (k + batch size)")] = None,
    steps: Annotated[int | None, typer.Option(help="at most so many (default 50)")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="default 1e-5 for Adam, 1e-3 for SGD")] = None,
    optimizer: Annotated[str | None, typer.Option(help="checkpoint (default), sgd or adam")] = None,
    optimizer_state: Annotated[str | None, typer.Option(help="checkpoint, warm or zeros")] = None,
    seed: Annotated[
        int | None, typer.Option(help="of batches, random rows and whose proponents are taken (default 0)")
    ] = None,
    after_flip: Annotated[int | None, typer.Option(help="go on so many steps after the flip (default 0)")] = None,
    min_retention: Annotated[float | None, typer.Option(help="stop when retention is below (default: never)")] = None,
    max_validation_loss: Annotated[
        float | None, typer.Option(help="stop when the mean loss of fixed validation rows is above (default: never)")
    ] = None,
    only_annotated: Annotated[
        bool, typer.Option("--only-annotated", help="pick among rows whose label annotators changed, with that label")
    ] = False,
    annotated_loss: Annotated[
        bool, typer.Option("--annotated-loss", help="annotators' labels in the batches too, not only in B")
    ] = False,
    no_dropout: Annotated[bool, typer.Option("--no-dropout", help="train on without dropout")] = False,
    batchnorm: Annotated[str | None, typer.Option(help="eval (default) or train: statistics of the batch")] = None,
    predict: Annotated[
        bool, typer.Option("--predict", help="also what influence predicts of each step (Eq. 6, and TracIn's Eq. 2)")
    ] = False,
    group_by: Annotated[
        str | None,
        typer.Option(help="of several, whose rows are a group: example (default), all, cell, annotator or given"),
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="of several: a .csv, .tsv, .jsonl or .parquet table with the columns id and group, source or slice "
            "of training rows, which makes the groups; or the key of one that is kept (implies --group-by given)",
        ),
    ] = None,
    group_column: Annotated[str | None, typer.Option(help="the column of --groups with the group")] = None,
    group_epsilon: Annotated[list[float] | None, typer.Option(help="of several: ε of each group, in order")] = None,
    even_groups: Annotated[
        bool, typer.Option("--even-groups", help="of several: the same ε for each group, however many rows it has")
    ] = False,
    keep: Annotated[str | None, typer.Option(help="keep the result as a checkpoint of this name")] = None,
    report: Annotated[Path | None, typer.Option(help="write the report of the correction to this .html")] = None,
    json: Json = False,
) -> None:
    """Correct a misprediction, or several together, by a few steps on influential rows, beside the uncorrected run."""
    check_report("--report", report)
    found = Workspace.open(workspace)
    options = given(
        strategy=strategy,
        method=method,
        settings=settings_of(method, settings),
        by=by,
        desired=desired,
        target=target,
        scope=scope,
        checkpoint=checkpoint,
        k=k,
        batch_size=batch_size,
        epsilon=epsilon,
        share=share,
        steps=steps,
        learning_rate=learning_rate,
        optimizer=optimizer,
        optimizer_state=optimizer_state,
        seed=seed,
        after_flip=after_flip,
        min_retention=min_retention,
        max_validation_loss=max_validation_loss,
        only_annotated=only_annotated,
        annotated_loss=annotated_loss,
        dropout=False if no_dropout else None,
        batchnorm=batchnorm,
        predict=predict,
    )
    if len(example) > 1:
        options |= given(epsilons=tuple(group_epsilon) if group_epsilon else None, even_groups=even_groups or None)
        options |= grouped_by(found, group_by, groups, group_column)
        correct_together(found, {**options, "examples": example}, keep, report, json)
        return
    grouping = {
        "--group-by": group_by is not None,
        "--groups": groups is not None,
        "--group-column": group_column is not None,
        "--group-epsilon": bool(group_epsilon),
        "--even-groups": even_groups,
    }
    if told := [name for name, is_told in grouping.items() if is_told]:
        raise UserError(f"{' and '.join(told)}: groups are of several examples, give --example more than once")
    spec = found.spec(CorrectionSpec, {**options, "example": example[0]})
    if keep is not None:
        found.checkpoint_folder(keep)  # refuses the name before anything slow
    with tempfile.TemporaryDirectory() as temporary:
        result = Path(temporary)
        outcome: dict[str, Any] = {}
        shown = [*STEP_COLUMNS[:-1], *(PREDICTED if predict else ())]
        header, seen = False, list[Step]()
        for event in follow(registry.start(spec, result)):
            if isinstance(event, Result):
                outcome = event.value
            if not isinstance(event, Step):
                continue
            seen.append(event)
            if json:
                emit({name: getattr(event, name) for name in (*STEP_COLUMNS, *(PREDICTED if predict else ()))})
            else:
                if not header:
                    print("  ".join(name.rjust(10) for name in shown))
                    header = True
                _print_step(event, shown)
        about = read_json(result / "manifest.json")
        if few_desired(about):
            typer.echo(f"note: {chosen_words(about)}", err=True)
        if keep is not None:
            outcome["checkpoint"] = found.keep(result, keep).name
        if (said := caution(outcome)) is not None:
            typer.echo(f"note: {said}", err=True)
        page = "" if report is None else report_here(found, result, seen)
    if json:
        emit({name: outcome[name] for name in ("flipped", "flip_step", "base_flip_step", "retention", "checkpoint")})
    else:
        _print_outcome(outcome, about)
    if report is not None:
        save_report("--report", report, page)


def _print_outcome(outcome: dict[str, Any], about: dict[str, Any]) -> None:
    flip = f"flipped at step {outcome['flip_step']}" if outcome["flipped"] else "did not flip"
    own = outcome["base_flip_step"]
    print(f"\n{flip}; without correction it {'does not flip' if own is None else f'flips at step {own}'}")
    used = about["optimizer"]
    print(f"{about['checkpoint']}: {used['kind']}, η {used['learning_rate']:g}, {STATES[about['optimizer_state']]}")
    if outcome["stale"]:
        print(f"{scored_before(outcome['stale'])}: build the index to refresh")
    if (said := chosen_words(about)) is not None and not few_desired(about):
        print(said)
    print(f"retention {number(100 * outcome['retention'])} %{halves(outcome, 'the example')}")
    if "retention_at_end" in outcome:
        lost = ", where the flip is lost again" if "lost_again" in outcome else ""
        print(f"retention {number(100 * outcome['retention_at_end'])} % at the end, step {outcome['steps']}{lost}")
    if "retention_at_stop" in outcome:
        print(f"stopped at step {outcome['steps']}: retention was {number(100 * outcome['retention_at_stop'])} %")
    if "validation_loss_at_stop" in outcome:
        print(stopped_by_loss(outcome, about))
    for split, own_split in reversed(compared(outcome).items()):
        print(f"whole {split} set: {100 * own_split['before']:.2f} → {100 * own_split['after']:.2f} %", end="")
        print(f", fixed {len(own_split['fixed'])}, broken {len(own_split['broken'])}")
    if outcome["checkpoint"]:
        print(f"kept as {outcome['checkpoint']}")


def _print_step(event: Step, columns: Sequence[str]) -> None:
    cells = [number("–" if (value := getattr(event, name)) is None else value) for name in columns]
    print("  ".join(cell.rjust(max(10, len(name))) for cell, name in zip(cells, columns, strict=True)), flush=True)


def register(app: typer.Typer) -> None:
    """Add this room's commands."""
    for command in (index, correct):
        app.command()(command)
