"""What a replay of a kept correction found, as a person and a program read it. No torch."""

from pydantic import BaseModel, ConfigDict


class Replayed(BaseModel):
    """The kept weights against those that the manifest gives again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: str
    same: bool  # every tensor, bit for bit
    tensors: int  # compared
    differing: tuple[str, ...]  # names of those that differ, the farthest apart first
    largest: float | None  # largest |difference| of one number; None where it has none (a missing tensor, a NaN)
    steps: int  # replayed
    threads: int  # they ran with, the manifest's
    reasons: tuple[str, ...] = ()  # why they can differ, as far as can be told

    @property
    def words(self) -> str:
        """Say it in one sentence."""
        if self.same:
            return f"the same, bit for bit: {self.tensors} tensors after {self.steps} steps"
        share = f"{len(self.differing)} of {self.tensors} tensors differ"
        by = "beyond comparison" if self.largest is None else f"by {self.largest:.3g} at most"
        return f"not the same: {share}, {by}, in {self.differing[0]}"
