import pytest

from influence_core.data.labels import match, problems
from influence_core.errors import UserError

GENERIC = ("LABEL_0", "LABEL_1")


def indices(found, labels) -> list[int | None]:
    return [found.index.get(label) for label in labels]


def test_by_name_in_any_case_before_numbers():
    names = ("1", "2", "3")
    found = match({"3": 1, "1": 1, "2": 1}, names)
    assert (found.how, indices(found, "123"), found.names) == ("name", [0, 1, 2], names)
    found = match({"0": 1, "1": 1, "2": 1}, names)
    assert (found.how, indices(found, "012")) == ("number", [0, 1, 2])
    assert found.classes == {"0": "1", "1": "2", "2": "3"}
    found = match({"POSITIVE": 4, "Negative": 2}, ("negative", "positive"))
    assert (found.how, indices(found, ["Negative", "POSITIVE"])) == ("name", [0, 1])


def test_half_names_half_numbers_is_a_problem_that_names_the_label_its_rows_and_where():
    counts = {"yes": 30, "1": 20}
    found = match(counts, ("no", "yes"))
    assert (found.how, found.classes, found.few) == ("name", {"yes": "yes", "1": None}, frozenset())
    first = {"yes": "a.csv, row 1", "1": "a.csv, row 7"}
    (line,) = problems(found, counts, first, ("no", "yes"))
    assert line.startswith("a.csv, row 7: label '1' is none of the checkpoint's classes (no, yes, or their numbers")
    assert "20 rows" in line


@pytest.mark.parametrize(("bad", "is_few"), [(5, True), (6, False)])
def test_fewer_than_a_twentieth_are_rows_to_fix(bad, is_few):
    found = match({"no": 50, "yes": 50, "maybe": bad}, ("no", "yes"))
    assert (found.few == {"maybe"}) is is_few
    assert ("maybe" in found.classes) is not is_few


def test_a_negative_number_is_no_label_however_many_rows_have_it():
    found = match({"0": 10, "1": 10, "-1": 200}, ("no", "yes"))
    assert found.few == {"-1"}
    assert problems(found, {"0": 10, "1": 10, "-1": 200}, {}, ("no", "yes")) == []
    assert match({"-1": 5}, ("no", "yes")).classes == {"-1": None}  # but where all have it, the label is the problem


def test_labels_that_match_nothing():
    counts = {"bad": 1, "good": 1}
    found = match(counts, ("no", "yes"))
    assert (found.how, found.classes) == ("none", {"bad": None, "good": None})
    lines = problems(found, counts, {"bad": "a, row 1", "good": "a, row 2"}, ("no", "yes"))
    assert [line[:8] for line in lines] == ["a, row 1", "a, row 2"]


def test_more_labels_than_classes_is_said_with_both_counts_and_the_labels():
    counts = {str(number): 10 for number in range(8)}
    found = match(counts, ("no", "yes"))
    lines = problems(found, counts, dict.fromkeys(counts, "a, row 1"), ("no", "yes"))
    assert lines[0].startswith(
        "the data have 8 labels (0, 1, 2, 3, 4, 5, 6, 7), the checkpoint has 2 classes (no, yes)"
    )
    assert len(lines) == 7  # that one, five labels, and how many more there are
    assert lines[-1].startswith("1 more labels")


def test_the_users_choice_wins_and_may_join_labels():
    counts = {"bad": 2, "awful": 1, "good": 3, "yes": 4}
    given = {"bad": "no", "awful": "0", "good": "YES"}
    found = match(counts, ("no", "yes"), given=given)
    assert found.how == "given"
    assert found.classes == {"bad": "no", "awful": "no", "good": "yes", "yes": "yes"}
    swapped = match({"no": 1, "yes": 1}, ("no", "yes"), given={"no": "yes", "yes": "no"})
    assert indices(swapped, ["no", "yes"]) == [1, 0]
    with pytest.raises(UserError, match=r"'bad' was given the class 'nope', which is none of .* \(no, yes"):
        match(counts, ("no", "yes"), given={"bad": "nope"})


