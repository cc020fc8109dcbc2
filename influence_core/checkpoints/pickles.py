"""Tensors saved by ``torch.save``: what is in the file, found without executing any of it. No torch.

A pickle is a program. Before anything runs it, its opcodes and the names it imports are held against
the few that tensors need; the archive's records are held against the file's size.
"""

import math
import pickletools
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from influence_core.checkpoints.tensor_headers import BYTES, Headers, TensorHeader
from influence_core.errors import UserError

PICKLE_LIMIT = 32 * 2**20  # bytes of the program itself; a record of a thousand tensors takes 0.1 MB
DIMENSIONS = 64  # that torch gives a tensor at most
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
# Operations that only put a value on the stack: their argument, or where they have none what is made here.
VALUES: dict[str, Callable[[], Any]] = {
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "NONE"), lambda: None),
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
GLOBALS = frozenset({REBUILD, PARAMETER, ORDERED, *(f"torch {name}" for name in STORAGES)})
OPCODES = frozenset(
    {"PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BUILD", "BINPERSID", *VALUES}
    | {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "APPEND", "APPENDS", "SETITEM", "SETITEMS"}
    | {"BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"}
)


@dataclass(frozen=True)
class _Name:
    """Stands for something imported."""

    text: str  # module and name, as GLOBALS has them


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
    try:
        return _run(file, program, sizes)
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


def _run(file: Path, program: bytes, sizes: dict[str, int]) -> Any:
    """Go through a program with stand-ins for all that it imports; refuses what tensors do not need.

    A machine of its own: what it puts together is never called, compared or hashed (hashing nested tuples
    takes time exponential in the program's length).
    """
    machine, end = _Machine(sizes), 0
    for opcode, argument, position in pickletools.genops(program):
        if opcode.name not in OPCODES:
            raise UserError(f"{file} is a pickle that uses {opcode.name}, which tensors do not need: it is not loaded")
        if opcode.name == "GLOBAL" and argument not in GLOBALS:
            shown = ".".join(str(argument).split())[:80]
            raise UserError(f"{file} is a pickle that imports {shown}, which could run code: it is not loaded")
        machine.do(opcode.name, argument)
        end = int(position or 0) + 1
    if end != len(program):
        raise UserError(f"{file} has {len(program) - end} bytes behind its program: it is not loaded")
    if len(machine.stack) != 1 or machine.marks:
        raise ValueError("it does not end with one value")
    return machine.stack[0]


class _Machine:
    """The few operations of a pickle that tensors in dictionaries, lists and tuples need."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self.sizes = sizes  # of the archive's storage records, in bytes
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def do(self, name: str, argument: Any) -> None:
        """Carry out one of OPCODES."""
        if name in VALUES:
            self.stack.append(VALUES[name]() if argument is None else argument)
        elif name == "GLOBAL":
            self.stack.append(_Name(argument))
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name.startswith("TUPLE"):
            self.stack.append(tuple(self._taken(None if name == "TUPLE" else int(name[-1]))))
        elif name.startswith("APPEND"):
            items = self._taken(None if name == "APPENDS" else 1)
            self._last(list).extend(items)
        elif name.startswith("SETITEM"):
            items = self._taken(None if name == "SETITEMS" else 2)
            if not all(isinstance(key, (str, int)) for key in items[::2]):
                raise UserError("a dictionary of it has keys that are neither text nor numbers: it is not loaded")
            self._last(dict).update(zip(items[::2], items[1::2], strict=True))
        elif name == "BINPERSID":
            self.stack.append(self._storage(*self._taken(1)[0]))
        elif name == "REDUCE":
            called, arguments = self._taken(2)
            self.stack.append(_called(called, arguments))
        elif name == "BUILD":
            self._taken(1)  # a state dict's notes on versions, which are not used

    def _taken(self, count: int | None) -> list[Any]:
        """Take so many values off the stack, or (None) those above the last mark."""
        start = self.marks.pop() if count is None else len(self.stack) - count
        if start < 0 or (count is not None and self.marks and start < self.marks[-1]):
            raise ValueError("the stack is empty")
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def _last(self, kind: type) -> Any:
        """Return the value on top, which must be of a kind."""
        if not isinstance(self.stack[-1], kind):
            raise TypeError(f"a {type(self.stack[-1]).__name__} is used as a {kind.__name__}")
        return self.stack[-1]

    def _storage(self, kind: Any, name: Any, record: Any, _device: Any, count: Any) -> _Storage:
        """Return the memory that a tensor points at, held against its record's size."""
        dtype = STORAGES[name.text.removeprefix("torch ")]
        if kind != "storage" or not isinstance(record, str) or not isinstance(count, int):
            raise TypeError("a tensor's memory is not named as torch.save does")
        if not 0 <= count * BYTES[dtype] <= self.sizes[record]:
            raise UserError(
                f"a tensor declares {count} numbers, more than the file holds: the checkpoint is not loaded"
            )
        return _Storage(dtype, record, count)


def _called(called: Any, arguments: Any) -> Any:
    """Stand for a call of one of GLOBALS."""
    if not isinstance(called, _Name) or not isinstance(arguments, tuple):
        raise TypeError("something that is no name is called")
    if called.text == ORDERED and not arguments:
        return {}
    if called.text == PARAMETER and isinstance(arguments[0], TensorHeader):
        return arguments[0]
    if called.text == REBUILD:
        return _tensor(*arguments)
    raise TypeError(f"{called.text} is called with other arguments than torch.save writes")


def _tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_further: Any
) -> TensorHeader:
    """Stand for ``torch._utils._rebuild_tensor_v2``; refuses a tensor that is larger than its memory, or leaves it."""
    numbers = (offset, *shape, *stride)
    sound = len(shape) == len(stride) <= DIMENSIONS and all(isinstance(each, int) and each >= 0 for each in numbers)
    if not sound:
        raise TypeError("a tensor's shape and strides are none")
    if offset + max(math.prod(shape), _reach(shape, stride)) > storage.count:
        raise UserError(f"a tensor declares shape {shape}, more than the file holds: the checkpoint is not loaded")
    return TensorHeader(storage.dtype, tuple(shape), storage.record)


def _reach(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """Return how many numbers lie between a tensor's first and last one, these included."""
    if 0 in shape:
        return 0
    return 1 + sum((length - 1) * step for length, step in zip(shape, stride, strict=True))
