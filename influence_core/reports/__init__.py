"""What a correction leaves to read: the model card of a kept checkpoint, the report of a run. No torch."""

from influence_core.reports.cautions import caution
from influence_core.reports.facts import Correction, read

__all__ = ["Correction", "caution", "read"]
