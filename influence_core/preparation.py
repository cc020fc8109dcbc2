"""How a checkpoint's inputs are prepared, and what kind of classifier it is; part of its manifest. No torch."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Kind = Literal["text", "seq2seq", "image"]

MAX_LENGTH = 256  # tokens; longer texts are cut, as in training


class Preparation(BaseModel):
    """What a loader needs besides the checkpoint's folder; every field has the checkpoint's own value as default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_length: int | None = None  # tokens; text longer than that is cut
    prefix: str = ""  # put before every text, as T5's tasks want ("sst2 sentence: ")
    label_words: tuple[str, ...] = ()  # seq2seq: what the decoder says for each class, in order of the classes

    @property
    def key(self) -> dict[str, Any]:
        """Return what differs from the checkpoint's own values; part of the keys of all that depends on inputs."""
        return self.model_dump(mode="json", exclude_defaults=True)
