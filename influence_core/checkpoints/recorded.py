"""What a training left beside its weights: optimizer, learning rates, step. No torch, nothing executed.

Read are our own ``train``'s ``training.json`` and ``optimizer.safetensors``, and of a Trainer's folder
``trainer_state.json`` and ``optimizer.pt``; never ``training_args.bin`` or ``scheduler.pt``.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from influence_core.checkpoints.pickles import read_saved
from influence_core.checkpoints.tensor_headers import TensorHeader, read_limited, safetensors_headers
from influence_core.errors import UserError

TRAINING, STATE = "training.json", "optimizer.safetensors"
TRAINER, TRAINER_STATE = "trainer_state.json", "optimizer.pt"
CHECKPOINT = re.compile(r"checkpoint-(\d{1,12})")
LOG_LIMIT = 200 * 2**20  # bytes of a Trainer's log
POINTS = 10_000  # at which a mean is taken over more steps than that
KEPT_RATES = 200  # logged learning rates that a manifest keeps


@dataclass(frozen=True)
class Recorded:
    """What is known of the training that made a checkpoint."""

    step: int | None = None
    epoch: float | None = None
    recipe: Any = None  # equal for the checkpoints of one training
    optimizer: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainerGroups:
    """A Trainer's ``optimizer.pt`` by its headers: one `TensorHeader` for each moment of each parameter number."""

    constants: dict[str, Any]  # of `trajectory.optimizers.OptimizerSpec`, without undecayed
    groups: tuple[tuple[int, ...], ...]  # parameter numbers, in order
    decayed: tuple[bool, ...]  # of each group
    moments: dict[int, dict[str, TensorHeader]] = field(default_factory=dict)


class UnusableStateError(UserError):
    """An optimizer state that cannot be used; the message says why. The checkpoint itself can."""


def recorded(folder: Path) -> Recorded:
    """Return what a checkpoint's folder tells about its training.

    A state that is harmless but of no use here becomes a note. Raises `UserError` for damaged files
    and for a pickle that does more than hold tensors.
    """
    if (folder / TRAINING).is_file():
        return _ours(folder)
    if (folder / TRAINER).is_file():
        return _trainer(folder)
    if (folder / TRAINER_STATE).is_file():
        return _with_state(Recorded(), folder, {})
    return Recorded()


def _ours(folder: Path) -> Recorded:
    about = read_limited(folder / TRAINING)
    given = about.get("optimizer")
    optimizer = {name: given[name] for name in SOUND if name in given} if isinstance(given, dict) else {}
    for name, value in optimizer.items():
        if not SOUND[name](value):
            raise UserError(
                f"{folder / TRAINING} says {name} = {str(value)[:40]} of the optimizer: correct or delete it"
            )
    if about.get("schedule") is not None:
        optimizer["schedule"] = about["schedule"]
    if _is_rate(about.get("mean_learning_rate")):
        optimizer["mean_learning_rate"] = float(about["mean_learning_rate"])
    if (folder / STATE).is_file():
        safetensors_headers(folder / STATE)
        optimizer["state"] = STATE
    step, epoch = about.get("step"), about.get("epoch")
    return Recorded(
        step=int(step) if isinstance(step, int) else None,
        epoch=epoch if _is_rate(epoch) else None,
        recipe=about.get("recipe"),
        optimizer=optimizer or None,
    )


