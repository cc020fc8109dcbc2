"""Every method on Influence: picker, the form made from its settings, why it cannot be used, how its solve went."""

from typing import Annotated, Literal

import pytest
from pydantic import Field
from workspaces import add_features, add_index, add_solve, catch_runs, open_app, tiny_workspace, use_home

from influence_core import estimates
from influence_core.attribution import ekfac
from influence_core.runs.directory import RunDirectory
from influence_core.settings import METHOD_NAMES, METHOD_WORDS, SETTINGS, Settings
from influence_core.specs import CorrectionSpec, IndexSpec, RankSpec
from pages.components import correction_settings
from pages.components.settings_form import widget_key

EXAMPLE = "test-3"  # true positive, predicted negative


@pytest.fixture
def workspace(monkeypatch, tmp_path):
    use_home(monkeypatch, tmp_path)
    return tiny_workspace()


@pytest.fixture
def submitted(workspace, monkeypatch):
    return catch_runs(monkeypatch)


def opened(method=None, example=EXAMPLE, **query):
    address = {} if method is None else {"method": METHOD_NAMES[method]}
    app = open_app("influence", example=example, **address, **query)
    assert not app.exception
    return app


def has(app, key):
    return any(button.key == key for button in app.button)


def captions(app):
    return " | ".join(found.value for found in app.main.caption).replace("\\", "")


def spec_of(run_id):
    return RunDirectory.open(run_id).spec()


def rank(**options):
    return RankSpec(workspace="tiny", checkpoint="first", example=EXAMPLE, **options)


def test_the_picker_offers_every_method_and_says_what_the_chosen_one_is(workspace):
    app = opened()
    assert app.selectbox(key="method").options == list(METHOD_NAMES.values())
    assert METHOD_WORDS["tracin"].split(":")[0] in captions(app)
    app.selectbox(key="method").set_value("hif-cr").run()
    assert "suits an indefinite H" in captions(app)
    assert not any(found.value == METHOD_WORDS["tracin"] for found in app.main.caption)


def test_methods_that_cannot_be_used_stay_in_the_list_and_say_why(workspace, monkeypatch):
    monkeypatch.setattr(ekfac, "find_spec", lambda name: None)
    for method, why in (("tracin-multi", "two or more checkpoints"), ("ekfac", "kronfluence")):
        app = opened(method)
        assert app.selectbox(key="method").value == method
        assert why in app.info[0].value
        assert METHOD_NAMES[method].split("-")[0] in app.info[0].value
        assert not has(app, "rank")


def test_every_method_that_can_be_used_opens_with_an_offer_or_a_ranking(workspace):
    add_features(workspace, "train")
    add_features(workspace, "test")
    for method in METHOD_NAMES:
        app = opened(method)
        assert not app.error, method
        ranked = has(app, "relabel_these")
        assert ranked == (method in ("tracin", "embedding", "random")), method
        assert ranked or has(app, "rank") or app.info, method


def test_the_button_says_time_and_memory(workspace, submitted, monkeypatch):
    monkeypatch.setattr(estimates, "scope_size", lambda *given: 10**8)
    app = opened("hif-cr")
    asked = rank(method="hif-cr")
    words = estimates.estimate(workspace, asked).words
    assert words.endswith(" GB")
    assert app.button(key="rank").label == f"Compute ({words})"
    app.button(key="rank").click().run()
    assert spec_of(submitted[0]) == asked


class MadeUp(Settings):
    """A method's settings that no page has heard of: one field of every kind."""

    wanted: Annotated[int | None, Field(title="Wanted", ge=2, le=9, description="how many")] = None
    passes: Annotated[int, Field(title="Passes", ge=1)] = 4
    ratio: Annotated[float, Field(title="Ratio", ge=0, lt=1)] = 0.1
    limit: Annotated[float | None, Field(title="Limit", gt=0)] = None
    kind: Annotated[Literal["even", "odd"] | None, Field(title="Kind")] = None
    exact: Annotated[bool, Field(title="Exact")] = False
    names: Annotated[tuple[str, ...], Field(title="Which ones")] = ()


