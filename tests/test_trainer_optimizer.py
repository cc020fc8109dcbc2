"""The state that a Trainer or our own training left: read without running anything, mapped to names, continued."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from checkpoints import NAMES, sentences
from family_checkpoints import IMAGES, pictures, save_family
from PIL import Image
from safetensors.torch import load_file, save_file

from influence_core.attribution.tracin import TracIn
from influence_core.checkpoints.inspecting import inspect
from influence_core.errors import UserError
from influence_core.home import read_json, write_json
from influence_core.models.classifier import Classifier, Rows
from influence_core.models.importing import Imported, import_checkpoint
from influence_core.models.loading import load_folder
from influence_core.specs import CheckSpec
from influence_core.trajectory.optimizers import OptimizerSpec, OptimizerState, init, update
from influence_core.trajectory.start import Start, optimizer_of, start_state
from influence_core.trajectory.step import TrainingStep
from influence_core.workspace import Checkpoint

STEPS, TOTAL, RATE, DECAY = 6, 20, 2e-3, 0.1
ADAMW = {"betas": (0.8, 0.99), "eps": 1e-7}


def load(imported: Imported) -> Classifier:
    return load_folder.__wrapped__(imported.path, "some", NAMES, imported.kind, imported.preparation)


def rows_for(classifier: Classifier, family: str) -> Rows:
    if family in IMAGES:
        pixels, labels = pictures(24, 2, seed=5)
        return Rows(classifier, classifier.encode([Image.fromarray(picture) for picture in pixels]), labels)
    frame = sentences(24, seed=5)
    return Rows(classifier, classifier.encode(frame["text"]), [NAMES.index(label) for label in frame["label"]])


def two_groups(module: torch.nn.Module) -> list[dict]:
    """As the Trainer's create_optimizer: decayed, then the rest, each in the order of named_parameters."""
    from transformers.trainer_pt_utils import get_parameter_names

    patterns = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]
    decayed = set(get_parameter_names(module, [torch.nn.LayerNorm], patterns))
    named = list(module.named_parameters())
    assert 0 < len(decayed) < len(named)
    return [
        {"params": [p for n, p in named if n in decayed], "weight_decay": DECAY},
        {"params": [p for n, p in named if n not in decayed], "weight_decay": 0.0},
    ]


class Training:
    """A plain torch training that writes what a Trainer writes."""

    def __init__(self, base: Path, family: str, place: Path, build) -> None:
        spec = CheckSpec(checkpoint=str(base), data="unused")
        self.classifier = load(import_checkpoint(inspect(spec, base)[0], spec, place / "never", NAMES))
        self.base, self.output = base, place / "output"
        self.rows = rows_for(self.classifier, family)
        self.module = self.classifier.module.requires_grad_(True)
        self.optimizer = build(two_groups(self.module))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1 - step / TOTAL)
        self.used: list[float] = []  # η of each step

    def step(self, rows=None) -> None:
        batch = self.rows.batch(np.arange(len(self.used) * 4, len(self.used) * 4 + 4) % 24 if rows is None else rows)
        self.used.append(self.optimizer.param_groups[0]["lr"])
        self.optimizer.zero_grad()
        self.classifier.losses(batch).mean().backward()
        self.optimizer.step()
        self.schedule.step()

    def save(self) -> Path:
        count = len(self.used)
        folder = Path(shutil.copytree(self.base, self.output / f"checkpoint-{count}"))
        self.module.save_pretrained(folder)
        torch.save(self.optimizer.state_dict(), folder / "optimizer.pt")
        history = [
            {"step": n + 1, "epoch": (n + 1) / 6, "learning_rate": self.used[n], "loss": 1.0}
            for n in range(1, count, 2)
        ]
        history.append({"step": count, "eval_loss": 0.5})
        state = {"global_step": count, "epoch": count / 6, "max_steps": TOTAL, "log_history": history}
        write_json(folder / "trainer_state.json", state)
        return folder


