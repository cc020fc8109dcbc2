"""Groups of training rows that a file gives: which rows land in them, what the step does with them, bad files."""

import json
import shlex
import shutil

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from workspaces import tiny_workspace

from influence_core.cli import main
from influence_core.correction.replay import replay
from influence_core.errors import UserError
from influence_core.events import Result
from influence_core.groups import MOST, UNNAMED, keep_groups, kept_groups
from influence_core.home import read_json
from influence_core.models.loading import load, rows_of
from influence_core.replays import Replayed
from influence_core.reports.commands import correct_command
from influence_core.reports.facts import read
from influence_core.runs import registry
from influence_core.specs import CorrectionSetSpec, parse_spec
from influence_core.trajectory.optimizers import OptimizerSpec
from influence_core.trajectory.step import TrainingStep

FAST = {"optimizer": "sgd", "learning_rate": 0.1, "k": 4, "batch_size": 16, "method": "tracin", "dropout": False}


def corrected(workspace, examples, folder, **options):
    spec = workspace.spec(CorrectionSetSpec, {"examples": tuple(examples), **FAST, "steps": 1, **options})
    events = list(registry.start(spec, folder))
    assert isinstance(events[-1], Result)
    return events[-1].value, read_json(folder / "manifest.json")


def written(path, lines, head="id,source"):
    path.write_text("\n".join([head, *lines]) + "\n")
    return path


@pytest.fixture
def wrong(opened):
    return opened.mispredictions()["id"].tolist()


@pytest.fixture
def chosen(opened, wrong):
    """The rows that a correction of the first two mispredictions picks, in its order."""
    return [row.id for each in wrong[:2] for row in opened.rank(each, method="tracin", top=4).proponents]


@pytest.fixture
def file(chosen, tmp_path):
    """Two sources in turns over the chosen rows, but for the last one, which is in none."""
    rows = list(dict.fromkeys(chosen))
    lines = [f"{row},{('web', 'books')[number % 2]}" for number, row in enumerate(rows[:-1])]
    return written(tmp_path / "sources.csv", lines)


@pytest.fixture
def small(home):
    """A workspace of files, for what needs no model."""
    return tiny_workspace()


def by_hand(chosen, file):
    """The chosen rows by what the file says, in order of the first row."""
    said = dict(line.split(",") for line in file.read_text().splitlines()[1:])
    groups = {}
    for row in chosen:
        groups.setdefault(said.get(row, UNNAMED), []).append(row)
    return groups


def test_rows_land_in_the_files_groups_and_the_step_has_their_weights(opened, wrong, chosen, file, tmp_path):
    expected = by_hand(chosen, file)
    assert list(expected) == ["web", "books", UNNAMED]
    weights = {"web": 0.5, "books": 0.1, UNNAMED: 0.3}
    given = keep_groups(opened, file)
    options = {"group_by": "given", "groups": given.key, "epsilons": tuple(weights.values())}
    _, manifest = corrected(opened, wrong[:2], tmp_path / "run", **options)
    assert {each["name"]: each["rows"] for each in manifest["groups"]} == expected
    assert [each["epsilon"] for each in manifest["groups"]] == list(weights.values())
    # the step, by autograd over the groups of the file and no others
    classifier = load(opened)
    scope, rows = classifier.scope("last:1"), rows_of(opened, classifier, "train")
    order = TrainingStep(classifier, scope, OptimizerSpec(kind="sgd", learning_rate=0.1), rows, 16, 0).batch_rows(0)
    leaves = {name: value.clone().requires_grad_() for name, value in classifier.parameters(scope).items()}
    loss = F.cross_entropy(classifier.logits(batch := rows.batch(order), leaves), batch.labels)
    desired = [opened.truth(each) for each in wrong[:2] for _ in range(4)]  # of the chosen rows, in their order
    said = dict(line.split(",") for line in file.read_text().splitlines()[1:])
    for name, own in expected.items():
        labels = [label for row, label in zip(chosen, desired, strict=True) if said.get(row, UNNAMED) == name]
        batch = rows.batch([opened.locate(row)[1] for row in own], labels)
        loss = loss + weights[name] * F.cross_entropy(classifier.logits(batch, leaves), batch.labels)
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    found = load_file(tmp_path / "run" / "parameters.safetensors")
    for (name, value), gradient in zip(leaves.items(), gradients, strict=True):
        torch.testing.assert_close(found[name], value.detach() - 0.1 * gradient, rtol=1e-4, atol=1e-6)


