"""What is fetched of a model repository on the hub: all that a checkpoint may consist of, pickles only where needed."""

import fnmatch
from pathlib import Path

import pytest

from influence_core.data.hub import fetch_checkpoint

BESIDE = ["config.json", "merges.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "trainer_state.json"]
BESIDE += ["optimizer.pt", "preprocessor_config.json", "pytorch_model.bin.index.json"]
NEVER = ["modeling.py", "training_args.bin", "scheduler.pt", "tf_model.h5", "flax_model.msgpack", "rust_model.ot"]
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
PICKLES = ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin"]


@pytest.fixture
def repository(monkeypatch, tmp_path):
    """A repository of some files; returns the folder that is fetched into, and the patterns of each call."""

    def make(files: list[str]) -> list[list[str]]:
        calls: list[list[str]] = []

        def snapshot(_name, *, revision, allow_patterns):
            assert revision == "main"
            calls.append(allow_patterns)
            for file in files:
                if any(fnmatch.fnmatch(file, pattern) for pattern in allow_patterns):
                    (tmp_path / file).touch()
            return str(tmp_path)

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
        return calls

    return make


def fetched(path: Path) -> set[str]:
    return {file.name for file in path.iterdir()}


@pytest.mark.parametrize("weights", [["model.safetensors"], SHARDS])
def test_safetensors_come_alone(repository, weights):
    calls = repository(BESIDE + NEVER + weights + PICKLES)
    assert fetched(fetch_checkpoint("someone/tiny", "main")) == {*BESIDE, *weights}
    assert len(calls) == 1


def test_pickles_come_where_there_are_no_safetensors(repository):
    calls = repository(BESIDE + NEVER + PICKLES)
    assert fetched(fetch_checkpoint("someone/tiny", "main")) == {*BESIDE, *PICKLES}
    assert len(calls) == 2