def test_a_new_methods_form_is_made_from_its_settings_alone(workspace, submitted, monkeypatch):
    monkeypatch.setitem(SETTINGS, "tracin", MadeUp)
    app = opened("tracin")
    key = {name: widget_key("tracin", name) for name in MadeUp.model_fields}
    wanted = app.number_input(key=key["wanted"])
    assert (wanted.label, wanted.help, wanted.min, wanted.max, wanted.value) == ("Wanted", "how many", 2, 9, None)
    assert wanted.placeholder == "default"
    passes = app.number_input(key=key["passes"])
    assert (passes.value, passes.step, passes.max) == (4, 1, None)
    assert app.number_input(key=key["ratio"]).value == 0.1
    assert app.number_input(key=key["limit"]).value is None
    assert app.selectbox(key=key["kind"]).options == ["default", "even", "odd"]
    assert app.toggle(key=key["exact"]).value is False
    assert app.multiselect(key=key["names"]).options == ["first"]
    wanted.set_value(5)
    app.number_input(key=key["limit"]).set_value(0.5)
    app.selectbox(key=key["kind"]).set_value("odd")
    app.toggle(key=key["exact"]).set_value(True)
    app.multiselect(key=key["names"]).set_value(["first"]).run()
    assert not app.exception
    app.button(key="rank").click().run()
    settings = {"wanted": 5, "limit": 0.5, "kind": "odd", "exact": True, "names": ("first",)}
    assert spec_of(submitted[0]) == rank(method="tracin", settings=settings)
    app.button(key="defaults_tracin").click().run()
    assert has(app, "rank")  # these settings are other ones than those of the table in the tests' workspace
    app.button(key="rank").click().run()
    assert spec_of(submitted[1]) == rank(method="tracin")


class Odd(Settings):
    """A kind of field that the form does not know."""

    table: dict[str, int] | None = None


def test_a_field_that_has_no_widget_is_an_error_that_names_it(workspace, monkeypatch):
    monkeypatch.setitem(SETTINGS, "random", Odd)
    app = open_app("influence", example=EXAMPLE, method=METHOD_NAMES["random"])
    assert "setting table: no widget" in app.exception[0].message


def test_settings_are_kept_for_each_method_and_go_on_to_correct(workspace, submitted):
    app = opened("hif-cr")
    app.number_input(key=widget_key("hif-cr", "iterations")).set_value(7).run()
    app.selectbox(key="method").set_value("hif-cg").run()
    assert app.number_input(key=widget_key("hif-cg", "iterations")).value == 50
    app.selectbox(key="method").set_value("hif-cr").run()
    assert app.number_input(key=widget_key("hif-cr", "iterations")).value == 7
    app.switch_page("pages/correct.py").run()
    assert app.selectbox(key=correction_settings.METHOD).options[1:] == list(METHOD_NAMES.values())
    app.selectbox(key=correction_settings.METHOD).set_value("hif-cr").run()
    assert "ranked for the predicted label with Hessian-based, Conjugate Residual (iterations 7)" in " ".join(
        found.value for found in app.text
    )
    app.button(key="correct_start").click().run()
    assert not app.exception
    spec = spec_of(submitted[0])
    assert isinstance(spec, CorrectionSpec)
    assert (spec.method, spec.settings) == ("hif-cr", {"iterations": 7})


def test_correct_says_before_it_runs_that_a_method_cannot_be_used(workspace, submitted):
    app = open_app("correct", example=EXAMPLE)
    app.selectbox(key=correction_settings.METHOD).set_value("tracin-multi").run()
    assert not app.exception
    assert "two or more checkpoints" in app.error[0].value
    assert not has(app, "correct_start")


def test_a_corrections_settings_come_back_into_its_form(workspace, submitted):
    done = RunDirectory.create(
        CorrectionSpec(
            workspace="tiny", checkpoint="first", example=EXAMPLE, method="hif-cr", settings={"damping": 0.5}, k=3
        )
    )
    done.claim()
    done.fail("out of memory")
    app = open_app("correct", example=EXAMPLE, run=done.id)
    app.button(key=f"change_{done.id}").click().run()
    assert app.number_input(key=widget_key("hif-cr", "damping")).value == 0.5


@pytest.mark.parametrize(
    ("method", "name", "value", "said"),
    [("abif", "k", 100, "needs at least as many iterations"), ("hif-cr", "tolerance", 1.0, "less than 1")],
)
def test_settings_that_do_not_fit_are_said_in_words(workspace, method, name, value, said):
    app = opened(method)
    app.number_input(key=widget_key(method, name)).set_value(value).run()
    assert not app.exception
    assert said in app.error[0].value