def trained(saved: dict[str, Path], family: str, place: Path, build=None) -> Training:
    build = build or (lambda groups: torch.optim.AdamW(groups, lr=RATE, **ADAMW))
    training = Training(saved[family], family, place, build)
    for _ in range(STEPS):
        training.step()
    return training


def bring_in(folder: Path, place: Path) -> tuple[Imported, Checkpoint]:
    spec = CheckSpec(checkpoint=str(folder), data="unused")
    imported = import_checkpoint(inspect(spec, folder)[0], spec, place, NAMES)
    entry = Checkpoint(
        name="mine",
        kind=imported.kind,
        preparation=imported.preparation,
        path=str(imported.path),
        fingerprint="",
        created="",
        optimizer=imported.optimizer,
        notes=imported.notes,
    )
    return imported, Checkpoint.model_validate_json(entry.model_dump_json())  # as it stands in a manifest


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {family: save_family(root / family, family) for family in ("roberta", "t5", "vit", "resnet")}


def start_of(entry: Checkpoint, classifier: Classifier, rows: Rows, scope: str, rate: float | None = None):
    optimizer = optimizer_of(entry, learning_rate=rate)
    step = TrainingStep(classifier, classifier.scope(scope), optimizer, rows, 8, seed=0, dropout=False)
    parameters = classifier.parameters(step.scope)
    (start,) = start_state(SimpleNamespace(), entry, step, parameters, None)
    assert isinstance(start, Start)
    assert start.source == "checkpoint"
    return step, parameters, start.state


BUILDS = {
    "AdamW": lambda groups: torch.optim.AdamW(groups, lr=RATE, **ADAMW),
    "Adam, coupled": lambda groups: torch.optim.Adam(groups, lr=RATE, **ADAMW),
    "SGD": lambda groups: torch.optim.SGD(groups, lr=RATE, momentum=0.9),
}


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("roberta", "AdamW"),
        ("t5", "AdamW"),
        ("vit", "AdamW"),
        ("resnet", "AdamW"),
        ("roberta", "Adam, coupled"),
        ("vit", "SGD"),
    ],
)
def test_a_continued_step_is_torchs_next_step(saved, tmp_path, family, kind):
    training = trained(saved, family, tmp_path, BUILDS[kind])
    folder = training.save()
    imported, entry = bring_in(folder, tmp_path / "place")
    assert imported.path == folder
    assert entry.optimizer["state"] == str(tmp_path / "place" / "optimizer.safetensors")
    classifier = load(imported)
    rows = rows_for(classifier, family)
    rate = training.optimizer.param_groups[0]["lr"]
    assert entry.optimizer["learning_rate"] == rate
    step, parameters, state = start_of(entry, classifier, rows, "all", rate)
    assert float(state.step) == (0 if kind == "SGD" else STEPS)
    before = {name: value.clone() for name, value in parameters.items()}
    after, _ = step(parameters, state, torch.zeros(0), None, 0)
    training.step(step.batch_rows(0))
    theirs = dict(training.module.named_parameters())
    assert set(after) == set(theirs)
    undecayed = set(entry.optimizer["undecayed"])
    assert 0 < len(undecayed) < len(after)
    for name, value in after.items():
        moved = theirs[name].detach() - before[name]
        assert (value - theirs[name].detach()).norm() <= 1e-4 * moved.norm() + 1e-7, name
    # the groups matter here: decaying all, or nothing, is another step
    for wrong in ((), tuple(after)):
        other = TrainingStep(
            classifier, step.scope, replace(step.optimizer, undecayed=wrong), rows, 8, 0, dropout=False
        )
        elsewhere, _ = other(before, state, torch.zeros(0), None, 0)
        furthest = max(
            float((elsewhere[name] - after[name]).norm() / (after[name] - before[name]).norm()) for name in after
        )
        assert furthest > 0.01