def test_without_weights_each_group_has_its_share_of_the_rows(opened, wrong, chosen, file, tmp_path):
    given = keep_groups(opened, file)
    _, manifest = corrected(opened, wrong[:2], tmp_path / "run", group_by="given", groups=given.key, share=0.5)
    counts = {name: len(rows) for name, rows in by_hand(chosen, file).items()}
    assert {each["name"]: each["epsilon"] for each in manifest["groups"]} == pytest.approx(
        {name: count / 8 for name, count in counts.items()}
    )


def test_what_is_kept_repeats_without_the_file_and_replays_without_the_table(opened, wrong, file, tmp_path):
    given = keep_groups(opened, file)
    outcome, manifest = corrected(opened, wrong[:2], tmp_path / "run", group_by="given", groups=given.key)
    file.unlink()
    opened.keep(tmp_path / "run", "by-source")
    command = shlex.split(correct_command(manifest, outcome, None, None))
    assert command[command.index("--group-by") + 1] == "given"
    assert command[command.index("--groups") + 1] == given.key
    command = command[command.index("correct") :]  # as the shell would run it
    with pytest.raises(SystemExit) as ended:
        main([*command, "--keep", "again"])
    assert ended.value.code == 0
    again, kept = (opened.checkpoint(name).notes["correction"]["groups"] for name in ("again", "by-source"))
    assert again == kept
    shutil.rmtree(opened.artefacts.folder / "groups")
    found = [event for event in replay(opened, "by-source") if isinstance(event, Replayed)][-1]
    assert found.same, found.differing
    settings = dict(read(opened, tmp_path / "run").settings)
    assert settings["groups given by"] == "column source of sources.csv"
    assert settings["groups"].startswith("3: web (ε = ")
    with pytest.raises(UserError, match=rf"keeps no groups of the key '{given.key}': give the file"):
        corrected(opened, wrong[:2], tmp_path / "again", group_by="given", groups=given.key)


def test_a_spec_has_a_table_where_it_says_so_and_older_specs_look_as_before(small):
    base = {"kind": "correct-set", "workspace": "w", "examples": ["a", "b"]}
    assert "groups" not in parse_spec(base).model_dump()
    for more in ({"group_by": "given"}, {"groups": "0" * 16}, {"group_by": "cell", "groups": "0" * 16}):
        with pytest.raises(UserError, match="go together"):
            parse_spec({**base, **more})
    with pytest.raises(UserError, match=r"'\.\./x' is no key of kept groups"):
        parse_spec({**base, "group_by": "given", "groups": "../x"})
    with pytest.raises(UserError, match="keeps no groups of the key"):
        kept_groups(small, "../../etc")


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_all_endings_say_the_same(small, tmp_path, ending):
    ids = small.train["id"].tolist()[:3]
    table = pd.DataFrame({"Id": ids, "group": ["a", "b", "a"]})
    file = tmp_path / f"g.{ending}"
    if ending == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in table.to_dict("records")))
    elif ending == "parquet":
        table.to_parquet(file)
    else:
        table.to_csv(file, sep="\t" if ending == "tsv" else ",", index=False)
    found = keep_groups(small, file)
    assert (dict(found.groups), found.column) == (dict(zip(ids, ["a", "b", "a"], strict=True)), "group")
    assert found.counts == {"a": 2, "b": 1}
    assert found.of("elsewhere") == UNNAMED
    assert kept_groups(small, found.key) == found