def test_an_index_of_other_settings_is_offered(workspace, submitted):
    add_index(workspace)  # k = 2
    app = opened("abif", example="test-0")
    assert has(app, "relabel_these")
    app.number_input(key=widget_key("abif", "k")).set_value(5).run()
    assert "no ABIF index with these settings" in app.info[0].value
    app.button(key="index").click().run()
    assert spec_of(submitted[0]) == IndexSpec(workspace="tiny", checkpoint="first", k=5)


def test_a_run_in_the_address_brings_method_and_settings_back(workspace):
    run = RunDirectory.create(rank(method="hif-cr", settings={"iterations": 7}, by="score"))
    app = open_app("influence", example=EXAMPLE, run=run.id)
    assert not app.exception
    assert app.selectbox(key="method").value == "hif-cr"
    assert app.selectbox(key="order").value == "score"
    assert app.number_input(key=widget_key("hif-cr", "iterations")).value == 7
    assert "place 1 in the queue" in app.main.progress[-1].text
    app.number_input(key=widget_key("hif-cr", "iterations")).set_value(8).run()  # and is not forced on it again
    assert app.number_input(key=widget_key("hif-cr", "iterations")).value == 8


def test_a_solve_that_did_not_converge_is_said_with_its_residual(workspace):
    add_solve(workspace, "hif-cr", EXAMPLE, converged=0, true_residuals=0.25, negative=1, breakdown=1)
    app = opened("hif-cr")
    assert has(app, "relabel_these")
    said = captions(app)
    for part in ("2 iterations", "residual 0.25", "not converged", "negative curvature at iteration 2", "MINRES"):
        assert part in said
    assert ["did not converge" in found.value for found in app.warning] == [True]
    assert "0\\.25" in app.warning[0].value


def test_conjugate_gradient_says_why_its_scores_mean_little_where_it_met_negative_curvature(workspace):
    add_solve(workspace, "hif-cg", EXAMPLE, negative=0, curvatures=[-1.0, 2.0])
    add_solve(workspace, "hif-cg", "test-9")
    (found,) = opened("hif-cg").warning
    assert "negative curvature at iteration 1" in found.value
    assert "mean little" in found.value
    assert not opened("hif-cg", example="test-9").warning


def test_the_controls_speak_of_no_scope_and_promise_nothing(workspace):
    said = captions(opened("random"))
    assert "Random (control)" in said
    assert "seed 0" in said
    assert "head" not in said
    assert "next few training steps" not in said
    assert "built" not in said


def test_the_spectrum_shows_signs_figures_and_what_they_mean(workspace):
    add_index(workspace)
    app = opened("tracin", side="Spectrum")
    assert {found.label: found.value for found in app.metric} == {
        "Negative": "1 of 2",
        "Smallest": "−1",
        "Largest residual": "0.25",
        "‖QᵀQ − I‖": "1e-09",
    }
    assert any("Damping makes H positive only above 1;" in found.value for found in app.main.markdown)
    assert "8 training rows" in captions(app)
    assert len(app.get("plotly_chart")) == 1
    assert [app.button(key=f"solve_{method}").label.startswith("Solve by") for method in ("hif-cr", "hif-cg")]
    assert not has(app, "relabel_these")


def test_without_an_index_the_spectrum_offers_to_build_one_and_solves_are_offered(workspace, submitted):
    app = opened(side="Spectrum")
    assert "spectrum comes with the ABIF index" in app.info[0].value
    app.button(key="index").click().run()
    assert spec_of(submitted[0]) == IndexSpec(workspace="tiny", checkpoint="first")
    app.button(key="solve_hif-cg").click().run()
    assert spec_of(submitted[1]) == rank(method="hif-cg")


def test_solves_that_are_kept_are_drawn_one_beside_the_other(workspace):
    add_index(workspace)
    add_solve(workspace, "hif-cr", EXAMPLE)
    add_solve(workspace, "hif-cg", EXAMPLE, residuals=[1.0, 2.0, 0.5], converged=0, negative=1, curvatures=[2.0, -1.0])
    app = opened(side="Spectrum")
    assert not has(app, "solve_hif-cr")
    assert len(app.get("plotly_chart")) == 4  # the spectrum, both residuals in one, curvatures each
    said = [found.value for found in app.main.text]
    assert "Conjugate Residual converged: its residual is 0.0005 of ‖b‖, after 2 iterations." in said
    assert "Conjugate Gradient did not converge: its best residual was 0.5 of ‖b‖, after 2 iterations." in said
