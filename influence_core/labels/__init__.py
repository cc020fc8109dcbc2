"""Labels as people changed them: an insert-only log of events, its folds, export and import."""

from influence_core.labels.events import LabelConflict, LabelEvent, Verdict
from influence_core.labels.export import CurrentLabel, current_labels, export
from influence_core.labels.imports import ImportedLabel, ImportProblem, apply_import, read_import
from influence_core.labels.store import LabelChange, LabelStore

__all__ = [
    "CurrentLabel",
    "ImportProblem",
    "ImportedLabel",
    "LabelChange",
    "LabelConflict",
    "LabelEvent",
    "LabelStore",
    "Verdict",
    "apply_import",
    "current_labels",
    "export",
    "read_import",
]
