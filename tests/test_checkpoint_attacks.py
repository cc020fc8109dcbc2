"""Checkpoints that are after something, each planted for real: refused in one line before a tensor is allocated."""

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from checkpoints import NAMES
from family_checkpoints import save_family
from safetensors.torch import load_file, save_file

from influence_core.checkpoints.inspecting import inspect
from influence_core.errors import UserError
from influence_core.home import read_json, write_json
from influence_core.models.importing import import_checkpoint
from influence_core.models.loading import load_folder
from influence_core.specs import CheckSpec


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {family: save_family(root / family, family) for family in ("distilbert", "torchvision", "vit", "t5")}


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A DistilBERT of the test's own."""
    return Path(shutil.copytree(saved["distilbert"], tmp_path / "mine"))


@pytest.fixture
def no_tensors(monkeypatch):
    """Whatever would give a tensor memory, or run a pickle, fails the test."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("a tensor was loaded")

    for name in ("load", "empty", "zeros", "frombuffer", "from_numpy"):
        monkeypatch.setattr(torch, name, refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "load", refuse)


def look(path: Path, **fields):
    spec = CheckSpec(checkpoint=str(path), data="unused", **fields)
    return spec, inspect(spec, path)


def bring_in(path: Path, place: Path, names=NAMES, **fields):
    spec, found = look(path, **fields)
    return import_checkpoint(found[0], spec, place, names)


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def as_pickle(folder: Path, **more) -> Path:
    """Replace a folder's safetensors by a pytorch_model.bin."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({**tensors, **more}, folder / "pytorch_model.bin")
    return folder / "pytorch_model.bin"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt", "optimizer.pt"])
def test_a_pickle_that_would_write_a_file_does_not(folder, tmp_path, name):
    written, path = tmp_path / "written", folder
    if name == "pytorch_model.bin":
        as_pickle(folder, payload=Payload(written))
    else:
        torch.save({"payload": Payload(written)}, folder / name)
        path = folder / name if name == "weights.pt" else folder
    with pytest.raises(UserError, match=r"imports (io|_io|builtins|__builtin__)\.open, which could run code"):
        look(path, architecture="resnet18" if path.is_file() else None)
    assert not written.exists()
    torch.load(folder / name, weights_only=False)  # the payload is live: it was refused, not broken
    assert written.exists()


def test_a_bare_pickle_is_refused_unread(folder, tmp_path):
    written = tmp_path / "written"
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"payload": Payload(written)}))
    with pytest.raises(UserError, match=r"pytorch_model.bin is no zip archive of torch.save"):
        look(folder)
    assert not written.exists()


def test_a_pickle_that_finds_its_names_on_the_stack_is_refused(folder, tmp_path):
    """STACK_GLOBAL hides what is imported from a look at arguments."""
    (folder / "model.safetensors").unlink()
    torch.save({"payload": Payload(tmp_path / "written")}, folder / "pytorch_model.bin", pickle_protocol=4)
    with pytest.raises(UserError, match=r"uses (FRAME|STACK_GLOBAL|MEMOIZE|SHORT_BINUNICODE)"):
        look(folder)
    assert not (tmp_path / "written").exists()


def test_a_second_program_in_the_archive_is_refused(folder):
    file = as_pickle(folder)
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("pytorch_model/data.pkl", b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UserError, match=r"not laid out as torch.save does"):
        look(folder)


def test_bytes_behind_the_program_are_refused(folder, tmp_path):
    source = as_pickle(folder)
    rewritten = tmp_path / "again.zip"
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(rewritten, "w") as other:
        for name in archive.namelist():
            other.writestr(name, archive.read(name) + (b"cos\nsystem\n." if name.endswith("data.pkl") else b""))
    shutil.move(rewritten, source)
    with pytest.raises(UserError, match="bytes behind its program"):
        look(folder)


