"""Tensors saved by ``torch.save``: what is in the file, found without executing any of it. No torch.

A pickle is a program. Before anything runs it, its opcodes and the names it imports are held against
the few that tensors need; the archive's records are held against the file's size.
"""

import collections
import io
import math
import pickle
import pickletools
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from influence_core.checkpoints.tensor_headers import BYTES, Headers, TensorHeader
from influence_core.errors import UserError

PICKLE_LIMIT = 32 * 2**20  # bytes of the program itself; a record of a thousand tensors takes 0.1 MB
STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
REBUILD, PARAMETER = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"
ORDERED = "collections OrderedDict"
GLOBALS = frozenset({REBUILD, PARAMETER, ORDERED, *(f"torch {name}" for name in STORAGES)})
OPCODES = frozenset(
    {"PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BUILD", "BINPERSID", "NONE", "NEWTRUE", "NEWFALSE"}
    | {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"}
    | {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "APPEND", "APPENDS", "SETITEM", "SETITEMS"}
    | {"BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"}
)


@dataclass(frozen=True)
class _Storage:
    """Stands for memory: a record of the archive."""

    dtype: str
    record: str
    count: int


def read_saved(file: Path) -> Any:
    """Return what ``torch.save`` wrote, with a `TensorHeader` in each tensor's place.

    Raises `UserError` for anything but tensors in dictionaries, lists and tuples with numbers and
    texts, for the format before 2020 (no zip), and for sizes that the file does not hold.
    """
    program, sizes = _archive(file)
    _scan(file, program)
    try:
        return _Headers(io.BytesIO(program), sizes).load()
    except UserError:
        raise
    except Exception as error:  # a damaged program fails in as many ways as it has operations
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{file} is damaged ({said}): save the checkpoint again, as safetensors") from None


def state_dict_headers(file: Path) -> Headers:
    """Return the tensors of a saved state dict, by name; raises `UserError` for other contents (see `read_saved`)."""
    found = read_saved(file)
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(header, TensorHeader) for name, header in found.items()
    ):
        raise UserError(f"{file} holds something else than a state dict: save model.state_dict(), best as safetensors")
    return {name: replace(header, storage=f"{file.name}/{header.storage}") for name, header in found.items()}


def _archive(file: Path) -> tuple[bytes, dict[str, int]]:
    """Return the archive's program and its storage records' sizes by record name."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        if stream.read(4) != b"PK\x03\x04":
            raise UserError(
                f"{file} is no zip archive of torch.save (older files are bare pickles, which can run any code): "
                "save the checkpoint again, as safetensors"
            )
    try:
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
            names = [record.filename for record in records]
            if sum(record.file_size for record in records) > size or any(r.compress_type for r in records):
                raise UserError(
                    f"{file} declares records larger than the file: it is no checkpoint, check where it is from"
                )
            programs = [name for name in names if name.endswith("data.pkl")]
            roots = {name.split("/")[0] for name in names}
            if len(programs) != 1 or len(set(names)) < len(names) or len(roots) != 1:
                raise UserError(
                    f"{file} is not laid out as torch.save does (two programs or records of one name): refused"
                )
            root = roots.pop()
            if programs[0] != f"{root}/data.pkl" or any(name.startswith(f"{root}/code/") for name in names):
                raise UserError(
                    f"{file} is a TorchScript archive, which is code: save model.state_dict() as safetensors"
                )
            if archive.getinfo(programs[0]).file_size > PICKLE_LIMIT:
                raise UserError(f"{file} has a program of more than {PICKLE_LIMIT:,} bytes: save it as safetensors")
            start = f"{root}/data/"
            sizes = {r.filename.removeprefix(start): r.file_size for r in records if r.filename.startswith(start)}
            return archive.read(programs[0]), sizes
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, EOFError) as error:
        raise UserError(f"{file} is damaged ({error}): save the checkpoint again, as safetensors") from None


def _scan(file: Path, program: bytes) -> None:
    """Refuse a program that does or imports more than tensors need; nothing of it is executed."""
    end = 0
    try:
        for opcode, argument, position in pickletools.genops(program):
            if opcode.name not in OPCODES:
                raise UserError(
                    f"{file} is a pickle that uses {opcode.name}, which tensors do not need: it is not loaded"
                )
            if opcode.name == "GLOBAL" and argument not in GLOBALS:
                shown = ".".join(str(argument).split())[:80]
                raise UserError(f"{file} is a pickle that imports {shown}, which could run code: it is not loaded")
            end = int(position or 0) + 1
    except UserError:
        raise
    except Exception as error:  # pickletools raises what its readers raise
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{file} is damaged ({said}): save the checkpoint again, as safetensors") from None
    if end != len(program):
        raise UserError(f"{file} has {len(program) - end} bytes behind its program: it is not loaded")


class _Headers(pickle.Unpickler):
    """Runs a scanned program with harmless stand-ins for everything it imports."""

    def __init__(self, program: io.BytesIO, sizes: dict[str, int]) -> None:
        super().__init__(program)
        self.sizes = sizes

    def find_class(self, module: str, name: str, /) -> Any:
        """Return the stand-in of one of GLOBALS."""
        known: dict[str, Callable[..., Any]] = {
            ORDERED: _Ordered,
            REBUILD: _tensor,
            PARAMETER: _parameter,
        }
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        return known[f"{module} {name}"]

    def persistent_load(self, identity: Any, /) -> _Storage:
        """Return the memory that a tensor points at, held against its record's size."""
        kind, dtype, record, _device, count = identity
        if kind != "storage" or not isinstance(count, int) or not 0 <= count * BYTES[dtype] <= self.sizes[record]:
            raise UserError(
                f"a tensor declares {count} numbers, more than the file holds: the checkpoint is not loaded"
            )
        return _Storage(dtype, record, count)


class _Ordered(collections.OrderedDict[Any, Any]):
    """An OrderedDict; a state dict's version notes are set on it and not used."""


def _tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_further: Any
) -> TensorHeader:
    """Stand for ``torch._utils._rebuild_tensor_v2``; refuses a tensor larger than its memory."""
    sound = all(isinstance(each, int) and each >= 0 for each in (offset, *shape, *stride)) and len(shape) == len(stride)
    if not sound or offset + math.prod(shape) > storage.count:
        raise UserError(f"a tensor declares shape {shape}, more than the file holds: the checkpoint is not loaded")
    return TensorHeader(storage.dtype, tuple(shape), storage.record)


def _parameter(data: TensorHeader, *_further: Any) -> TensorHeader:
    """Stand for ``torch._utils._rebuild_parameter``."""
    return data
