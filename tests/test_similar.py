import math

import numpy as np
from workspaces import add_features, tiny_workspace, use_home

from influence_core import similar


def test_nearest_agrees_with_a_loop():
    rng = np.random.default_rng(2)
    features = rng.normal(size=(9000, 6)).astype(np.float16)  # more than two blocks
    features[5] = 0
    query = rng.normal(size=6).astype(np.float16)
    cosines = []
    for row in features:
        dot = sum(float(a) * float(b) for a, b in zip(row, query, strict=True))
        norm = math.sqrt(sum(float(a) ** 2 for a in row)) * math.sqrt(sum(float(b) ** 2 for b in query))
        cosines.append(dot / norm if norm else 0.0)
    expected = sorted(range(len(cosines)), key=lambda i: (-cosines[i], i))
    found = similar.nearest(features, query, len(features))
    assert np.array_equal(np.sort(found.rows), np.arange(len(features)))
    assert np.allclose(found.cosines, [cosines[i] for i in expected], rtol=1e-12, atol=1e-12)
    assert list(similar.nearest(features, query, 5).rows) == expected[:5]


def test_a_row_is_its_own_nearest_and_zeros_have_no_direction():
    features = np.eye(4)
    found = similar.nearest(features, features[2], 4)
    assert found.rows[0] == 2
    assert list(found.rows[1:]) == [0, 1, 3]  # ties in row order
    assert list(similar.nearest(features, np.zeros(4), 4).cosines) == [0, 0, 0, 0]
    assert len(similar.nearest(features, features[0], 99).rows) == 4


def test_features_are_read_from_beside_the_predictions_and_missing_ones_are_named(monkeypatch, tmp_path):
    use_home(monkeypatch, tmp_path)
    workspace = tiny_workspace()
    assert similar.missing(workspace, ("train", "test")) == ["train", "test"]
    test = add_features(workspace, "test")
    assert similar.missing(workspace, ("train", "test")) == ["train"]
    assert similar.similar(workspace, "test-3") is None
    train = add_features(workspace, "train")
    found = similar.similar(workspace, "test-3", top=7)
    assert list(found.rows) == list(similar.nearest(train, test[3], 7).rows)
    wrong = workspace.artefacts.path("predictions", workspace.prediction_key("train")) / "features.npy"
    np.save(wrong, np.zeros((3, 4), dtype=np.float16))  # of another size: not these rows' features
    assert similar.features(workspace, "train") is None