def _trainer(folder: Path) -> Recorded:
    about = read_limited(folder / TRAINER, LOG_LIMIT)
    step, epoch = about.get("global_step"), about.get("epoch")
    if not isinstance(step, int) or step < 0:
        raise UserError(
            f"{folder / TRAINER} says global_step = {str(step)[:40]}, which is no step: fetch the checkpoint again"
        )
    place = folder.resolve()
    found = Recorded(
        step=step,
        epoch=epoch if _is_rate(epoch) else None,
        recipe={"trainer": str(place.parent if CHECKPOINT.fullmatch(place.name) else place)},
    )
    logged = _logged(about)
    rates: dict[str, Any] = {}
    if logged:
        before = max((other for other in _steps_beside(folder) if other < step), default=0)
        steps = np.linspace(min(before, step - 1) + 1, step, min(max(step - before, 1), POINTS))
        rates["learning_rate"] = float(_rates_at(logged, steps)[-1])
        rates["mean_learning_rate"] = float(_rates_at(logged, steps).mean())
        every = -(-len(logged) // KEPT_RATES)
        rates["schedule"] = {"max_steps": about.get("max_steps"), "learning_rates": [list(p) for p in logged[::every]]}
    return _with_state(found, folder, rates)


def _with_state(found: Recorded, folder: Path, rates: dict[str, Any]) -> Recorded:
    """Add the optimizer's constants, and that its state is there, from ``optimizer.pt``."""
    optimizer, notes = dict(rates), found.notes
    if (folder / TRAINER_STATE).is_file():
        try:
            optimizer = {**rates, **trainer_groups(folder / TRAINER_STATE).constants, "state": TRAINER_STATE}
        except UnusableStateError as error:
            notes = (*notes, str(error))
    return Recorded(found.step, found.epoch, found.recipe, optimizer or None, notes)


def trainer_groups(file: Path) -> TrainerGroups:
    """Return constants and layout of an ``optimizer.pt``.

    Raises `UnusableStateError` for an optimizer other than Adam, AdamW and SGD, or one with several
    learning rates, and `UserError` as `pickles.read_saved` does.
    """
    saved = read_saved(file)
    try:
        groups, state = saved["param_groups"], saved["state"]
        if not all(_is_plain(value) for group in groups for value in group.values()):
            raise TypeError("a setting that is no number")
        numbers = tuple(tuple(int(number) for number in group["params"]) for group in groups)
        moments = {
            int(number): {str(kind): header for kind, header in held.items() if isinstance(header, TensorHeader)}
            for number, held in state.items()
        }
        kinds = {kind for held in moments.values() for kind in held} - {"step"}
        constants = _constants(file, groups, kinds)
        decays = [float(group["weight_decay"]) for group in groups]
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        if isinstance(error, UserError):
            raise
        raise _unusable(file, f"it is not laid out as torch.optim's ({type(error).__name__}: {error})") from None
    most = max(decays, default=0.0)
    if any(decay not in (0.0, most) for decay in decays):
        raise _unusable(file, f"its groups have several weight decays ({', '.join(map(str, decays))[:60]})")
    return TrainerGroups({**constants, "weight_decay": most}, numbers, tuple(decay > 0 for decay in decays), moments)


def _constants(file: Path, groups: Sequence[dict[str, Any]], kinds: set[str]) -> dict[str, Any]:
    """Return the constants that all groups share."""

    def one(name: str, default: Any = None) -> Any:
        values = [group.get(name, default) for group in groups]
        if any(value != values[0] for value in values):
            raise _unusable(file, f"its groups differ in {name} ({', '.join(map(str, values))[:60]})")
        return values[0]

    for name in ("amsgrad", "maximize", "nesterov", "dampening"):
        if one(name):
            raise _unusable(file, f"it was made with {name}, which is not followed here")
    found: dict[str, Any] = {"learning_rate": float(one("lr"))}
    if kinds == {"exp_avg", "exp_avg_sq"}:
        beta1, beta2 = one("betas")
        # The Trainer's default is AdamW, and so is Adam of a torch that did not record this yet.
        decoupled = bool(one("decoupled_weight_decay", True))
        found |= {"kind": "adam", "beta1": float(beta1), "beta2": float(beta2), "eps": float(one("eps"))}
        found["decoupled"] = decoupled
    elif kinds <= {"momentum_buffer"} and one("momentum") is not None:
        found |= {"kind": "sgd", "momentum": float(one("momentum")), "decoupled": False}
    else:
        raise _unusable(
            file, f"it is of no optimizer that is followed here (it keeps {', '.join(sorted(kinds)) or 'nothing'})"
        )
    if not all(math.isfinite(value) and value >= 0 for value in found.values() if isinstance(value, float)):
        raise _unusable(file, "its constants are not finite numbers from 0")
    return found


def _unusable(file: Path, reason: str) -> UnusableStateError:
    return UnusableStateError(f"the optimizer state {file} is not used, {reason}: choose optimizer state warm")


def _logged(about: dict[str, Any]) -> list[tuple[int, float]]:
    """Return (step, learning rate) of each log entry that has both, in order of steps."""
    history = about.get("log_history")
    entries = history if isinstance(history, list) else []
    found = {
        entry["step"]: float(entry["learning_rate"])
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("step"), int) and _is_rate(entry.get("learning_rate"))
    }
    return sorted(found.items())


def _rates_at(logged: Sequence[tuple[int, float]], steps: np.ndarray) -> np.ndarray:
    """Return the rates of steps (counted from 1, as logged), linear between logged ones."""
    places, rates = np.array(logged, dtype=np.float64).T
    found: np.ndarray = np.interp(steps, places, rates)
    return found


def _is_rate(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and value >= 0 and value < math.inf


def _is_plain(value: Any) -> bool:
    """Say whether a setting is a number or text, or a flat list of such; a pickle can nest them without end."""
    flat = value if isinstance(value, (list, tuple)) else [value]
    return all(each is None or isinstance(each, (int, float, str)) for each in flat)


def _steps_beside(folder: Path) -> list[int]:
    """Return the steps of the checkpoints in the same output folder."""
    if not CHECKPOINT.fullmatch(folder.name):
        return []
    return [int(match[1]) for entry in folder.resolve().parent.iterdir() if (match := CHECKPOINT.fullmatch(entry.name))]


# Constants of `trajectory.optimizers.OptimizerSpec`, and what each may be.
SOUND: dict[str, Callable[[Any], bool]] = {
    "kind": lambda value: value in ("sgd", "adam"),
    **dict.fromkeys(("learning_rate", "momentum", "beta1", "beta2", "eps", "weight_decay"), _is_rate),
    "decoupled": lambda value: isinstance(value, bool),
    "undecayed": lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
}