@pytest.mark.parametrize("change", ["record", "tensor", "deflated"])
def test_an_archive_that_declares_more_than_it_holds(folder, tmp_path, change):
    file = as_pickle(folder)
    if change == "deflated":
        (folder / "pytorch_model.bin").unlink()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/data.pkl", b"\x80\x02}." + b"\0" * 10**6)
        said = "records larger than the file"
    else:
        with zipfile.ZipFile(file) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
        name = "pytorch_model/data.pkl"
        if change == "record":  # a storage of as many numbers as fit 32 bits, in a record of 64 bytes
            start = contents[name].index(b"cpuq") + 3
            place = contents[name].index(b"K", start)
            contents[name] = contents[name][:place] + b"J\xff\xff\xff\x7f" + contents[name][place + 2 :]
        else:  # one number seen as 2³¹ by a stride of 0
            program = (
                b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage"
                b"ctorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQK\x00J\xff\xff\xff\x7f\x85K\x00\x85\x89"
                b"ccollections\nOrderedDict\n)RtRs."
            )
            contents = {name: program, "pytorch_model/data/0": b"\0" * 4}
        with zipfile.ZipFile(file, "w") as archive:
            for each, content in contents.items():
                archive.writestr(each, content)
        said = "more than the file holds"
    with pytest.raises(UserError, match=said):
        look(folder)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "preprocessor_config.json"])
def test_code_of_its_own_is_refused(folder, no_tensors, file):
    found = read_json(folder / file) if (folder / file).exists() else {}
    write_json(folder / file, {**found, "nested": {"auto_map": {"AutoModel": "mine.Model"}}})
    (folder / "mine.py").write_text("raise SystemExit")
    with pytest.raises(UserError, match=f"{file} asks to run code of its own"):
        look(folder)


def test_code_of_its_own_is_found_however_deep_it_stands(folder, no_tensors):
    deep = '{"auto_map": {}}'
    for _ in range(400):
        deep = f'{{"a": [{deep}]}}'
    (folder / "tokenizer_config.json").write_text(deep)
    with pytest.raises(UserError, match=r"code of its own"):
        look(folder)


def test_code_that_was_added_after_opening_is_refused(folder, tmp_path):
    imported = bring_in(folder, tmp_path / "place")
    write_json(folder / "config.json", {**read_json(folder / "config.json"), "auto_map": {"AutoModel": "mine.Model"}})
    with pytest.raises(UserError, match="code of its own"):
        load_folder(imported.path, "changed", NAMES, imported.kind, imported.preparation)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "vocab.txt"])
def test_a_link_out_of_the_folder_is_refused(folder, tmp_path, no_tensors, name):
    outside = tmp_path / "outside"
    shutil.copyfile(folder / name, outside) if (folder / name).exists() else outside.write_text("secret")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(outside)
    with pytest.raises(UserError, match=rf"{name} is a link that leads out of"):
        look(folder)


def test_a_linked_checkpoint_of_a_trainers_folder_is_refused(folder, saved, tmp_path):
    output = tmp_path / "output"
    output.mkdir()
    (output / "checkpoint-3").symlink_to(saved["distilbert"], target_is_directory=True)
    with pytest.raises(UserError, match="checkpoint-3 is a link that leads out of"):
        look(output)


def test_links_inside_the_folder_are_fine(folder):
    (folder / "model.safetensors").rename(folder / "weights-of-today.safetensors")
    (folder / "model.safetensors").symlink_to("weights-of-today.safetensors")
    assert look(folder)[1][0].family == "distilbert"


def hub_cache(folder: Path, root: Path) -> Path:
    """Lay a checkpoint out as the hub's cache does; returns its snapshot."""
    home = root / "models--owner--name"
    snapshot = home / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (home / "blobs").mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        shutil.copyfile(file, home / "blobs" / f"{number:040d}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number:040d}")
    return snapshot