def test_a_key_says_what_the_groups_are(small, tmp_path):
    ids = small.train["id"].tolist()
    first = keep_groups(small, written(tmp_path / "a.csv", [f"{ids[0]},x", f"{ids[1]},y"]))
    same = keep_groups(small, written(tmp_path / "a.csv", [f"{ids[1]},y", f"{ids[2]},", f"{ids[0]},x", f"{ids[0]},x"]))
    other = keep_groups(small, written(tmp_path / "a.csv", [f"{ids[0]},x", f"{ids[1]},x"]))
    assert first.key == same.key != other.key
    assert dict(kept_groups(small, first.key).groups) == {ids[0]: "x", ids[1]: "y"}
    named = keep_groups(small, written(tmp_path / "b.csv", [f"{ids[0]},1,2"], "id,domain,slice"), "domain")
    assert dict(named.groups) == {ids[0]: "1"}


@pytest.mark.parametrize(
    ("head", "lines", "message"),
    [
        (None, [], r"g\.csv cannot be read \(no header line: it is empty\)"),
        ("id,source", [], r"g\.csv has no rows"),
        ("row,source", ["{0},x"], r"g\.csv has no column 'id', it has 'row', 'source'"),
        ("id", ["{0}"], r"g\.csv has no column beside 'id'"),
        ("id,domain", ["{0},x"], r"no column that is called group, source or slice: .* it has 'domain'"),
        ("id,source", ["{0},x", "{1},"], None),
        ("id,source", ["{0},", "{1},"], r"has ids but no group, all its cells are empty"),
        ("id,source", ["{0},x", "{1},y", "{0},z"], r"two groups: '{0}' is in 'x' by row 1, in 'z' by 3: leave one"),
        ("id,source", ["{0},x", "{1}"], r"g\.csv, row 2 cannot be used \(it has 1 cells, the header has 2\)"),
        ("id,source", ["{0}," + UNNAMED], r"'no group given' is how rows without a group are called"),
        ("id,source", ["{0}," + "x" * 201], r"has 201 characters, 200 are possible"),
        ("id,source", ["{0},x", ",y"], r"row 2 cannot be used \(its id is empty\)"),
    ],
)
def test_a_file_that_gives_no_groups_is_refused(small, tmp_path, head, lines, message):
    ids = small.train["id"].tolist()
    file = tmp_path / "g.csv"
    file.write_text("" if head is None else "\n".join([head, *(line.format(*ids) for line in lines)]) + "\n")
    if message is None:
        assert dict(keep_groups(small, file).groups) == {ids[0]: "x"}
        return
    with pytest.raises(UserError, match=message.format(*ids)) as refused:
        keep_groups(small, file)
    assert str(tmp_path) not in str(refused.value)


def test_a_column_whose_name_is_no_text_is_refused_beside_good_ones(small, tmp_path):
    file = tmp_path / "g.csv"
    file.write_bytes("id,source,catégorie\n{},x,y\n".format(small.train["id"].iloc[0]).encode("latin-1"))
    with pytest.raises(UserError, match=r"g\.csv has a column whose name is not UTF-8 \(byte 0xe9"):
        keep_groups(small, file)


def test_two_columns_of_one_name_are_refused(small, tmp_path):
    row = pa.array([small.train["id"].iloc[0]])
    pq.write_table(pa.Table.from_arrays([row, row, row], ["id", "source", "source"]), tmp_path / "g.parquet")
    with pytest.raises(UserError, match=r"g\.parquet has several columns that are called 'source': leave one"):
        keep_groups(small, tmp_path / "g.parquet")


