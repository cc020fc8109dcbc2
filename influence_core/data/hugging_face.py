"""Rows kept by the Hugging Face `datasets` library: saved folders, and data from the hub."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from influence_core.data.columnar import Columnar, reading
from influence_core.data.source import Source
from influence_core.errors import UserError

SAVED = ("dataset_dict.json", "state.json")  # one of them lies in a saved folder


class HuggingFace(Columnar):
    """One split; its Arrow files are mapped from disk."""

    def __init__(self, loaded: Any, name: str, origin: str, kind: str, files: Path) -> None:
        self.loaded, self.kind = loaded.with_format("arrow"), kind
        self.files = files.resolve()  # image files that a table names are read from nowhere else
        super().__init__(name, origin, loaded.features.arrow_schema)

    @property
    def size(self) -> int:
        """How many rows there are."""
        return int(self.loaded.num_rows)

    def tables(self, columns: list[str], rows: int) -> Iterator[pa.Table]:
        """Yield its rows."""
        with reading(Path(self.origin)):
            yield from self.loaded.select_columns(columns).iter(batch_size=rows)

    def whole(self, content: Any) -> Any:
        """Return a content; of an image that is kept as a file, the file's bytes."""
        if not isinstance(content, dict) or content.get("bytes") or not content.get("path"):
            return content
        file = (self.files / str(content["path"])).resolve()
        if not file.is_relative_to(self.files) or not file.is_file():
            return content
        return file.read_bytes()


def splits_of(loaded: Any, origin: str, kind: str, files: Path) -> dict[str, Source]:
    """Return the splits of a DatasetDict, or those of a Dataset: one without a name."""
    from datasets import DatasetDict

    parts = loaded if isinstance(loaded, DatasetDict) else {"": loaded}
    return {
        str(own): HuggingFace(part, str(own) or Path(origin).name, origin, kind, files) for own, part in parts.items()
    }


def open_saved(folder: Path) -> dict[str, Source]:
    """Open what `save_to_disk` wrote; raises `UserError` for a folder that is damaged."""
    from datasets import load_from_disk

    try:
        loaded = load_from_disk(str(folder))
    except Exception as error:  # from JSON, Arrow and the library's own checks alike
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{folder} cannot be read as a saved data set ({said}): save it again") from None
    return splits_of(loaded, str(folder), "saved data set", folder)
