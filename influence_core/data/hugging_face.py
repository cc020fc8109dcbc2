"""Rows kept by the Hugging Face `datasets` library: saved folders, and data from the hub."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from influence_core.checkpoints.links import refuse_links_out
from influence_core.data.columnar import Columnar, reading
from influence_core.data.source import SHOWN, Source
from influence_core.errors import UserError

SAVED = ("dataset_dict.json", "state.json")  # one of them lies in a saved folder
PLAIN = re.compile(r"\w[\w .-]*")  # a name that leads nowhere else


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


def refuse_paths(folder: Path) -> None:
    """Raise `UserError` where a saved data set names a split or a file that does not lie in its own folder."""
    whole, states = folder / SAVED[0], [folder / SAVED[1]]
    names: list[tuple[Path, Any]] = []  # and where each stands
    if whole.is_file():
        names = [(whole, name) for name in json.loads(whole.read_text(encoding="utf-8"))["splits"]]
        states += [folder / str(name) / SAVED[1] for _, name in names if PLAIN.fullmatch(str(name))]
    for state in filter(Path.is_file, states):
        about = json.loads(state.read_text(encoding="utf-8"))
        listed = [*about["_data_files"], *(about.get("_indices_data_files") or ())]
        names += [(state, file["filename"]) for file in listed]
    for where, name in names:
        if not PLAIN.fullmatch(str(name)):
            raise UserError(
                f"{where} names {str(name)[:SHOWN]!a}, which is no plain file name: save the data set again"
            )


def open_saved(folder: Path) -> dict[str, Source]:
    """Open what `save_to_disk` wrote; raises `UserError` for a folder that is damaged or names files outside it."""
    from datasets import load_from_disk

    refuse_links_out(folder)
    try:
        refuse_paths(folder)
        loaded = load_from_disk(str(folder))
    except UserError:
        raise
    except Exception as error:  # from JSON, Arrow and the library's own checks alike
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{folder} cannot be read as a saved data set ({said}): save it again") from None
    return splits_of(loaded, str(folder), "saved data set", folder)