def test_the_hub_caches_own_links_are_accepted_and_others_in_it_are_not(folder, tmp_path):
    snapshot = hub_cache(folder, tmp_path)
    imported = bring_in(snapshot, tmp_path / "place")
    assert imported.path == snapshot
    assert load_folder(snapshot, "cached", NAMES, imported.kind, imported.preparation).label_names == NAMES
    (tmp_path / "secret").write_text("{}")
    (snapshot / "special_tokens_map.json").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match=r"special_tokens_map.json is a link"):
        look(snapshot)
    (snapshot / "special_tokens_map.json").unlink()
    blob = tmp_path / "models--owner--name" / "blobs" / f"{99:040d}"
    blob.symlink_to(tmp_path / "secret")  # a blob that is itself a link
    (snapshot / "special_tokens_map.json").symlink_to(f"../../blobs/{99:040d}")
    with pytest.raises(UserError, match=r"special_tokens_map.json is a link"):
        look(snapshot)


def rewrite_header(file: Path, change) -> None:
    """Change a safetensors file's header, leaving its bytes."""
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    change(header)
    changed = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(changed)) + changed + content[8 + length :])


def huge(header):
    header["classifier.weight"]["shape"] = [2**31, 2**31]


def beyond(header):
    entry = header["classifier.weight"]
    entry["shape"], entry["data_offsets"] = [2**20, 2**20], [0, 2**42]


def overlap(header):
    header["twice"] = dict(header["classifier.weight"])


def negative(header):
    header["classifier.weight"]["shape"] = [-2, -16]


@pytest.mark.parametrize("change", [huge, beyond, overlap, negative])
def test_a_header_that_the_file_does_not_hold(folder, no_tensors, change):
    rewrite_header(folder / "model.safetensors", change)
    with pytest.raises(UserError, match="not a sound safetensors file"):
        look(folder)


def test_a_header_longer_than_the_file(folder, no_tensors):
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**40) + b"{}")
    with pytest.raises(UserError, match=r"a header of 1,099,511,627,776 bytes in a file of 10"):
        look(folder)


def test_a_model_above_the_limit(folder, no_tensors, monkeypatch):
    monkeypatch.setenv("INFLUENCE_MODEL_LIMIT_GB", "0.00001")
    with pytest.raises(UserError, match=r"more than INFLUENCE_MODEL_LIMIT_GB = 1e-05"):
        look(folder)
    monkeypatch.setenv("INFLUENCE_MODEL_LIMIT_GB", "much")
    with pytest.raises(UserError, match="'much' is not a number of gigabytes"):
        look(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_layers", 10**6),
        ("dim", 10**6),
        ("vocab_size", 10**9),
        ("max_position_embeddings", 10**12),
        ("n_heads", 2**70),
    ],
)
def test_a_configuration_of_impossible_sizes(folder, no_tensors, name, value):
    write_json(folder / "config.json", {**read_json(folder / "config.json"), name: value})
    with pytest.raises(UserError, match=f"config.json says {name} = "):
        look(folder)


def test_a_configuration_of_a_larger_model_than_the_limit_is_not_built(folder, tmp_path):
    changed = {"dim": 65_536, "n_heads": 8, "hidden_dim": 65_536, "n_layers": 40}
    write_json(folder / "config.json", {**read_json(folder / "config.json"), **changed})
    with pytest.raises(UserError, match=r"config.json declares [\d,]+ numbers, [\d,.]+ GB as float32"):
        bring_in(folder, tmp_path / "place")


def test_images_are_not_blown_up(saved, tmp_path):
    folder = Path(shutil.copytree(saved["vit"], tmp_path / "mine"))
    settings = read_json(folder / "preprocessor_config.json")
    for change in ({"size": {"height": 10**6, "width": 10**6}}, {"size": {"shortest_edge": 16}, "crop_pct": 1e-6}):
        write_json(folder / "preprocessor_config.json", {**settings, **change})
        with pytest.raises(UserError, match=r"images of 1000000 pixels a side|crop_pct = 1e-06"):
            look(folder)