def test_classes_without_names_take_the_datas():
    counts = {"bad": 1, "good": 1}
    own = match(counts, GENERIC, own=("bad", "good"), numbered=True)
    assert (own.how, own.names, indices(own, counts)) == ("number", ("bad", "good"), [0, 1])
    chosen = match(counts, GENERIC, given={"bad": "LABEL_1", "good": "LABEL_0"})
    assert (chosen.how, chosen.names, indices(chosen, counts)) == ("given", ("good", "bad"), [1, 0])
    assert chosen.classes == {"bad": "LABEL_1", "good": "LABEL_0"}  # what was given, so that it can be given again
    again = match(counts, GENERIC, given={label: str(name) for label, name in chosen.classes.items()})
    assert again == chosen
    numbers = match({"0": 1, "1": 1}, GENERIC)
    assert (numbers.how, numbers.names) == ("number", GENERIC)
    assert match({"LABEL_1": 1}, GENERIC).index == {"LABEL_1": 1}
    joined = match({"bad": 1, "awful": 1, "good": 1}, GENERIC, given={"bad": "0", "awful": "0", "good": "1"})
    assert joined.names == ("LABEL_0", "good")  # two labels give no one name


def test_a_folders_order_counts_only_where_the_classes_have_no_names():
    counts = {"cat": 1, "dog": 1}
    assert match(counts, GENERIC, own=("cat", "dog")).how == "number"
    assert match(counts, ("ship", "car"), own=("cat", "dog")).how == "none"
    assert match(counts, ("ship", "car"), own=("cat", "dog"), numbered=True).index == {"cat": 0, "dog": 1}


def test_without_classes_the_labels_are_the_classes():
    own = match({"pos": 1, "neg": 1}, (), own=("neg", "neutral", "pos"))
    assert (own.how, own.names, own.index) == ("name", ("neg", "neutral", "pos"), {"pos": 2, "neg": 0})
    assert match({"10": 1, "2": 1, "1": 1}, ()).names == ("1", "2", "10")
    assert match({"b": 1, "a": 1}, ()).names == ("a", "b")
    unlabelled = match({"0": 1, "1": 1, "-1": 5}, ())
    assert (unlabelled.names, unlabelled.few) == (("0", "1"), {"-1"})
    given = match({"0": 1, "1": 1}, (), given={"0": "negative", "1": "positive"})
    assert (given.how, given.names, given.index) == ("given", ("negative", "positive"), {"0": 0, "1": 1})
    assert problems(given, {"0": 1, "1": 1}, {}, ()) == []


def test_classes_that_differ_only_in_case_are_told_apart():
    counts = {"A": 10, "a": 10}
    found = match(counts, ("A", "a"))
    assert (found.how, found.index) == ("name", {"A": 0, "a": 1})
    found = match({"us": 30, "US": 1, "It": 30}, ("US", "us", "it"))
    assert found.index == {"us": 1, "US": 0, "It": 2}  # any case where one class only is so named
    assert match({"Us": 1, "US": 1}, ("US", "us")).classes == {"Us": None, "US": "US"}
    given = match({"x": 1, "y": 1}, ("A", "a"), given={"x": "a", "y": "A"})
    assert given.index == {"x": 1, "y": 0}
    with pytest.raises(UserError, match="none of the checkpoint's"):
        match({"x": 1}, ("Us", "us"), given={"x": "US"})
    assert match({"A": 1, "a": 1}, ("LABEL_0", "LABEL_1"), own=("A", "a")).index == {"A": 0, "a": 1}


def test_a_label_without_a_class_beside_given_ones_is_said_to_have_been_given_none():
    counts = {"0": 9, "1": 9}
    found = match(counts, ("no", "yes"), given={"0": "no"})
    (line,) = problems(found, counts, {"0": "a, row 1", "1": "a, row 2"}, ("no", "yes"), {"0": "no"})
    assert line == "a, row 2: label '1' was given no class (no, yes), in 9 rows: choose its class, or fix the rows"


@pytest.mark.parametrize("classes", [("no", "yes"), ()])
def test_a_class_for_a_label_that_the_data_lack_is_a_problem_that_names_the_labels_there_are(classes):
    counts = {"no": 9, "yes": 9}
    given = {"nay": "no", " yes ": "yes"}
    (line,) = problems(match(counts, classes, given=given), counts, {}, classes, given)
    assert line == (
        "label 'nay' was given the class 'no', but the data have no such label (they have no, yes): leave it out, or "
        "correct it"
    )
