"""What the studies' commands offer: the options and defaults of their own specs."""

import inspect
import re

import pytest

from influence_core.cli import app
from influence_core.specs import (
    CorrectionStudySpec,
    DivergenceSpec,
    FadingSpec,
    MislabelledSpec,
    RetrainSpec,
    TracinErrorSpec,
)

SPECS = {
    spec.model_fields["kind"].default: spec
    for spec in (CorrectionStudySpec, DivergenceSpec, FadingSpec, MislabelledSpec, RetrainSpec, TracinErrorSpec)
}


def options(study):
    """Return a command's options by parameter with their help."""
    (group,) = [each for each in app.registered_groups if each.name == "study"]
    (command,) = [each for each in group.typer_instance.registered_commands if each.name == study]
    found = inspect.signature(command.callback).parameters
    return {
        name: getattr(value.annotation.__metadata__[0], "help", None)
        for name, value in found.items()
        if hasattr(value.annotation, "__metadata__")
    }


@pytest.mark.parametrize("study", SPECS)
@pytest.mark.parametrize("field", ["steps", "k", "mispredictions", "look", "tuning", "points", "seed"])
def test_the_default_that_help_names_is_the_specs(study, field):
    offered, fields = options(study), SPECS[study].model_fields
    if field not in fields:
        assert field not in offered
        return
    (said,) = re.findall(r"default (\d+)", offered[field])
    assert int(said) == fields[field].default


def test_repeats_are_offered_where_there_are_some():
    offered = {study for study in SPECS if "repeats" in options(study)}
    assert offered == {"fading", "divergence", "tracin-error", "retrain"}
    assert "default 1; of fading 5" in options("fading")["repeats"]
    assert (FadingSpec.model_fields["repeats"].default, DivergenceSpec.model_fields["repeats"].default) == (5, 1)