def test_a_state_is_cut_to_a_narrower_scope_and_refused_for_a_wider_one(saved, tmp_path):
    folder = trained(saved, "roberta", tmp_path).save()
    imported, entry = bring_in(folder, tmp_path / "place")
    classifier = load(imported)
    rows = rows_for(classifier, "roberta")
    step, parameters, state = start_of(entry, classifier, rows, "last:1")
    whole = load_file(tmp_path / "place" / "optimizer.safetensors")
    assert set(state.exp_avg) == set(step.scope.parameters) == set(state.exp_avg_sq)
    for name in step.scope.parameters:
        assert torch.equal(state.exp_avg[name], whole[f"exp_avg.{name}"])
    after, _ = step(parameters, state, torch.zeros(0), None, 0)
    assert set(after) == set(step.scope.parameters)
    head = {n: v for n, v in whole.items() if n == "step" or n.split(".", 1)[1].startswith("classifier")}
    save_file(head, tmp_path / "place" / "optimizer.safetensors")
    with pytest.raises(UserError, match="does not cover scope last:1"):
        start_of(entry, classifier, rows, "last:1")
    start_of(entry, classifier, rows, "head")


def test_rates_steps_and_schedule_come_from_the_trainers_log(saved, tmp_path):
    training = trained(saved, "roberta", tmp_path)
    training.save()
    for _ in range(4):
        training.step()
    training.save()
    spec = CheckSpec(checkpoint=str(training.output), data="unused")
    last, first = inspect(spec, training.output)
    assert (last.step, first.step) == (10, 6)
    assert last.optimizer["mean_learning_rate"] == pytest.approx(np.mean(training.used[6:10]))
    # the first log entry is step 2's, so step 1 counts as step 2
    assert first.optimizer["mean_learning_rate"] == pytest.approx(np.mean([training.used[1], *training.used[1:6]]))
    assert last.optimizer["learning_rate"] == pytest.approx(RATE * (1 - 10 / TOTAL))
    assert last.optimizer["schedule"]["max_steps"] == TOTAL
    assert last.optimizer["schedule"]["learning_rates"][0] == [2, training.used[1]]
    wanted = {"kind": "adam", "beta1": 0.8, "beta2": 0.99, "eps": 1e-7, "weight_decay": DECAY, "decoupled": True}
    assert {name: last.optimizer[name] for name in wanted} == wanted
    entries = [bring_in(Path(found.path), tmp_path / f"place-{found.step}")[1] for found in (last, first)]
    assert [entry.notes["epoch"] for entry in entries] == [pytest.approx(10 / 6), 1.0]
    assert entries[0].notes["recipe"] == entries[1].notes["recipe"]
    workspace = SimpleNamespace(checkpoint=lambda _: entries[0])
    assert TracIn().rate(workspace, SimpleNamespace(checkpoint=None)) == last.optimizer["mean_learning_rate"]


def test_a_trainers_checkpoint_without_its_optimizer_still_tells_rates(saved, tmp_path):
    training = trained(saved, "roberta", tmp_path)
    folder = training.save()
    (folder / "optimizer.pt").unlink()
    _, entry = bring_in(folder, tmp_path / "place")
    assert entry.optimizer["learning_rate"] == training.used[-1]
    assert "state" not in entry.optimizer
    assert optimizer_of(entry).kind == "adam"


@pytest.mark.parametrize("logged", [True, False])
def test_a_rate_of_zero_at_the_end_of_a_schedule_is_not_the_rate_of_the_training(saved, tmp_path, logged):
    """The optimizer says 0 after its last step; times that, every score would be 0."""
    training = trained(saved, "roberta", tmp_path)
    while len(training.used) < TOTAL:
        training.step()
    folder = training.save()
    if not logged:
        state = read_json(folder / "trainer_state.json")
        write_json(folder / "trainer_state.json", {**state, "log_history": [{"step": TOTAL, "eval_loss": 0.5}]})
    _, entry = bring_in(folder, tmp_path / "place")
    assert entry.optimizer["learning_rate"] == 0.0
    found = TracIn().rate(SimpleNamespace(checkpoint=lambda _: entry), SimpleNamespace(checkpoint=None))
    assert found == (pytest.approx(np.mean([training.used[1], *training.used[1:]])) if logged else None)


