"""What the user asked for, validated once; JSON on disk and on the wire.

A spec names a run kind, a workspace and everything else a run depends on. Pages, command line and
scripts build the same specs; ``runs.registry`` knows which code runs each kind.
"""

from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from influence_core.errors import UserError
from influence_core.specs.base import (
    DEFAULT_HESSIAN_ROWS,
    DEFAULT_RATE,
    DEFAULT_SCOPE,
    RETENTION_ROWS,
    VALIDATION_ROWS,
    WARM_BATCHES,
    Attributed,
    Order,
    Scope,
    Scoped,
    Spec,
    Split,
    Strategy,
)
from influence_core.specs.correcting import (
    GROUPS_KEY,
    MOST_STEPS,
    MOST_TOGETHER,
    AnyCorrection,
    Correcting,
    CorrectionSetSpec,
    CorrectionSpec,
)
from influence_core.specs.correction_studies import HIGHEST_SHARE, CorrectionStudySpec, MislabelledSpec, RetrainSpec
from influence_core.specs.opening import CheckSpec, OpenSpec, Sources
from influence_core.specs.rankings import ExplainSpec, IndexSpec, PredictSpec, RankSpec, Solved, SuspectsSpec
from influence_core.specs.studies import (
    DivergenceSpec,
    FadingSpec,
    ForecastSpec,
    HorizonSpec,
    StabilitySpec,
    TracinErrorSpec,
    TrajectorySpec,
)
from influence_core.specs.wording import KINDS, one_line

__all__ = [
    "DEFAULT_HESSIAN_ROWS",
    "DEFAULT_RATE",
    "DEFAULT_SCOPE",
    "GROUPS_KEY",
    "HIGHEST_SHARE",
    "KINDS",
    "MOST_STEPS",
    "MOST_TOGETHER",
    "RETENTION_ROWS",
    "VALIDATION_ROWS",
    "WARM_BATCHES",
    "AnyCorrection",
    "AnySpec",
    "Attributed",
    "CheckSpec",
    "Correcting",
    "CorrectionSetSpec",
    "CorrectionSpec",
    "CorrectionStudySpec",
    "DivergenceSpec",
    "ExplainSpec",
    "FadingSpec",
    "ForecastSpec",
    "HorizonSpec",
    "IndexSpec",
    "MislabelledSpec",
    "OpenSpec",
    "Order",
    "PredictSpec",
    "RankSpec",
    "RetrainSpec",
    "Scope",
    "Scoped",
    "Solved",
    "Sources",
    "Spec",
    "Split",
    "StabilitySpec",
    "Strategy",
    "SuspectsSpec",
    "TracinErrorSpec",
    "TrajectorySpec",
    "one_line",
    "parse_spec",
]

AnySpec = (
    OpenSpec
    | CheckSpec
    | PredictSpec
    | IndexSpec
    | RankSpec
    | ExplainSpec
    | SuspectsSpec
    | CorrectionSpec
    | CorrectionSetSpec
    | StabilitySpec
    | FadingSpec
    | DivergenceSpec
    | TracinErrorSpec
    | HorizonSpec
    | ForecastSpec
    | CorrectionStudySpec
    | MislabelledSpec
    | RetrainSpec
)
_adapter: TypeAdapter[AnySpec] = TypeAdapter(Annotated[AnySpec, Field(discriminator="kind")])


def parse_spec(value: dict[str, Any] | str | bytes) -> AnySpec:
    """Read a spec from JSON; raises `UserError` with one line that says what is wrong."""
    try:
        return _adapter.validate_python(value) if isinstance(value, dict) else _adapter.validate_json(value)
    except ValidationError as error:
        raise UserError(one_line(error)) from None
