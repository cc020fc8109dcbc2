"""Options that studies share: each stands here once, as a field; `study` makes them parameters of a command."""

import inspect
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from influence_core.cli.output import Checkpoint, Json, Name, Scope, given

Weights = Annotated[list[float] | None, typer.Option(help="a weight ε, as often as needed")]
Upsampled = Annotated[int | None, typer.Option(help="training rows up-sampled together (default 16)")]
Figure = Annotated[Path | None, typer.Option(help="write the figure to this .html, or .png (requirements-figures.txt)")]
NOT_OF_THE_SPEC = ("context", "workspace", "json", "out", "figure", "no_dropout")


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """What every study can be told."""

    context: typer.Context
    workspace: Name
    scope: Scope = None
    checkpoint: Checkpoint = None
    out: Annotated[
        Path | None, typer.Option(help="write the whole result, with command and versions, to this .json")
    ] = None
    json: Json = False

    def of_spec(self, **own: Any) -> dict[str, Any]:
        """Return the spec's fields that were given, with those that are the command's own."""
        shared = {name: value for name, value in vars(self).items() if name not in NOT_OF_THE_SPEC}
        return given(**shared, **own)

    @property
    def command(self) -> str:
        """The command line as typed."""
        return shlex.join(["python", "-m", "influence_core", *self.context.find_root().obj])


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(StudyOptions):
    """What every study that trains step by step can be told (`influence_core.specs.TrajectorySpec`)."""

    learning_rate: Annotated[float | None, typer.Option(help="default 1e-5 for Adam, 1e-3 for SGD")] = None
    batch_size: Annotated[int | None, typer.Option(help="rows of each training batch (default 32)")] = None
    seed: Annotated[int | None, typer.Option(help="of rows, batches and dropout (default 0)")] = None
    no_dropout: Annotated[bool, typer.Option("--no-dropout", help="train on without dropout")] = False
    budget_minutes: Annotated[
        float | None, typer.Option(help="begin no repeat that would end later; start again to go on")
    ] = None
    figure: Figure = None

    def of_spec(self, **own: Any) -> dict[str, Any]:
        """See base."""
        return super().of_spec(**own, dropout=False if self.no_dropout else None)


@dataclass(frozen=True, kw_only=True)
class TrajectoryOptions(TrainingOptions):
    """The same where all trajectories have the same length, in repeats."""

    steps: Annotated[int | None, typer.Option(help="training steps (default 40)")] = None
    repeats: Annotated[int | None, typer.Option(help="with other rows each (default 1; of fading 5)")] = None


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """Which optimizer trains, from where, in which precision."""

    optimizer: Annotated[str | None, typer.Option(help="sgd, adam or checkpoint (default: the checkpoint's own)")] = (
        None
    )
    optimizer_state: Annotated[
        str | None, typer.Option(help="checkpoint, warm or zeros (default: the checkpoint's, else warm)")
    ] = None
    dtype: Annotated[str | None, typer.Option(help="float32 or float64 (default: the checkpoint's own)")] = None


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions(Optimizer, TrajectoryOptions):
    """Trajectories whose optimizer and precision can be chosen."""


@dataclass(frozen=True, kw_only=True)
class CorrectionOptions(Optimizer, TrainingOptions):
    """Corrections, which end at their flip and are made once each."""

    steps: Annotated[int | None, typer.Option(help="training steps without a flip (default 50)")] = None
    budget_minutes: Annotated[
        float | None, typer.Option(help="begin no correction that would end later; start again to go on")
    ] = None


def study(app: typer.Typer, name: str, options: type[StudyOptions]) -> Callable[[Callable[..., None]], None]:
    """Register ``command(shared, own options…)`` with the fields of ``options`` as options of their own.

    Typer reads a command's options off its signature, so the command is given one that names them all.
    """

    def register(command: Callable[..., None]) -> None:
        shared = inspect.signature(options).parameters
        own = {key: value for key, value in inspect.signature(command).parameters.items() if key != "shared"}
        every = [value.replace(kind=inspect.Parameter.KEYWORD_ONLY) for value in (*own.values(), *shared.values())]

        @wraps(command)
        def called(**values: Any) -> None:
            command(options(**{key: values[key] for key in shared}), **{key: values[key] for key in own})

        called.__annotations__ = {value.name: value.annotation for value in every}
        vars(called)["__signature__"] = inspect.Signature(every)
        app.command(name)(called)

    return register