def several_rates(state):
    state["param_groups"][1]["lr"] = 1.0


def amsgrad(state):
    for group in state["param_groups"]:
        group["amsgrad"] = True


def factored(state):
    for held in state["state"].values():
        held["exp_avg_sq_row"] = held.pop("exp_avg_sq")


def another_model(state):
    state["state"][0]["exp_avg"] = torch.zeros(3, 3)


def fewer(state):
    state["param_groups"][1]["params"] = state["param_groups"][1]["params"][:-1]


def nested(state):
    """Text of it would have 2⁶⁰ parts; the file is small."""
    value = 1.0
    for _ in range(60):
        value = (value, value)
    state["param_groups"][0]["lr"] = value


def enormous(state):
    for group in state["param_groups"]:
        group["lr"] = 10**400


def uneven(state):
    state["state"][0]["step"] = torch.tensor(2.0)


def regrouped(state):
    """One group of all, in the order of two: shapes do not tell, sizes do."""
    state["param_groups"][0]["params"] += state["param_groups"][1]["params"]
    del state["param_groups"][1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (several_rates, "its groups differ in lr"),
        (amsgrad, "made with amsgrad"),
        (factored, "no optimizer that is followed here"),
        (another_model, "are not this model's"),
        (fewer, "are not this model's"),
        (uneven, "not all the same"),
        (nested, "a setting that is no number"),
        (enormous, "OverflowError"),
        (regrouped, "are not this model's"),
        (lambda state: state.pop("param_groups"), "not laid out as torch.optim's"),
    ],
)
def test_a_state_that_does_not_fit_is_left_out_and_said(saved, tmp_path, change, said):
    folder = trained(saved, "roberta", tmp_path).save()
    state = torch.load(folder / "optimizer.pt", weights_only=True)
    change(state)
    torch.save(state, folder / "optimizer.pt")
    imported, entry = bring_in(folder, tmp_path / "place")
    assert "state" not in entry.optimizer
    assert said in entry.notes["optimizer"][0]
    assert entry.notes["optimizer"][0].endswith("choose optimizer state warm")
    assert not (tmp_path / "place" / "optimizer.safetensors").exists()
    assert load(imported).label_names == NAMES


def test_what_our_own_training_writes(saved, tmp_path):
    folder = Path(shutil.copytree(saved["t5"], tmp_path / "checkpoint-30"))
    spec = CheckSpec(checkpoint=str(folder), data="unused")
    classifier = load(import_checkpoint(inspect(spec, folder)[0], spec, tmp_path / "place", NAMES))
    parameters = classifier.parameters(classifier.scope("last:1"))
    optimizer = OptimizerSpec(
        "adam", 1e-3, weight_decay=0.1, decoupled=True, undecayed=("decoder.final_layer_norm.weight",)
    )
    state = init(optimizer, parameters)
    _, state = update(
        optimizer, parameters, {name: torch.ones_like(value) for name, value in parameters.items()}, state
    )
    save_file(state.to_tensors(), folder / "optimizer.safetensors")
    about = {
        "step": 30,
        "epoch": 1.5,
        "optimizer": {"kind": "adam", "learning_rate": 1e-3, "weight_decay": 0.1, "decoupled": True, "momentum": 0.0}
        | {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "undecayed": ["decoder.final_layer_norm.weight"]},
        "schedule": "linear",
        "mean_learning_rate": 2e-3,
        "recipe": {"name": "t5-sst2"},
    }
    write_json(folder / "training.json", about)
    found = inspect(spec, folder)[0]
    assert found.step == 30
    _, entry = bring_in(folder, tmp_path / "place")
    assert entry.optimizer == {
        **about["optimizer"],
        "schedule": "linear",
        "mean_learning_rate": 2e-3,
        "state": "optimizer.safetensors",
    }
    assert entry.notes == {"recipe": {"name": "t5-sst2"}, "epoch": 1.5, "step": 30}
    assert optimizer_of(entry, learning_rate=1e-3) == optimizer
    rows = rows_for(classifier, "t5")
    _, _, start = start_of(entry, classifier, rows, "last:1")
    assert start.exp_avg.keys() == state.exp_avg.keys()
    for name, value in state.exp_avg_sq.items():
        assert torch.equal(start.exp_avg_sq[name], value)
    broken = OptimizerState.from_tensors({**state.to_tensors(), "exp_avg.nothing": torch.zeros(2)})
    save_file(broken.to_tensors(), folder / "optimizer.safetensors")
    _, entry = bring_in(folder, tmp_path / "place")
    assert "state" not in entry.optimizer
    assert "is of other parameters" in entry.notes["optimizer"][0]