def test_a_damaged_table_is_said_in_one_line(small, tmp_path):
    kept = keep_groups(small, written(tmp_path / "g.csv", [f"{small.train['id'].iloc[0]},x"]))
    folder = small.artefacts.folder / "groups" / kept.key
    for text in ("{}", "[]", "{"):
        (folder / "key.json").write_text(text)
        with pytest.raises(UserError, match="give the file of the groups again"):
            kept_groups(small, kept.key)


def test_rows_that_are_no_training_rows_are_counted_and_five_named(small, tmp_path):
    train = small.train["id"].tolist()
    lines = [f"{each},x" for each in [train[0], "test-0", *(f"no-{number}" for number in range(6))]]
    with pytest.raises(UserError) as refused:
        keep_groups(small, written(tmp_path / "g.csv", lines))
    said = str(refused.value)
    assert f"7 of the 8 ids in g.csv are no training row of {small.name}: 'test-0', 'no-0'" in said
    assert "'no-3' and 2 more;" in said
    assert f"ids as {train[0]!r}" in said


def test_too_many_groups_other_endings_and_columns_are_refused(small, tmp_path):
    lines = [f"{row},{number}" for number, row in enumerate(small.train["id"].tolist() * 3)]
    with pytest.raises(UserError, match=r"two groups: .* more such rows"):
        keep_groups(small, written(tmp_path / "g.csv", lines))
    assert len(small.train) <= MOST  # so that the limit is lowered here
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("influence_core.groups.MOST", 2)
        with pytest.raises(UserError, match=r"column 'source' of g\.csv has 3 groups, at most 2"):
            keep_groups(small, written(tmp_path / "g.csv", lines[:3]))
    with pytest.raises(UserError, match=r"g\.txt ends in '\.txt': give the groups as a \.csv"):
        keep_groups(small, written(tmp_path / "g.txt", lines[:1]))
    with pytest.raises(UserError, match=r"g\.csv has no column 'domain' for the group: choose one of 'source'"):
        keep_groups(small, tmp_path / "g.csv", "domain")
    with pytest.raises(UserError, match=r"^none\.csv cannot be read"):
        keep_groups(small, tmp_path / "none.csv")


def test_the_command_line_takes_a_file(opened, wrong, chosen, file, capsys):
    asked = ["correct", opened.name, "--example", wrong[0], "--example", wrong[1], "--method", "tracin", "--k", "4"]
    asked += ["--optimizer", "sgd", "--steps", "1", "--json", "--group-column", "source", "--groups", str(file)]
    with pytest.raises(SystemExit) as ended:
        main([*asked, *(word for each in ("0.2", "0.3", "0.4") for word in ("--group-epsilon", each)), "--keep", "cli"])
    assert ended.value.code == 0
    manifest = opened.checkpoint("cli").notes["correction"]
    assert manifest["spec"]["group_by"] == "given"
    assert {each["name"]: each["rows"] for each in manifest["groups"]} == by_hand(chosen, file)
    assert [each["epsilon"] for each in manifest["groups"]] == [0.2, 0.3, 0.4]
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([*asked, "--group-epsilon", "0.2"])
    assert ended.value.code == 2
    assert f"1 epsilons for 3 groups (web, books, {UNNAMED}): give one a group" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--group-by", "given"], "--group-by given needs the groups: give --groups FILE"),
        (["--group-column", "source"], "--group-column source needs the groups"),
        (["--groups", "none.csv", "--group-by", "cell"], "--groups none.csv gives the groups, --group-by cell others"),
        (["--groups", "none.csv"], "none.csv cannot be read (No such file or directory)"),
        (["--groups", "0" * 16], f"keeps no groups of the key '{'0' * 16}'"),
        (["--groups", "0" * 16, "--group-column", "source"], "leave it out"),
    ],
)
def test_options_that_give_no_groups_are_refused(small, capsys, options, message):
    with pytest.raises(SystemExit) as ended:
        main(["correct", small.name, "--example", "test-0", "--example", "test-3", *options])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["correct", small.name, "--example", "test-0", *options])
    assert "give --example more than once" in capsys.readouterr().err
