"""Rankings of training rows, for one test row or of suspects, as a person and a program read them."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from influence_core.settings import Method
from influence_core.specs import Order


class RankedRow(BaseModel):
    """One training row's place in a ranking.

    ``score`` is the predicted decrease of the target's loss per unit of ε (positive: proponent),
    ``cosine`` the same in [−1, 1]; ``percentile`` the share of training rows (in %) that stand
    behind this one, from the end that the list starts at.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    rank: int  # from 1
    percentile: float
    score: float
    cosine: float
    label: str  # as it stands
    gold: str | None = None  # where the truth is known
    text: str
    stale: bool = False  # the label changed since the products were made
    zero_norm: bool = False  # a zero gradient: its cosine is set to 0


class Ranking(BaseModel):
    """Top proponents and opponents of one test row, and all that the ranking depends on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    example: str
    target: str  # the label whose loss the scores speak of
    method: Method
    by: Order
    scope: str
    checkpoint: str
    cursor: int  # label events counted in the labels shown
    rows: int  # training rows ranked
    stale: int  # training rows whose label changed since their products were made
    made: str  # when the products were made (UTC)
    fresh: bool = False  # computed in this run rather than read from the index or cache
    notes: dict[str, Any] = {}  # the method's own settings (k, iterations, eigenvalues kept, …)
    proponents: list[RankedRow]
    opponents: list[RankedRow]

    @property
    def unsolved(self) -> bool:
        """Whether a solve behind it found nothing better than 0, so that all scores are 0 and nothing is ranked."""
        return "residual" in self.notes and self.notes["iterations"] == 0 and not self.notes["converged"]


class Suspect(BaseModel):
    """One training row by its influence on itself: the decrease of its own loss per unit of ε."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    rank: int  # from 1
    score: float
    label: str  # as it stands
    gold: str | None = None  # where the truth is known
    text: str
    stale: bool = False  # the label changed since the products were made


class Suspects(BaseModel):
    """The training rows most influential on themselves, and all that their order depends on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method
    scope: str
    checkpoint: str
    cursor: int  # label events counted in the labels shown
    rows: int  # training rows ranked
    stale: int  # of these, relabelled since
    made: str  # when the products were made (UTC)
    suspects: list[Suspect]