@pytest.mark.parametrize(("length", "kept"), [(128, 128), (2, None), (10**9, None), ("long", None), (True, None)])
def test_a_recorded_length_that_is_none_is_passed_over(saved, tmp_path, length, kept):
    folder = Path(shutil.copytree(saved["roberta"], tmp_path / "mine"))
    write_json(folder / "training.json", {"recipe": {"max_length": length}})
    assert bring_in(folder, tmp_path / "place")[0].preparation.max_length == kept


def test_a_pickled_checkpoint_keeps_its_trainers_state_in_its_own_folder(saved, tmp_path):
    folder = trained(saved, "roberta", tmp_path).save()
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    imported, entry = bring_in(folder, tmp_path / "place")
    assert imported.path == tmp_path / "place"
    assert entry.optimizer["state"] == "optimizer.safetensors"
    classifier = load(imported)
    start_of(entry, classifier, rows_for(classifier, "roberta"), "last:1")


@pytest.mark.parametrize(
    "change", [{"kind": "lion"}, {"beta1": "x"}, {"eps": -1}, {"undecayed": [1]}, {"weight_decay": float("inf")}]
)
def test_constants_that_are_none_are_named(saved, tmp_path, change):
    folder = Path(shutil.copytree(saved["roberta"], tmp_path / "mine"))
    write_json(folder / "training.json", {"optimizer": {"kind": "adam", **change}})
    with pytest.raises(UserError, match=f"training.json says {next(iter(change))} = "):
        inspect(CheckSpec(checkpoint=str(folder), data="unused"), folder)


@pytest.mark.parametrize("state", ['{"global_step": "many"}', '{"global_step": -1}', "[]", "{"])
def test_a_damaged_trainer_state_is_named(saved, tmp_path, state):
    folder = Path(shutil.copytree(saved["roberta"], tmp_path / "checkpoint-3"))
    (folder / "trainer_state.json").write_text(state)
    with pytest.raises(UserError, match=r"trainer_state\.json"):
        inspect(CheckSpec(checkpoint=str(folder), data="unused"), folder)


def test_odd_log_entries_are_passed_over(saved, tmp_path):
    folder = Path(shutil.copytree(saved["roberta"], tmp_path / "checkpoint-900000000000"))
    history = [
        3,
        {"step": "x", "learning_rate": 1},
        {"step": 2, "learning_rate": float("nan")},
        {"step": 5, "learning_rate": 0.5},
    ]
    write_json(folder / "trainer_state.json", {"global_step": 900_000_000_000, "epoch": None, "log_history": history})
    found = inspect(CheckSpec(checkpoint=str(folder), data="unused"), folder)[0]
    assert found.optimizer["mean_learning_rate"] == found.optimizer["learning_rate"] == 0.5
