"""Specs of opening a checkpoint with data, and of looking at both before."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from influence_core.specs.base import Scope


class Sources(BaseModel):
    """A checkpoint and data (paths, or hub names), and how to read them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: str  # a folder, a Trainer's output folder, a weights file, or a hub name
    also: tuple[str, ...] = ()  # more checkpoints of the same training (Eq. 2)
    revision: str | None = None  # of a checkpoint from the hub
    architecture: str | None = None  # of a torchvision state dict: resnet18, resnet18-cifar, …
    data: str  # a file, a folder, or a hub name
    configuration: str | None = None  # of a data set from the hub
    data_revision: str | None = None  # of a data set from the hub
    train: str | None = None  # the split that is trained on, by its own name, where the data has named splits
    validation: str | None = None  # a path, or a split's own name
    test: str | None = None  # a path, or a split's own name
    text_column: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    id_column: str | None = None
    classes: dict[str, str] = {}  # label in the data → class of the checkpoint; empty: matched by name, or number
    label_words: dict[str, str] = {}  # class → what a T5 checkpoint says for it; empty: the class's name
    prefix: str | None = None  # put before every text; None: what the checkpoint records
    max_length: Annotated[int, Field(ge=4, le=4096)] | None = None  # tokens; None: the checkpoint's own, at most 256
    drop_broken: bool = False  # leave rows out that cannot be used; otherwise they are listed and refused
    scope: Scope = None  # None: what the workspace has, last:2 for a new one


class OpenSpec(Sources):
    """Make a workspace from a checkpoint and data."""

    kind: Literal["open"] = "open"


class CheckSpec(Sources):
    """Look at a checkpoint and data as opening would, and report; makes nothing (`influence_core.survey`)."""

    kind: Literal["check"] = "check"

    @property
    def opening(self) -> OpenSpec:
        """The spec that opens the same."""
        return OpenSpec(**self.model_dump(exclude={"kind"}))