def test_more_or_fewer_classes_than_outputs(folder, saved, tmp_path, no_tensors):
    three = {"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
    write_json(folder / "config.json", {**read_json(folder / "config.json"), **three})
    with pytest.raises(UserError, match=r"names 3 classes \(a, b, c\), but its classifier.weight has 2 rows"):
        look(folder)
    other = Path(shutil.copytree(saved["torchvision"], tmp_path / "torchvision"))
    write_json(other / "config.json", {**read_json(other / "config.json"), **three})
    with pytest.raises(UserError, match=r"names 3 classes .* fc.weight has 2 rows"):
        look(other)


def test_other_tensors_than_the_configuration_describes(folder, tmp_path):
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", {**config, "hidden_dim": 48})
    with pytest.raises(UserError, match=r"holds distilbert\.\S+ of shape \(24, 16\), .* describes \(48, 16\)"):
        bring_in(folder, tmp_path / "place")
    write_json(folder / "config.json", {**config, "n_layers": 3})
    with pytest.raises(UserError, match=r"no fitting weights for distilbert\.transformer\.layer\.2"):
        bring_in(folder, tmp_path / "place")


def test_a_model_that_was_never_a_classifier(folder, tmp_path):
    tensors = {n: v for n, v in load_file(folder / "model.safetensors").items() if "classifier" not in n}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"no fitting weights for classifier.bias .*never fine-tuned"):
        bring_in(folder, tmp_path / "place")
    write_json(
        folder / "config.json", {**read_json(folder / "config.json"), "architectures": ["DistilBertForMaskedLM"]}
    )
    with pytest.raises(UserError, match="holds a DistilBertForMaskedLM of type 'distilbert', not a classifier"):
        look(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(folder, tmp_path, value):
    tensors = load_file(folder / "model.safetensors")
    tensors["pre_classifier.bias"][3] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"numbers in pre_classifier.bias that are not finite"):
        bring_in(folder, tmp_path / "place")


def test_shards_are_files_of_the_folder_itself(folder):
    (folder / "model.safetensors").rename(folder.parent / "model-1.safetensors")
    for name in ("../model-1.safetensors", "/etc/passwd", "model-1.bin"):
        write_json(folder / "model.safetensors.index.json", {"weight_map": {"classifier.bias": name}})
        with pytest.raises(UserError, match="none of its own folder"):
            look(folder)
    write_json(folder / "model.safetensors.index.json", {"weight_map": {"classifier.bias": "model-1.safetensors"}})
    with pytest.raises(UserError, match=r"model-1.safetensors is missing"):
        look(folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "holds a list"),
        (b"\xff\xfe", "is not JSON"),
        (b" " * (11 * 2**20), "bytes"),
    ],
)
def test_a_configuration_that_is_none(folder, content, said):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=said):
        look(folder)


def test_adapters_and_quantised_weights_are_refused(folder):
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", {**config, "quantization_config": {"quant_method": "bitsandbytes"}})
    with pytest.raises(UserError, match="quantised weights"):
        look(folder)
    write_json(folder / "config.json", config)
    write_json(folder / "adapter_config.json", {"base_model_name_or_path": "/elsewhere"})
    with pytest.raises(UserError, match="adapter"):
        look(folder)


def test_training_arguments_and_schedulers_are_never_read(folder, tmp_path):
    written = tmp_path / "written"
    for name in ("training_args.bin", "scheduler.pt", "rng_state.pth"):
        torch.save({"payload": Payload(written)}, folder / name)
    bring_in(folder, tmp_path / "place")
    assert not written.exists()


def test_looking_loads_no_torch():
    code = "import sys, influence_core.checkpoints.inspecting; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_tokenizer_that_is_not_there_is_not_made_up(folder):
    """transformers would make one without a word in it."""
    os.remove(folder / "tokenizer.json")
    with pytest.raises(UserError, match="has no tokenizer"):
        look(folder)


def test_what_transformers_cannot_read_is_said_in_one_line(saved, tmp_path):
    folder = Path(shutil.copytree(saved["t5"], tmp_path / "mine"))
    (folder / "tokenizer.json").write_text("{}")
    imported = bring_in(folder, tmp_path / "place")
    with pytest.raises(UserError, match=r"the tokenizer in .* cannot be loaded") as caught:
        load_folder(imported.path, "broken", NAMES, imported.kind, imported.preparation)
    assert "\n" not in str(caught.value)
