import numpy as np
import pytest
from workspaces import add_index, tiny_workspace, use_home

from influence_core.home import read_json, write_json
from influence_core.specs import RankSpec
from influence_core.spectrum import Spectrum, spectrum
from pages.components.spectrum_view import meaning


@pytest.fixture
def workspace(monkeypatch, tmp_path):
    use_home(monkeypatch, tmp_path)
    return tiny_workspace()


def asked(**options):
    return RankSpec(workspace="tiny", example="", **options)


def made(*values):
    found = np.array(values, dtype=np.float64)
    return Spectrum(found, np.zeros(len(found)), orthogonality=0.0, l2=0.0, made="2026", key={})


def test_it_is_what_the_manifest_says(workspace):
    add_index(workspace)
    found = spectrum(workspace, asked())
    assert found.values.tolist() == [2.0, -1.0]
    assert found.residuals.tolist() == [0.0, 0.25]
    assert (found.orthogonality, found.l2) == (1e-9, 0.0)
    assert (found.key["k"], found.key["iterations"], found.key["hessian_rows"]) == (2, 4, 8)
    assert (found.negative, found.smallest) == (1, -1.0)


def test_it_belongs_to_the_index_of_the_settings(workspace):
    assert spectrum(workspace, asked()) is None
    add_index(workspace)
    assert spectrum(workspace, asked(method="abif", settings={"k": 2})) is not None
    assert spectrum(workspace, asked(method="abif", settings={"k": 3})) is None
    assert spectrum(workspace, asked(method="tracin")) is not None
    assert spectrum(workspace, asked(scope="all")) is None


def test_an_index_that_is_being_built_has_none(workspace):
    add_index(workspace)
    (file,) = workspace.path.glob("artefacts/abif/*/manifest.json")
    about = read_json(file)
    file.unlink()
    assert spectrum(workspace, asked()) is None
    write_json(file, about)
    assert spectrum(workspace, asked()) is not None


def test_what_damping_would_hide_by_hand():
    # H + δI is positive for δ > 2.5; of the positive eigenvalues 9, 4, 2 and 1 the last two are below that
    found = made(9.0, 4.0, -2.5, 2.0, -1.5, 1.0)
    assert (found.negative, found.smallest, found.hidden) == (2, -2.5, 2)
    said = meaning(found)
    assert "only above 2.5" in said
    assert "outweighs 2 of the 4 positive eigenvalues" in said
    assert "would fail here" in said


def test_a_positive_spectrum_hides_nothing_and_warns_of_nothing():
    found = made(9.0, 4.0)
    assert (found.negative, found.smallest, found.hidden) == (0, 4.0, 0)
    assert "fail" not in meaning(found)
