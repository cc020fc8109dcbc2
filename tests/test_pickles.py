"""Pickles that hold nothing but tensors by the names they import, and are after something all the same."""

import time
import zipfile
from pathlib import Path

import pytest
import torch
from torchvision.models import resnet18

from influence_core.checkpoints.inspecting import inspect
from influence_core.checkpoints.pickles import read_saved, state_dict_headers
from influence_core.checkpoints.tensor_headers import TensorHeader
from influence_core.errors import UserError
from influence_core.models.importing import import_checkpoint
from influence_core.models.optimizer_file import convert
from influence_core.models.scanned import load_scanned
from influence_core.specs import CheckSpec

A = b"X\x01\x00\x00\x00a"  # the text "a"
TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000"
    b"X\x03\x00\x00\x00cpuK\x04tQ%s\x89ccollections\nOrderedDict\n)RtR"
)  # of offset, shape and strides, in a storage of 4 numbers


def archive(file: Path, program: bytes, numbers: int = 4) -> Path:
    with zipfile.ZipFile(file, "w") as written:
        written.writestr("a/data.pkl", b"\x80\x02" + program + b".")
        written.writestr("a/data/0", b"\0" * 4 * numbers)
        written.writestr("a/version", b"3\n")
    return file


def nested(depth: int) -> bytes:
    """A tuple of itself twice, and so on: 2^depth parts in 5 bytes each."""
    return A + b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(depth))


def tensor(offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(b"K" + bytes([value]) for value in values) + b"t"

    return TENSOR % (b"K" + bytes([offset]) + numbers(shape) + numbers(strides))


@pytest.mark.parametrize(
    "program",
    [
        b"}" + nested(60) + b"K\x01s",
        b"}(" + nested(60) + b"K\x01u",
        b"ccollections\nOrderedDict\n]" + nested(60) + b"K\x01\x86a\x85R",
        b"}" + A + b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\n" + nested(60) + A + b"K\x01tQs",
        b"}" + A + TENSOR % (b"K\x00" + nested(60) + b"\x85)") + b"s",
    ],
    ids=["key", "keys", "ordered", "record", "shape"],
)
def test_nothing_in_it_is_hashed_or_shown_that_nests_without_end(tmp_path, program):
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        read_saved(archive(tmp_path / "a.pt", program))
    assert len(str(caught.value)) < 500
    assert time.monotonic() - started < 20  # hashing or showing 2^60 parts would never end


def test_what_torch_saves_is_read_as_torch_reads_it(tmp_path):
    shared = torch.arange(12.0)
    state = torch.nn.Module().state_dict() | {"tied": shared.view(3, 4), "again": shared.view(3, 4), "row": shared[4:8]}
    state |= {"turned": shared.view(3, 4).T, "none": torch.zeros(0, 3), "whole": torch.tensor(3)}
    state["own"] = torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    torch.save(state, tmp_path / "state.pt")
    found = state_dict_headers(tmp_path / "state.pt")
    theirs = torch.load(tmp_path / "state.pt", weights_only=True)
    assert {name: header.shape for name, header in found.items()} == {n: tuple(v.shape) for n, v in theirs.items()}
    assert found["tied"].storage == found["again"].storage != found["own"].storage
    assert [found[name].dtype for name in ("tied", "own", "whole")] == ["F32", "BF16", "I64"]
    module = resnet18(num_classes=2)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.25, betas=(0.5, 0.75))
    module(torch.zeros(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    saved, read = torch.load(tmp_path / "optimizer.pt", weights_only=True), read_saved(tmp_path / "optimizer.pt")
    assert read["param_groups"] == saved["param_groups"]
    assert read["state"].keys() == saved["state"].keys()
    assert read["state"][0]["exp_avg"] == TensorHeader("F32", tuple(saved["state"][0]["exp_avg"].shape), "1")


@pytest.mark.parametrize(
    ("offset", "shape", "strides", "sound"),
    [
        (0, (2, 2), (2, 1), True),
        (0, (2, 2), (1, 2), True),
        (2, (2,), (1,), True),
        (1, (2,), (2,), True),
        (4, (0, 9), (9, 1), True),
        (3, (), (), True),
        (0, (2, 2), (3, 1), False),  # its last number would be the fifth
        (2, (2,), (2,), False),
        (3, (2,), (1,), False),
        (4, (), (), False),
        (5, (0,), (1,), False),
        (0, (3, 3), (0, 1), False),  # as many numbers as nine of the three
        (0, (2, 2), (2,), False),
        (0, (1,) * 65, (1,) * 65, False),
    ],
)
def test_a_tensor_lies_in_its_memory(tmp_path, offset, shape, strides, sound):
    file = archive(tmp_path / "a.pt", b"}" + A + tensor(offset, shape, strides) + b"s")
    if sound:
        assert state_dict_headers(file)["a"].shape == shape
        assert tuple(load_scanned(file)["a"].shape) == shape
    else:
        with pytest.raises(UserError, match=r"more than the file holds|is damaged"):
            state_dict_headers(file)


@pytest.mark.parametrize(
    "program",
    [
        b"}" + A + A + b"R",
        b"K\x01K\x02",
        b"K\x01a",
        b"K\x01" + A + A + b"s",
        b"(",
        b"(K\x01K\x02\x86",
        b"h\x05",
        b"\x85",
        b"}" + A + b"ctorch\nFloatStorage\n)Rs",
        b"}(" + A + b"u",
        b"ctorch._utils\n_rebuild_parameter\n)R",
    ],
)
def test_a_program_that_makes_no_sense_is_damaged(tmp_path, program):
    with pytest.raises(UserError, match="is damaged"):
        read_saved(archive(tmp_path / "a.pt", program))


def test_what_torch_itself_refuses_after_all_ends_in_one_line(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise RuntimeError("setStorage: sizes [2]\n are out of bounds")

    file, module = tmp_path / "weights.pt", resnet18(num_classes=2)
    torch.save(module.state_dict(), file)
    spec = CheckSpec(checkpoint=str(file), data="unused", architecture="resnet18")
    (found,) = inspect(spec, file)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    module(torch.zeros(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    monkeypatch.setattr(torch, "load", refuse)
    for work in (
        lambda: import_checkpoint(found, spec, tmp_path / "place", ("a", "b")),
        lambda: convert(tmp_path / "optimizer.pt", module, tmp_path / "place"),
    ):
        with pytest.raises(UserError, match=r"\.pt cannot be loaded \(RuntimeError: setStorage") as caught:
            work()
        assert "\n" not in str(caught.value)
