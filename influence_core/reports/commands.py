"""The command line that repeats a correction."""

import json
import shlex
from typing import Any

from influence_core.specs import CorrectionSetSpec, CorrectionSpec, parse_spec

PROGRAM = ("python", "-m", "influence_core")
# fields that are not written as --name value
PLAIN = ("kind", "workspace", "example", "examples", "epsilons", "settings")


def correct_command(manifest: dict[str, Any], outcome: dict[str, Any], method: str | None, keep: str | None) -> str:
    """Return ``correct W --example … --keep NAME`` with every option that differs from its default, shell-quoted.

    Checkpoint, scope and method are written out where the run took the workspace's own, since those can
    change; a run that was stopped early says the steps that it made. ``method`` is the ranking's.
    """
    spec = parse_spec({**manifest["spec"], "checkpoint": manifest["checkpoint"], "scope": manifest["scope"]})
    assert isinstance(spec, CorrectionSpec | CorrectionSetSpec)
    given: dict[str, Any] = {"method": spec.method or method}
    if _stopped(spec, manifest, outcome):
        given["steps"] = max(1, manifest["steps"])  # a spec has one at least
    spec = spec.model_copy(update=given)
    examples = spec.examples if isinstance(spec, CorrectionSetSpec) else (spec.example,)
    words = [*PROGRAM, "correct", spec.workspace, *(word for each in examples for word in ("--example", each))]
    if isinstance(spec, CorrectionSetSpec):
        words += [word for each in spec.epsilons for word in ("--group-epsilon", str(each))]
    for name, field in type(spec).model_fields.items():
        value = getattr(spec, name)
        if name not in PLAIN and value != field.default:
            option = name.replace("_", "-")
            words += [f"--no-{option}"] if value is False else [f"--{option}", *([] if value is True else [str(value)])]
    for name, value in spec.settings.items():
        words += ["--set", f"{name}={_setting(value)}"]
    words += ["--keep", keep] if keep else []
    return shlex.join(words)


def replay_command(workspace: str, name: str) -> str:
    """Return ``replay W NAME``."""
    return shlex.join([*PROGRAM, "replay", workspace, name])


def _stopped(spec: CorrectionSpec | CorrectionSetSpec, manifest: dict[str, Any], outcome: dict[str, Any]) -> bool:
    """Whether somebody ended it before its own stop rules did."""
    if any(f"{rule}_at_stop" in outcome for rule in ("retention", "validation_loss")):
        return False
    flip: int | None = outcome.get("flip_step")
    done: int = manifest["steps"]
    return done < (spec.steps if flip is None else min(spec.steps, flip + spec.after_flip))


def _setting(value: Any) -> str:
    """Write a method's setting as ``--set`` reads it."""
    if isinstance(value, list | tuple):
        return ",".join(str(each) for each in value)
    return value if isinstance(value, str) else json.dumps(value)
