"""What every spec has: the workspace, a scope, an attribution method with its settings."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator

from influence_core.settings import SETTINGS, Method, Settings, check_settings
from influence_core.specs.wording import one_line

Order = Literal["cosine", "score"]
Strategy = Literal["proponents", "opponents", "random", "permuted"]
Split = Literal["train", "validation", "test"]

DEFAULT_HESSIAN_ROWS = 256
WARM_BATCHES = 100  # batches at zero learning rate that warm an optimizer (DEFINITIONS, Perturbation and step)
VALIDATION_ROWS = 200  # whose mean loss may end a correction
RETENTION_ROWS = 50  # test rows whose predictions a correction should not change
DEFAULT_SCOPE = "last:2"
DEFAULT_RATE = {"adam": 1e-5, "sgd": 1e-3}


class Spec(BaseModel):
    """Base of all specs: frozen, no unknown fields, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    workspace: str
    checkpoint: str | None = None  # None: the workspace's first


def _known_scope(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"head|all|last:[1-9]\d*", value):
        raise ValueError(f"scope {value!r} is not one of head, last:n (as in last:2), all: choose one")
    return value


Scope = Annotated[str | None, AfterValidator(_known_scope)]


class Scoped(Spec):
    """A spec whose work is restricted to a parameter scope (``head``, ``last:n``, ``all``)."""

    scope: Scope = None  # None: the workspace's

    def of_method(self, method: Method | None) -> "Attributed":
        """Return the request for a method's scores in this scope (None: the usual one), with its usual settings."""
        return Attributed(workspace=self.workspace, checkpoint=self.checkpoint, scope=self.scope, method=method)


class Attributed(Scoped):
    """A spec that names an attribution method, with the method's own settings (`influence_core.settings`)."""

    method: Method | None = None  # None: abif if an index exists, else tracin
    settings: dict[str, Any] = {}  # only those that differ from the default

    @model_validator(mode="before")
    @classmethod
    def _known_settings(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("settings"), dict):
            return values
        if values.get("method") not in {None, *SETTINGS}:
            return values  # the field's own check says so
        try:
            return {**values, "settings": check_settings(values.get("method"), values["settings"])}
        except ValidationError as error:
            raise ValueError(one_line(error)) from None

    @property
    def own(self) -> Settings:
        """The method's settings, defaults included."""
        return SETTINGS[self.method or "tracin"](**self.settings)
