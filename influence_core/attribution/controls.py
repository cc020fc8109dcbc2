"""Controls: what a ranking looks like that knows nothing of the loss, or nothing at all."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from influence_core.attribution.base import Attributor, Cost, Query, Ready, Scores, safe_cosine
from influence_core.events import Progress
from influence_core.fingerprints import key_hash
from influence_core.settings import Method, RandomSettings
from influence_core.similar import features, missing
from influence_core.specs import Attributed, PredictSpec, Split

if TYPE_CHECKING:
    from influence_core.workspace import Workspace


class Embedding(Attributor):
    """score = ⟨f_z, f_x⟩ of the model's penultimate features, cosine theirs; the target plays no part."""

    name: ClassVar[Method] = "embedding"
    control: ClassVar[bool] = True

    def ready(self, workspace: "Workspace", spec: Attributed, query: Query) -> Ready | None:
        """See base."""
        split, row = workspace.locate(query.example)
        train, own = features(workspace, "train", spec.checkpoint), features(workspace, split, spec.checkpoint)
        if train is None or own is None:
            return None
        key = workspace.prediction_key("train", spec.checkpoint)
        file = workspace.artefacts.path("predictions", key) / "features.npy"
        return Ready(
            table={"features": train, "labels": workspace.labels().values},
            query={"features": own[row]},
            key={**key, "method": self.name},
            made=made(file),
            notes={"dimension": train.shape[1]},
            revision=f"{file.stat().st_mtime_ns}/{workspace.labels().cursor}",
        )

    def scores(self, ready: Ready) -> Scores:
        """See base."""
        train, own = ready.table["features"].astype(np.float64), ready.query["features"].astype(np.float64)
        products = train @ own
        cosines, zero = safe_cosine(products, np.linalg.norm(train, axis=1) * float(np.linalg.norm(own)))
        return Scores(products, np.clip(cosines, -1, 1), zero, ready.table["labels"])

    def compute(
        self, workspace: "Workspace", spec: Attributed, queries: Sequence[Query], refresh: bool = False
    ) -> Iterator[Progress]:
        """Predict the splits whose features are missing."""
        from influence_core.models.predict import run as predict

        for split in self._lacking(workspace, spec, queries):
            asked = PredictSpec(workspace=workspace.name, checkpoint=spec.checkpoint, split=split)
            yield from (event for event in predict(asked, Path()) if isinstance(event, Progress))

    def cost(self, workspace: "Workspace", spec: Attributed, queries: Sequence[Query], refresh: bool = False) -> Cost:
        """See base."""
        lacking = self._lacking(workspace, spec, queries)
        return Cost(forward=sum(len(workspace.dataset.splits[split]) for split in lacking))

    @staticmethod
    def _lacking(workspace: "Workspace", spec: Attributed, queries: Sequence[Query]) -> list[Split]:
        needed: dict[Split, None] = {"train": None}
        needed |= {workspace.locate(query.example)[0]: None for query in queries}
        return missing(workspace, tuple(needed), spec.checkpoint)


class Random(Attributor):
    """Score and cosine are the same number, drawn evenly from [−1, 1] by seed, test row and target."""

    name: ClassVar[Method] = "random"
    control: ClassVar[bool] = True

    def ready(self, workspace: "Workspace", spec: Attributed, query: Query) -> Ready:
        """See base; always there."""
        own, labels = RandomSettings(**spec.settings), workspace.labels()
        key = {"data": workspace.data_fingerprint, "method": self.name, "seed": own.seed}
        return Ready(
            table={"labels": labels.values},
            query={},
            key={**key, "query": query.example, "target": query.target},
            made=str(workspace.about["created"]),
            notes={"seed": own.seed},
            revision=str(labels.cursor),
        )

    def scores(self, ready: Ready) -> Scores:
        """See base."""
        labels = ready.table["labels"]
        generator = np.random.default_rng(int(key_hash(ready.key)[:16], 16))
        drawn = generator.uniform(-1, 1, len(labels))
        return Scores(drawn, drawn, np.zeros(len(labels), dtype=bool), labels)

    def compute(
        self, workspace: "Workspace", spec: Attributed, queries: Sequence[Query], refresh: bool = False
    ) -> Iterator[Progress]:
        """Nothing is missing."""
        yield from ()

    def cost(self, workspace: "Workspace", spec: Attributed, queries: Sequence[Query], refresh: bool = False) -> Cost:
        """See base: nothing."""
        return Cost()


def made(file: Path) -> str:
    """Return when a file was written, UTC in ISO format."""
    import datetime

    return datetime.datetime.fromtimestamp(file.stat().st_mtime, datetime.UTC).isoformat(timespec="microseconds")
